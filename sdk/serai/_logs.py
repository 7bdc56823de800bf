"""Logs of versions: what is asked, what a line says, and reading on after an interruption. Both clients drive it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2

from serai import _http
from serai._requests import LOOKUP_TIMEOUT_S, Reference, Request
from serai._responses import LineSplitter, read_error
from serai.errors import ApiError, BadAnswer, ConnectionFailed, SeraiError

if TYPE_CHECKING:
    from serai._async_client import AsyncClient
    from serai._client import Client

#: The longest silence while a log is followed: the server gives a sign of life every 15 s.
FOLLOW_QUIET_S = 60.0

#: Pauses before a log that was interrupted is asked for again. A server that was killed is back within a second or two.
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)

OnBreak = Callable[[SeraiError | None], object]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a version's log. `details` is all that the server said."""

    time: str  # ISO 8601, UTC; within a version no two are the same
    event: str  # "output", "error", "omitted", or what happened to a replica: "start", "ready", "crashed", …
    text: str = ""
    replica: int | None = None
    call: str = ""  # request id of the call
    error_type: str = ""
    message: str = ""  # of an error, like its stack trace
    stacktrace: str = ""
    duration: float | None = None  # seconds
    details: Mapping[str, Any] = field(default_factory=dict)


class LogQuestion:
    """One reading of a log, however often it has to be asked for. Pure."""

    def __init__(self, reference: Reference, tail: int, follow: bool) -> None:
        """Raises ValueError when `tail` is negative."""
        if tail < 0:
            raise ValueError(f"tail is a number of lines, not {tail}")
        self.reference = reference
        self.follow = follow
        self._tail = tail
        self._since = ""
        self._has_begun = False  # an answer has come
        self._num_tries = 0  # since one last did

    def request(self) -> Request:
        reference = self.reference
        query = [("tail", str(self._tail))] if not self._since else [("since", self._since)]
        if self.follow:
            query.append(("follow", "true"))
        if reference.version is not None:
            query.append(("version", reference.version))
        path = f"/v1/algorithms/{quote(reference.owner)}/{quote(reference.name)}/logs"
        return Request("GET", path, tuple(query), timeout_s=FOLLOW_QUIET_S if self.follow else LOOKUP_TIMEOUT_S)

    def began(self) -> None:
        """The server answers."""
        self._has_begun = True
        self._num_tries = 0

    def take(self, line: bytes) -> LogEntry | None:
        """What a line says; None if it says nothing for the reader. Raises BadAnswer."""
        entry = read_entry(line)
        self._since = max(self._since, entry.time)
        # A reader that was cut off by the server asks again and misses nothing.
        return None if self.follow and entry.event == "cut" else entry

    def pause_s(self, error: SeraiError | None) -> float | None:
        """How long to wait until asking again; None: this is the end, or the error to raise."""
        if not self.follow or not self._has_begun or not _passes(error):
            return None
        pause_s = _PAUSES_S[min(self._num_tries, len(_PAUSES_S) - 1)]
        self._num_tries += 1
        wished_s = error.retry_after_s if isinstance(error, ApiError) else None
        return max(pause_s, min(wished_s or 0.0, _PAUSES_S[-1]))


def _passes(error: SeraiError | None) -> bool:
    """Whether asking again may help; None: the answer ended as it should, because the server stopped."""
    return error is None or isinstance(error, ConnectionFailed) or (isinstance(error, ApiError) and error.retriable)


def read_entry(line: bytes) -> LogEntry:
    """Raises BadAnswer."""
    try:
        fields = json.loads(line)
        replica, duration = fields.get("replica"), fields.get("duration")
        return LogEntry(
            time=str(fields["time"]),
            event=str(fields["event"]),
            text=str(fields.get("text", "")),
            replica=replica if isinstance(replica, int) else None,
            call=str(fields.get("call", "")),
            error_type=str(fields.get("type", "")),
            message=str(fields.get("message", "")),
            stacktrace=str(fields.get("stacktrace", "")),
            duration=float(duration) if isinstance(duration, int | float) else None,
            details=fields,
        )
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BadAnswer(f"this is no line of a log: {line[:200]!r}") from error


def read_logs(client: "Client", question: LogQuestion, on_break: OnBreak | None) -> Generator[LogEntry, None, None]:
    while True:
        error = None
        try:
            yield from _read(client, question)
        except SeraiError as raised:
            error = raised
        pause_s = question.pause_s(error)
        if pause_s is None:
            if error is not None:
                raise error
            return
        if on_break is not None:
            on_break(error)
        time.sleep(pause_s)


def _read(client: "Client", question: LogQuestion) -> Generator[LogEntry, None, None]:
    request = question.request()
    response = client._open(request)
    try:
        if not response.is_success:
            raise read_error(response.status_code, response.headers, response.read())
        question.began()
        splitter = LineSplitter()
        for chunk in response.iter_bytes():
            yield from filter(None, map(question.take, splitter.feed(chunk)))
    except httpx2.RequestError as error:
        raise _http.translate(error, client.settings, request) from error
    finally:
        response.close()


async def read_logs_async(
    client: "AsyncClient", question: LogQuestion, on_break: OnBreak | None
) -> AsyncGenerator[LogEntry, None]:
    while True:
        error = None
        try:
            async for entry in _read_async(client, question):
                yield entry
        except SeraiError as raised:
            error = raised
        pause_s = question.pause_s(error)
        if pause_s is None:
            if error is not None:
                raise error
            return
        if on_break is not None:
            on_break(error)
        await asyncio.sleep(pause_s)


async def _read_async(client: "AsyncClient", question: LogQuestion) -> AsyncGenerator[LogEntry, None]:
    request = question.request()
    response = await client._open(request)
    try:
        if not response.is_success:
            raise read_error(response.status_code, response.headers, await response.aread())
        question.began()
        splitter = LineSplitter()
        async for chunk in response.aiter_bytes():
            for entry in filter(None, map(question.take, splitter.feed(chunk))):
                yield entry
    except httpx2.RequestError as error:
        raise _http.translate(error, client.settings, request) from error
    finally:
        await response.aclose()
