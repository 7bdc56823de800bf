"""The second way in: `HOME/run/calls.sock`, where runner hosts bring the HTTP of calls that are running.

Such a connection begins with one `Bound` frame that says which call speaks. What follows is an author's HTTP, read
with the same distrust as anybody's, one request a connection.
"""

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serai.ipc.frames import NARROW
from serai.ipc.messages import Bound
from serai.ipc.sockets import bind_unix, is_own_peer
from serai_gateway.server.connection import HttpConnection

if TYPE_CHECKING:
    from serai_gateway.server.connections import Connections

#: The host sends the frame as soon as it has connected; only one that hangs needs longer.
FRAME_DEADLINE_S = 5.0

#: Longest frame. Names have at most 64 characters, so a real one has some 300 bytes.
MAX_FRAME_BYTES = 4096

#: What the length of a frame does not count: itself.
_LENGTH_BYTES = 4

_decode = msgspec.msgpack.Decoder(Bound).decode


class CallsSocket:
    """The listening socket, made once in the master and inherited by its workers.

    Raises:
        OSError: it cannot be made at this path.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.listener: socket.socket = bind_unix(path)
        self._path = path
        self._inode = path.stat().st_ino

    def remove(self) -> None:
        """Close it, and take its name away unless a successor has taken that already."""
        self.listener.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                os.unlink(self._path)


class Introduction(asyncio.Protocol):
    """A connection until it has said which call it speaks for; then it is an HTTP connection."""

    def __init__(self, connections: "Connections") -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        if not is_own_peer(transport):
            self._refuse("foreign_peer")
            return
        self._timer = self._connections.loop.call_later(FRAME_DEADLINE_S, self._refuse, "introduction_deadline")

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._data += data
        try:
            found = read_bound(self._data)
        except ValueError:
            self._refuse("bad_introduction")
            return
        if found is None:
            return
        self._stop_timer()
        bound, used = found
        connection = HttpConnection(self._connections, bound)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if len(self._data) > used and not transport.is_closing():
            connection.data_received(self._data[used:])

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._transport = None

    def _refuse(self, code: str) -> None:
        """Without a word: whoever sends no such frame speaks no protocol of ours."""
        self._stop_timer()
        self._connections.counts[code] += 1
        if self._transport is not None:
            self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def read_bound(data: bytes) -> tuple[Bound, int] | None:
    """(the frame at the beginning of `data`, how many bytes it has); None while it is not whole.

    Raises:
        ValueError: that is no such frame.
    """
    if len(data) < NARROW.size:
        return None
    length, header_length = NARROW.unpack_from(data)
    end = length + _LENGTH_BYTES
    if end > MAX_FRAME_BYTES or end != NARROW.size + header_length:  # it has no payload
        raise ValueError(f"a frame of {length} bytes with a header of {header_length} introduces no call")
    if len(data) < end:
        return None
    try:
        bound = _decode(data[NARROW.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError("that frame is no Bound") from error
    if not bound.payer or not bound.call_id or bound.depth < 0:
        raise ValueError("it says neither whose nor which call it is")
    return bound, end
