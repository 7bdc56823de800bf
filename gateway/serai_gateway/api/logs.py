"""GET /v1/algorithms/OWNER/NAME/logs: what a version's code printed and what became of it, for who manages it.

The answer is JSON lines as `serai_runner.logs.entries` makes them. With `follow` it goes on until the reader leaves or
the server stops; an empty line comes after each 15 s of silence. A reader that was interrupted asks again with
`since`, the time of its last line, and gets none twice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serai_gateway.api.who import manager_of
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Version, belongs_to
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import InvalidRequest, NotFound, PlatformError, TooManyRequests, Unavailable
from serai_gateway.log_feed import LogStream
from serai_gateway.route import CONNECT_WAIT_S
from serai_runner.logs.entries import is_time, lines_after

#: Lines without `tail`: a screen or two.
DEFAULT_TAIL = 100
MAX_TAIL = 10_000
#: Proxies give a silent answer up after 30 to 60 s.
QUIET_S = 15.0
#: How soon one who follows notices that the server stops; nothing else tells a request that is not waiting for calls.
_LOOK_S = 0.5
#: How often it is asked whether one who follows still may: a key that is revoked ends within 5 s, everywhere.
_CHECK_S = 2.0
#: The host answers from its memory or a file of 1 MiB.
_ANSWER_S = 10.0
#: Logs that one account may follow at once, over one worker: a person has that many windows, and others need room.
MAX_FOLLOWED = 16
_followed: Counter[str] = Counter()  # by account

_TYPE = "application/x-ndjson"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hand lines on in large pieces
_MAX_VERSION_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked."""

    version: str | None
    tail: int
    follow: bool
    since: str


async def get_logs(request: Request) -> Response:
    caller = await manager_of(request)
    options = _parse(request)
    owner, name = request.path_params["owner"], request.path_params["name"]
    cache: CatalogueCache = request.app.state.cache
    version, spec = await cache.version(owner, name, options.version, caller.account, steady=True)
    if not belongs_to(caller.account, version.owner_id):  # word for word what is said of what does not exist
        asked = f"{owner}/{name}" + (f"/{options.version}" if options.version else "")
        raise NotFound(f"algorithm algo://{asked} not found")
    if spec.kind == "model":
        raise NotFound(f"{version.owner}/{version.name} has no log: it is only a model, without code that could print")
    dispatcher: Dispatcher = request.app.state.dispatcher
    if not await dispatcher.runner.wait_open(CONNECT_WAIT_S):
        raise Unavailable("the runner host is not there; it is being restarted", retry_after_s=1.0)
    if options.follow:
        _check_room(caller.account.id)
        stream = dispatcher.runner.logs.ask(spec, options.tail, follow=True)
        return _Following(stream, options.since, _Right(request, version), caller.account.id)
    stream = dispatcher.runner.logs.ask(spec, options.tail, follow=False)
    return Response(await _read_all(stream, options.since), media_type=_TYPE, headers=_HEADERS)


def _parse(request: Request) -> Options:
    given = request.query_params
    since = given.get("since", "")
    if since and not is_time(since):
        raise InvalidRequest("since must be the time of a line, like 2026-05-04T10:11:12.131415Z")
    tail = given.get("tail", str(MAX_TAIL if since else DEFAULT_TAIL))
    if not (tail.isascii() and tail.isdigit() and len(tail) <= 9) or int(tail) > MAX_TAIL:
        raise InvalidRequest(f"tail must be a number of lines between 0 and {MAX_TAIL}")
    follow = given.get("follow", "false")
    if follow not in ("true", "false"):
        raise InvalidRequest("follow must be true or false")
    version = given.get("version") or None
    if version is not None and len(version) > _MAX_VERSION_CHARACTERS:
        raise InvalidRequest("version must be like 1.2.0, 1.2, 1.*, latest, latestPrivate or a 40-digit hash")
    return Options(version, int(tail), follow == "true", since)


async def _read_all(stream: LogStream, since: str) -> bytes:
    """Raises Unavailable."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(_ANSWER_S):
            while (lines := await stream.read()) is not None:
                parts.append(lines)
    except TimeoutError:
        raise Unavailable("the runner host does not answer; try again", retry_after_s=1.0) from None
    finally:
        stream.close()
    if stream.was_lost:
        raise Unavailable("the runner host is being restarted; try again", retry_after_s=1.0)
    return lines_after(b"".join(parts), since)


def _check_room(account_id: str) -> None:
    """Raises TooManyRequests."""
    if _followed[account_id] >= MAX_FOLLOWED:
        text = f"{MAX_FOLLOWED} logs are being followed by you already; leave one, or read without follow"
        raise TooManyRequests(text, retry_after_s=5)


class _Right:
    """Whether one who follows may go on."""

    def __init__(self, request: Request, version: Version) -> None:
        self._request = request
        self._version = version
        self._server = request.scope.get("state", {}).get("http_server")
        self._checked_at = time.monotonic()

    async def holds(self) -> bool:
        """False: the server stops, or the key or the account may not read this log any more."""
        if self._server is not None and self._server.draining:
            return False
        now = time.monotonic()
        if now - self._checked_at < _CHECK_S:
            return True
        self._checked_at = now
        try:
            caller = await manager_of(self._request)
        except PlatformError:
            return False
        return belongs_to(caller.account, self._version.owner_id)


class _Following(StreamingResponse):
    """Lines as they come, until the reader leaves or has no right to them, the host ends or the server stops."""

    def __init__(self, stream: LogStream, since: str, right: _Right, account_id: str) -> None:
        super().__init__(self._lines(since), media_type=_TYPE, headers=_HEADERS)
        self._stream = stream
        self._right = right
        self._account_id = account_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _followed[self._account_id] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:  # here and not in `_lines`, which may never have begun
            self._stream.close()
            _followed[self._account_id] -= 1
            if not _followed[self._account_id]:
                del _followed[self._account_id]

    async def _lines(self, since: str) -> AsyncIterator[bytes]:
        sent_at = time.monotonic()
        while await self._right.holds():
            try:
                async with asyncio.timeout(_LOOK_S):
                    lines = await self._stream.read()
            except TimeoutError:
                lines = b""
            if lines is None:
                return
            if since and lines:
                lines = lines_after(lines, since)
                since = since if not lines else ""  # what comes now is newer
            if not lines and time.monotonic() - sent_at >= QUIET_S:
                lines = b"\n"
            if lines:
                sent_at = time.monotonic()
                yield lines
