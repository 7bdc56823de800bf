"""A socket for each admitted version: whoever can open it may run exactly that version's models.

The folder of a version is mounted into its replicas, so it keeps its name and its inode when the pool restarts: a
replica that is still there finds the new socket in it.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from serai.ipc.messages import Admit
from serai.ipc.sockets import serve_unix

log = structlog.get_logger()

#: Letters of a folder's name. Short, because the path of a socket may have 107 bytes; 64 bits do not collide.
_NAME_LENGTH = 16


class VersionSockets:
    def __init__(self, folder: Path, make_link: Callable[[Admit], Any]) -> None:
        self._folder = folder
        self._make_link = make_link
        self._open: dict[str, tuple[Admit, asyncio.AbstractServer]] = {}

    def folder_of(self, version: str) -> Path:
        return self._folder / hashlib.sha256(version.encode()).hexdigest()[:_NAME_LENGTH]

    async def admit(self, request: Admit) -> str:
        """Open the version's socket, if it is not open. Its folder; empty when that was not possible."""
        version = request.version
        held = self._open.get(version)
        if held is not None:
            if held[0] == request:
                return str(self.folder_of(version))
            self.withdraw(version)
        folder = self.folder_of(version)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)  # nobody comes in here; what is mounted in a box opens to whoever is in it
            folder.mkdir(mode=0o755, exist_ok=True)
            folder.chmod(0o755)
            server = await serve_unix(folder / "pool.sock", lambda: self._make_link(request), mode=0o666)
        except OSError as error:
            log.error("socket not opened", action="admit", version=version, error=str(error))
            return ""
        self._open[version] = (request, server)
        return str(folder)

    def withdraw(self, version: str) -> bool:
        """Close the version's socket. The connections it had are the caller's to cut."""
        held = self._open.pop(version, None)
        if held is None:
            return False
        held[1].close()
        with contextlib.suppress(OSError):
            (self.folder_of(version) / "pool.sock").unlink()
        return True

    def close(self) -> None:
        for version in list(self._open):
            self.withdraw(version)
