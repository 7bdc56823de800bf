"""POST /v1/publish: a folder as a .tar.gz, built and published while the log streams back.

The answer is JSON lines: {"log": "…"} while it builds, then {"version": {…}} or {"error": {…}}.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from serai_gateway.api.who import manager_of
from serai_gateway.build import BuildError, Publish, TreeLimits, build, extract
from serai_gateway.catalogue import Account, CatalogueError, Version
from serai_gateway.errors import (
    Internal,
    InvalidRequest,
    TooLarge,
    TooManyRequests,
    Unprocessable,
    UnsupportedType,
    describe,
)
from serai_gateway.files import FileStoreError
from serai_gateway.logs import get_logger
from serai_gateway.request_id import new_request_id

_log = get_logger("gateway")

PATH = b"/v1/publish"

#: Largest archive; what it unpacks to has limits of its own (`build.TreeLimits`).
MAX_ARCHIVE_BYTES = TreeLimits().total_bytes + 16 * 1024 * 1024

#: A line at least so often, so that nobody on the way takes a long installation for a dead connection.
_SIGN_OF_LIFE_S = 15.0

#: Builds of this worker at a time, and how many may wait for them. They have threads of their own: a slow build must
#: not keep the look-ups of calls waiting.
_MAX_BUILDS = 2
_MAX_WAITING = 8
#: Builds of one account among them: others find a place even when somebody's models take a minute each to be refused.
_MAX_OF_ACCOUNT = 4
_builders = ThreadPoolExecutor(_MAX_BUILDS, "build")
_builds: Counter[str] = Counter()  # under way or waiting, by account
#: One account's builds run one after the other, so that endless ones do not take every thread.
_turns: dict[str, asyncio.Lock] = {}
_working: set[asyncio.Task[None]] = set()  # what nobody else may hold any more: a build goes on without its caller
#: Archives that an account sends at once: each may fill half a gigabyte of our disk.
_MAX_UPLOADS_OF_ACCOUNT = 4
_uploads: Counter[str] = Counter()

_ACCEPTED = ("application/gzip", "application/x-gzip", "application/x-tar+gzip")

Line = dict[str, object]


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
    _check_room(account)
    (home / "tmp").mkdir(exist_ok=True)
    with _uploading(account):
        folder = Path(tempfile.mkdtemp(prefix="publish-", dir=home / "tmp"))
        try:
            await _receive(request, folder / "archive")
            _check_room(account)  # again: others were faster
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return StreamingResponse(
        _build(request, folder, account, Publish(public=visibility == "public")), media_type="application/x-ndjson"
    )


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


def _check_room(account: Account) -> None:
    """Raises TooManyRequests."""
    num_builds = _builds.total()
    if num_builds >= _MAX_BUILDS + _MAX_WAITING:
        raise TooManyRequests(f"{num_builds} builds are under way or waiting; try again later", retry_after_s=10)
    if _builds[account.id] >= _MAX_OF_ACCOUNT:
        text = f"{_MAX_OF_ACCOUNT} builds of yours are under way or waiting; try again when one has ended"
        raise TooManyRequests(text, retry_after_s=10)


async def _in_turn(account: Account, work: Callable[[], None]) -> None:
    """Run `work` in a thread when it is this account's turn."""
    _builds[account.id] += 1
    try:
        async with _turns.setdefault(account.id, asyncio.Lock()):
            await asyncio.get_running_loop().run_in_executor(_builders, work)
    finally:
        _builds[account.id] -= 1
        if not _builds[account.id]:
            del _builds[account.id], _turns[account.id]


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


async def _build(request: Request, folder: Path, account: Account, how: Publish) -> AsyncIterator[bytes]:
    """Lines as they come. The build goes on to its end even if nobody listens any more."""
    state = request.app.state
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Line | None] = asyncio.Queue()

    def say(line: Line | None) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def log(text: str) -> None:
        if not text.startswith("failed: "):  # said as the error, too
            say({"log": text})

    def work() -> None:
        try:
            extract_to = folder / "tree"
            with (folder / "archive").open("rb") as archive:
                extract(archive, extract_to)
            version = build(extract_to, state.settings.home, state.catalogue, account, log, publish=how)
            say({"version": _describe(version)})
        except (BuildError, CatalogueError, FileStoreError) as error:
            say({"error": describe(Unprocessable(str(error)), new_request_id())})
        except Exception:
            _log.exception("publishing failed", action="publish", account=account.name)
            internal = Internal("internal error; quote the request id to the operator")
            say({"error": describe(internal, new_request_id())})
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            say(None)

    working = asyncio.create_task(_in_turn(account, work))
    _working.add(working)
    working.add_done_callback(_working.discard)
    while True:
        try:
            async with asyncio.timeout(_SIGN_OF_LIFE_S):
                line = await lines.get()
        except TimeoutError:
            line = {"log": "still at it"}
        if line is None:
            break
        if "version" in line:
            state.cache.forget()
        yield msgspec.json.encode(line) + b"\n"
    await working


def _describe(version: Version) -> Line:
    return {
        "owner": version.owner,
        "name": version.name,
        "version": version.semver,
        "hash": version.hash,
        "visibility": "public" if version.public else "private",
        "sample": (version.manifest.get("sample") or {}).get("input"),
    }
