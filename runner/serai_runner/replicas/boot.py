"""The first words with a box: it says that it stands, and gets its job."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from serai.ipc.frames import pack_frame
from serai.ipc.messages import Booted, encode

_BOOTED = pack_frame(encode(Booted()))

#: (the box's socket, what its author's code can connect to). No door: it could not make one.
OnBooted = Callable[[socket.socket, socket.socket | None], None]


class Boot:
    """Waits for Booted on a box's socket, then hands the socket on. A box that says anything else is cut off."""

    def __init__(self, sock: socket.socket, on_booted: OnBooted) -> None:
        self._sock = sock
        self._on_booted = on_booted
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    def cancel(self) -> None:
        """It ended before it stood, or need not stand any more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, len(_BOOTED), 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if data != _BOOTED:
            for fd in fds:
                os.close(fd)
            self.cancel()
            return
        self._loop.remove_reader(self._sock.fileno())
        self._on_booted(self._sock, _door(fds))


def send_job(sock: socket.socket, job: bytes, output: int) -> socket.socket:
    """Send a job with the file for its output. Returns our end of its lifeline: closing it kills the process.

    Raises OSError: it has gone.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        try:
            num_bytes = socket.send_fds(sock, [job], [output, theirs.fileno()])
            if num_bytes < len(job):  # far more than the limits of secrets allow
                raise OSError(errno.EMSGSIZE, f"a job of {len(job)} bytes does not fit into the socket")
        except OSError:
            ours.close()
            raise
    return ours


def _door(fds: list[int]) -> socket.socket | None:
    """A listening socket of the box's own loopback, if that is what came; a fork's code may send us anything."""
    if not fds:
        return None
    try:
        sock = socket.socket(fileno=fds[0])
    except OSError:  # no socket at all
        os.close(fds[0])
        return None
    with contextlib.suppress(OSError):
        if (
            sock.family == socket.AF_INET
            and sock.type & socket.SOCK_STREAM
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            sock.setblocking(False)
            return sock
    sock.close()
    return None
