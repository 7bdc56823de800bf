"""One connection of a box to the gateway: two ends, and bytes that go from one to the other.

    client in the box ──▶ Inner ═══ _Outer ──▶ HOME/run/calls.sock

A direction holds what was read at once and not yet taken, and no more.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable

from serai.ipc.frames import pack_frame
from serai.ipc.messages import Bound, encode
from serai_runner.outgoing.refusals import NO_GATEWAY, Refusal

#: A gateway that is killed is back within 1 s; this leaves room.
_CONNECT_WAIT_S = 5.0
_CONNECT_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2)

#: After a refusal we read and drop what still comes, so that the client sees the answer and not a reset.
_LINGER_S = 2.0


class _Side(asyncio.BufferedProtocol):
    """One end of a connection. It is read only while the other end takes what it gets."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.is_stuck = False  # its peer has not taken all that was written
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        transport.set_write_buffer_limits(high=0)  # pyright: ignore[reportAttributeAccessIssue]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        self.is_stuck = True
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        self.is_stuck = False
        if self.other is not None:
            self.other.resume_reading()

    def pause_reading(self) -> None:
        if self.transport is not None and not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        other, self.other = self.other, None
        if other is not None:
            other.other = None
            other.other_lost()

    def other_lost(self) -> None:
        """The gateway is done: what it has said still goes out."""
        if self.transport is not None:
            self.transport.close()


class _Outer(_Side):
    """The end towards the gateway."""

    def eof_received(self) -> bool:
        """It has said all. It may still read, so that its answer is not lost on a client that is still sending."""
        other = self.other
        if other is not None and other.transport is not None and other.transport.can_write_eof():
            other.transport.write_eof()
        return True

    def other_lost(self) -> None:
        """The client has gone: nobody waits for what it has asked."""
        if self.transport is not None:
            self.transport.abort()


class Inner(_Side):
    """The end towards the box. Makes the other one, or refuses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gateway: str,
        buffer: memoryview,
        on_gone: Callable[["Inner"], None],
    ) -> None:
        super().__init__(buffer)
        self._loop = loop
        self._gateway = gateway
        self._on_gone = on_gone
        self._sock: socket.socket | None = None  # until there is a transport
        self._early = b""  # what came before there was anybody to pass it on to
        self._is_refused = False
        self._outer: _Outer | None = None
        self._work: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, sock: socket.socket, admitted: Bound | Refusal) -> None:
        self._sock = sock
        self._work = self._loop.create_task(self._begin(sock, admitted))
        self._work.add_done_callback(self._has_worked)

    def cut(self) -> None:
        if self._work is not None:
            self._work.cancel()
        for side in (self, self._outer):
            if side is not None and side.transport is not None:
                side.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sock = None

    def buffer_updated(self, nbytes: int) -> None:
        if self.other is None and not self._is_refused:
            self._early += self._buffer[:nbytes]
            self.pause_reading()
        else:
            super().buffer_updated(nbytes)

    async def _begin(self, sock: socket.socket, admitted: Bound | Refusal) -> None:
        await self._loop.connect_accepted_socket(lambda: self, sock)
        if isinstance(admitted, Refusal):
            self._refuse(admitted)
            return
        self._outer = outer = await self._connect()
        if outer is None:
            self._refuse(NO_GATEWAY)
        elif self.transport is None or outer.transport is None:
            self.cut()
        else:
            self.other, outer.other = outer, self
            outer.transport.write(pack_frame(encode(admitted)) + self._early)
            self._early = b""
            if not outer.is_stuck:
                self.resume_reading()

    async def _connect(self) -> _Outer | None:
        """A gateway that is being restarted is waited for: nothing has been sent yet."""
        deadline = self._loop.time() + _CONNECT_WAIT_S
        for pause_s in itertools.chain(_CONNECT_PAUSES_S, itertools.repeat(_CONNECT_PAUSES_S[-1])):
            try:
                _, outer = await self._loop.create_unix_connection(lambda: _Outer(self._buffer), self._gateway)
                return outer
            except OSError:
                if self._loop.time() > deadline:
                    return None
            await asyncio.sleep(pause_s)
        return None

    def _refuse(self, refusal: Refusal) -> None:
        self._is_refused = True
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(refusal.encode())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        self._linger = self._loop.call_later(_LINGER_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._linger is not None:
            self._linger.cancel()
        if self._work is not None and not self._work.done():
            self._work.cancel()
        else:
            self._on_gone(self)

    def _has_worked(self, work: asyncio.Task[None]) -> None:
        if self._sock is not None:  # it came to nothing
            self._sock.close()
            self._sock = None
        if not work.cancelled() and work.exception() is not None and self.transport is not None:
            self.transport.abort()
        if self.transport is None:
            self._on_gone(self)
