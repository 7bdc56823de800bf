"""A call's answer as it comes: from chunks of bytes to items, news and the end. Pure; the two clients feed it."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serai._requests import OutputType
from serai._responses import Response, read_call, read_error
from serai.errors import BadAnswer, ConnectionFailed

#: Longest event. 10 MiB of text grow to six times that when each character needs an escape; more is no server of ours.
MAX_EVENT_BYTES = 80 * 1024 * 1024

CONTENT_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an algorithm says that it is."""

    fraction: float | None  # 0 to 1; None: it does not know
    text: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a call has not begun."""

    state: str  # "queued": others are before it; "starting": a process is being started for it
    position: int = 0  # calls before it
    estimate_s: float | None = None  # seconds until it begins; None: unknown


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that the algorithm yielded."""

    value: Any


Event = Item | Progress | Waiting | Response
OnProgress = Callable[[Progress], object]
OnWaiting = Callable[[Waiting], object]


def is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == CONTENT_TYPE


class EventReader:
    """Chunks in, events out.

    Raises from `feed`:
        AlgorithmError, ApiError: the call ended with this.
        BadAnswer: these are no events of Serai.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._line = bytearray()
        self._name = b""
        self._data: list[bytes] = []
        self._num_bytes = 0  # of the event that is coming

    def feed(self, chunk: bytes) -> Iterator[Event]:
        first, *others = chunk.split(b"\n")
        self._extend(first)
        for other in others:
            event = self._end_line()
            if event is not None:
                yield event
            self._extend(other)

    def _extend(self, part: bytes) -> None:
        self._line += part
        self._num_bytes += len(part)
        if self._num_bytes > MAX_EVENT_BYTES:
            raise BadAnswer(f"an event of the stream is longer than {MAX_EVENT_BYTES} bytes")

    def _end_line(self) -> Event | None:
        line, self._line = bytes(self._line).removesuffix(b"\r"), bytearray()
        if not line:
            name, data = self._name, b"\n".join(self._data)
            self._name, self._data, self._num_bytes = b"", [], 0
            return read_event(name.decode("utf-8", "replace"), data, self._headers) if data else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value
        elif field == b"data":
            self._data.append(value)
        elif not field:  # a comment, so that proxies know that we live
            self._num_bytes = sum(map(len, self._data))
        return None


def read_event(name: str, data: bytes, headers: Mapping[str, str]) -> Event | None:
    """One event; None for one that is not known here. Raises AlgorithmError, ApiError and BadAnswer."""
    if name == "item":
        return Item(_decode(data))
    if name == "binary":
        return Item(_bytes_of(_decode(data)))
    if name == "progress":
        fields = _fields(data)
        return Progress(_number(fields.get("fraction")), str(fields.get("text", "")))
    if name == "waiting":
        fields = _fields(data)
        position = _number(fields.get("position")) or 0
        return Waiting(str(fields.get("state", "")), int(position), _number(fields.get("estimate_s")))
    if name == "result":
        return read_call(200, headers, data, OutputType.default)
    if name == "error":
        raise read_error(200, headers, data)
    return None


class Listener:
    """Who hears what: items are for whoever iterates, news for the callbacks, the end is kept in `response`."""

    def __init__(self, on_progress: OnProgress | None, on_waiting: OnWaiting | None) -> None:
        self._on_progress = on_progress
        self._on_waiting = on_waiting
        self.response: Response | None = None

    def items(self, events: Iterable[Event]) -> Iterator[Any]:
        for event in events:
            if isinstance(event, Item):
                yield event.value
            elif isinstance(event, Response):
                self.response = event
            elif isinstance(event, Progress):
                if self._on_progress is not None:
                    self._on_progress(event)
            elif self._on_waiting is not None:
                self._on_waiting(event)

    def check_ended(self) -> None:
        """When no more comes: raises ConnectionFailed if that was not the end."""
        if self.response is None:
            raise ConnectionFailed("the stream ended without saying how the call ended", maybe_sent=True)

    def outcome(self) -> Response:
        """Raises RuntimeError when there is none: the stream was closed early, or has raised already."""
        if self.response is None:
            raise RuntimeError("this stream was closed, or failed, before its end: it has no response")
        return self.response


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadAnswer("an event of the stream is not JSON; is this address a Serai?") from error


def _fields(data: bytes) -> dict[str, Any]:
    value = _decode(data)
    if not isinstance(value, dict):
        raise BadAnswer("an event of the stream is not what its name says; is this address a Serai?")
    return value


def _bytes_of(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadAnswer("the stream says binary but its item is not base64") from error


def _number(value: Any) -> float | None:
    """A number from outside; anything else, and what is not finite, is unknown."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return float(value)
    return None
