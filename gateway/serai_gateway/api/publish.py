"""POST /v1/publish: a folder as a .tar.gz, committed, built and published while the log streams back.

The answer is JSON lines: {"log": "…"} while it builds, then {"version": {…}} or {"error": {…}}.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from serai_gateway.api.who import manager_of
from serai_gateway.build import TreeLimits
from serai_gateway.builder.client import BuilderClient, Event
from serai_gateway.builder.messages import Ended, Made
from serai_gateway.catalogue import Account, Catalogue
from serai_gateway.errors import (
    Internal,
    InvalidRequest,
    PlatformError,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unprocessable,
    UnsupportedType,
    describe,
)
from serai_gateway.request_id import new_request_id

PATH = b"/v1/publish"

#: Largest archive; what it unpacks to has limits of its own (`build.TreeLimits`).
MAX_ARCHIVE_BYTES = TreeLimits().total_bytes + 16 * 1024 * 1024

#: A line at least so often, so that nobody on the way takes a long installation for a dead connection.
_SIGN_OF_LIFE_S = 15.0

#: Archives that an account sends at once: each may fill half a gigabyte of our disk.
_MAX_UPLOADS_OF_ACCOUNT = 4
_uploads: Counter[str] = Counter()
_working: set[asyncio.Task[None]] = set()  # what nobody else may hold any more: a build goes on without its caller

_ACCEPTED = ("application/gzip", "application/x-gzip", "application/x-tar+gzip")

Line = dict[str, object]
Lines = asyncio.Queue["Line | PlatformError | None"]  # None: that was all


def body_limit(path: bytes) -> int:
    """How large a body this path may have beyond the usual; 0: no more than usual."""
    return MAX_ARCHIVE_BYTES if path == PATH else 0


async def publish(request: Request) -> StreamingResponse:
    caller = await manager_of(request)
    visibility = request.query_params.get("visibility", "private")
    if visibility not in ("public", "private"):
        raise InvalidRequest("visibility must be public or private")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _ACCEPTED:
        raise UnsupportedType("send the folder as a .tar.gz with Content-Type application/gzip")
    account, home = caller.account, request.app.state.settings.home
    (home / "tmp").mkdir(exist_ok=True)
    with _uploading(account):
        folder = Path(tempfile.mkdtemp(prefix="publish-", dir=home / "tmp"))
        try:
            await _receive(request, folder / "archive")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    lines = _start(request.app.state, folder, account, public=visibility == "public")
    first = await _next(lines)
    if isinstance(first, TooManyRequests | Unavailable):  # said with its status, as long as there is nothing else
        raise first
    return StreamingResponse(_write(request, first, lines), media_type="application/x-ndjson")


@contextlib.contextmanager
def _uploading(account: Account) -> Iterator[None]:
    """Raises TooManyRequests."""
    if _uploads[account.id] >= _MAX_UPLOADS_OF_ACCOUNT:
        text = f"{_MAX_UPLOADS_OF_ACCOUNT} uploads of yours are under way; try again when one has ended"
        raise TooManyRequests(text, retry_after_s=10)
    _uploads[account.id] += 1
    try:
        yield
    finally:
        _uploads[account.id] -= 1
        if not _uploads[account.id]:
            del _uploads[account.id]


async def _receive(request: Request, place: Path) -> None:
    num_bytes = 0
    with place.open("wb") as file:
        try:
            async for block in request.stream():
                num_bytes += len(block)
                if num_bytes > MAX_ARCHIVE_BYTES:
                    raise TooLarge(f"the archive exceeds {MAX_ARCHIVE_BYTES} bytes; publish large models from a wheel")
                await asyncio.to_thread(file.write, block)
        except ClientDisconnect as error:
            raise InvalidRequest("the upload was broken off") from error


def _start(state: State, folder: Path, account: Account, *, public: bool) -> Lines:
    """The lines of a build that goes on to its end even if nobody listens any more."""
    lines: Lines = asyncio.Queue()
    working = asyncio.create_task(_follow(state.builder, state.catalogue, folder, account, public, lines))
    _working.add(working)
    working.add_done_callback(_working.discard)
    return lines


async def _follow(
    builder: BuilderClient, catalogue: Catalogue, folder: Path, account: Account, public: bool, lines: Lines
) -> None:
    try:
        async with builder.publish(account, folder, public=public) as events:
            async for event in events:
                lines.put_nowait(await _line(event, catalogue, account))
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # where the builder never saw it
        lines.put_nowait(None)


async def _line(event: Event, catalogue: Catalogue, account: Account) -> Line | PlatformError:
    if not isinstance(event, Ended):
        return {"log": event.text}
    if event.made is not None:
        return {"version": await asyncio.to_thread(_describe, catalogue, event.made, account)}
    return error_of(event)


async def _next(lines: Lines) -> Line | PlatformError | None:
    try:
        async with asyncio.timeout(_SIGN_OF_LIFE_S):
            return await lines.get()
    except TimeoutError:
        return {"log": "still at it"}


async def _write(request: Request, line: Line | PlatformError | None, lines: Lines) -> AsyncIterator[bytes]:
    while line is not None:
        if isinstance(line, PlatformError):
            line = {"error": describe(line, new_request_id())}
        if "version" in line:
            request.app.state.cache.forget()
        yield msgspec.json.encode(line) + b"\n"
        line = await _next(lines)


def error_of(ended: Ended) -> PlatformError:
    """How a build that led to no version reads over HTTP."""
    match ended.outcome:
        case "busy":
            return Unavailable(ended.message, retry_after_s=10)
        case "too_many":
            return TooManyRequests(ended.message, retry_after_s=10)
        case "internal":
            return Internal(ended.message)
        case _:
            return Unprocessable(ended.message)


def _describe(catalogue: Catalogue, made: Made, account: Account) -> Line:
    version = catalogue.find_version(made.owner, made.name, made.hash, account)
    return {
        "owner": made.owner,
        "name": made.name,
        "version": made.semver,
        "hash": made.hash,
        "visibility": "public" if made.public else "private",
        "sample": (version.manifest.get("sample") or {}).get("input"),
    }
