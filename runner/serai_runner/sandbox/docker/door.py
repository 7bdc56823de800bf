"""The way from a container to its host: a Unix socket in a folder of its own, for one connection."""

import asyncio
import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from serai_runner.sandbox.docker.container import LINK_SOCKET

#: SO_PEERPIDFD, which Python has no name for: the peer as a descriptor, not a number that another process may get.
_SO_PEERPIDFD = 77


class Door:
    """Listens in `folder` until somebody has connected, who can be nobody but what is started with that folder.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, on_connected: Callable[[socket.socket, int], None]) -> None:
        self.folder = folder
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder of this name may still be mounted in a container that a dead host left: ours is another one.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._listener: socket.socket | None = None
        try:
            folder.chmod(0o755)
            self._listener = _listen(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._loop.add_reader(self._listener, self.look)

    def look(self) -> None:
        """Accept whoever is there."""
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        self._close_listener()
        self._on_connected(sock, _pidfd_of_peer(sock))

    def close(self) -> None:
        self._close_listener()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                (self.folder / LINK_SOCKET).unlink()


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{place}/{LINK_SOCKET}"  # a socket's path may have 107 bytes, a home more
        listener.bind(short)
        os.chmod(short, 0o666)  # noqa: S103  # the folder's parent is ours alone; the container has another user
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(place)
    return listener


def _pidfd_of_peer(sock: socket.socket) -> int:
    """A descriptor of the process at the other end, or -1 where the kernel does not say."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        pidfd = struct.unpack("i", raw)[0]
        os.set_inheritable(pidfd, False)
        return pidfd
    except OSError:
        pass
    pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1
