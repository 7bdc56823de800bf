"""The way to the host: one socket, a door for the calls that the author's code makes, and a lifeline."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from typing import Any

from serai import _wire

#: Our own descriptors live from here on, where programs that count from 0 do not meet them.
_FIRST_OWN_FD = 200
#: A door takes this many connections before the host has accepted the first.
_DOOR_BACKLOG = 32
_MAX_JOB_BYTES = 64 * 1024


def reach(where: dict[str, Any]) -> socket.socket:
    """The socket to the host: a descriptor that we were started with, or a path."""
    if "fd" in where:
        fd = own(where["fd"])
        os.close(where["fd"])
        return socket.socket(fileno=fd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(where["socket"])
        return socket.socket(fileno=own(sock.fileno()))


def own(fd: int) -> int:
    """A duplicate in our range that children do not inherit."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_FD)


class HostLink:
    """`ask_job` first; then frames go both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.output = -1
        self._lifeline = -1
        self._door_port = 0

    def ask_job(self) -> dict[str, Any]:
        """Say that we stand, and wait for what to do."""
        header = _wire.pack_header([_wire.BOOTED])
        frame = _wire.frame_prefix(header) + header
        door = _open_door()
        if door is None or not self._send_door(frame, door):
            self.sock.sendall(frame)
        data, fds, _, _ = socket.recv_fds(self.sock, _MAX_JOB_BYTES, 2)
        if len(fds) != 2:
            os._exit(0)  # the host has gone, or does not need us any more
        length = int.from_bytes(data[:4], "little")
        while len(data) < length + 4:
            more = self.sock.recv(_MAX_JOB_BYTES)
            if not more:
                os._exit(0)
            data += more
        self.output, self._lifeline = (own(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
        return json.loads(data[4:])

    def _send_door(self, frame: bytes, door: socket.socket) -> bool:
        """False: the kernel lets us send no descriptor, because others of our user have too many on their way."""
        with door:
            try:
                socket.send_fds(self.sock, [frame], [door.fileno()])
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    raise
                return False
            self._door_port = door.getsockname()[1]
            return True

    def keep_lifeline(self) -> None:
        """From now on the kernel kills us when the host closes its end, whatever we are doing."""
        for fd in (1, 2):
            os.dup2(self.output, fd)
        try:
            fcntl.fcntl(self._lifeline, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(self._lifeline, 10, signal.SIGKILL)  # F_SETSIG, which old Pythons have no name for
            flags = fcntl.fcntl(self._lifeline, fcntl.F_GETFL)
            fcntl.fcntl(self._lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
        except OSError:
            pass  # a sandbox that is another kernel's: there the box ends with its host in another way
        if _has_hung_up(self._lifeline):
            os._exit(0)

    def door_variables(self, key: str) -> dict[str, str]:
        """What clients of ours and Algorithmia's read: where to call, and a key, which says that it is we who ask."""
        if not self._door_port:
            return {}
        address = f"http://127.0.0.1:{self._door_port}"
        return {
            "ALGORITHMIA_API": address,
            "ALGORITHMIA_API_KEY": key,
            "SERAI_ADDRESS": address,
            "SERAI_API_KEY": key,
        }

    def send(self, header: Any, *payload: Any) -> None:
        _wire.send_frame(self.sock, header, *payload)

    @property
    def fds(self) -> set[int]:
        """The descriptors that are ours."""
        return {self.sock.fileno(), self.output, self._lifeline}

    def forget(self) -> None:
        """Close everything; for a fork that has a link of its own."""
        for fd in self.fds:
            os.close(fd)
        self.sock.detach()


def _open_door() -> socket.socket | None:
    """A socket that the author's code can connect to. The host accepts; we only make it, in our own network."""
    try:
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        door.bind(("127.0.0.1", 0))
        door.listen(_DOOR_BACKLOG)
    except OSError:
        return None
    return door


def _has_hung_up(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as line:
        line.setblocking(False)
        try:
            return line.recv(1) == b""
        except BlockingIOError:
            return False
