"""git's own http-backend, as a CGI program in a box: what a client sends goes in, what it says comes out."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from serai_gateway.git.box import git_box
from serai_gateway.git.threads import in_git_thread

#: Headers of http-backend's answer that are passed on.
_PASSED_ON = {"content-type", "cache-control", "expires", "pragma"}
_MAX_HEAD_BYTES = 8192
_CHUNK_BYTES = 64 * 1024
#: Given to git to tidy up after its client has gone.
_END_S = 3.0


class Head(NamedTuple):
    status: int
    headers: dict[str, str]


class Backend:
    """One request to http-backend, started by `start_backend`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None, "asked for a pipe"
        assert process.stdout is not None, "asked for a pipe"
        self._process = process
        self._into = process.stdin
        self._out = process.stdout

    async def write(self, block: bytes) -> None:
        """Of the request's body. Nothing happens when git reads no more."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._into.write(block)
            await self._into.drain()

    def end_input(self) -> None:
        self._into.close()

    async def read_head(self) -> Head:
        """Raises asyncio.IncompleteReadError when git ended without an answer."""
        head = await self._out.readuntil(b"\r\n\r\n")
        status, headers = 200, {}
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            elif name.lower() in _PASSED_ON:
                headers[name.lower()] = value.strip()
        return Head(status, headers)

    async def read(self) -> bytes:
        """The next piece of the answer; empty at its end."""
        return await self._out.read(_CHUNK_BYTES)

    async def wait(self) -> int:
        return await self._process.wait()

    async def end(self) -> None:
        """Let git tidy up if it notices that nobody is there, else kill it."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(OSError):
            self._into.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while await self._out.read(_CHUNK_BYTES):
                    pass
                await self._process.wait()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


@contextlib.asynccontextmanager
async def start_backend(
    home: Path,
    repository: Path,
    request: Mapping[str, str],
    *,
    settings: Mapping[str, str] | None = None,
    writable: bool = False,
    read_only: Sequence[tuple[Path, str]] = (),
) -> AsyncIterator[Backend]:
    """http-backend with the CGI variables of one request (RFC 3875), and settings of git for it alone."""
    box = git_box(
        home, repository, ["git", "http-backend"],
        variables=request, settings=settings, writable=writable, read_only=read_only,
    )  # fmt: skip
    started = await in_git_thread(box.__enter__)
    try:
        process = await asyncio.create_subprocess_exec(
            *started.words,
            cwd=repository,
            env=started.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=started.descriptors,
            start_new_session=True,
            limit=_MAX_HEAD_BYTES,
        )
        backend = Backend(process)
        try:
            yield backend
        finally:
            await backend.end()
    finally:
        await in_git_thread(box.__exit__, None, None, None)
