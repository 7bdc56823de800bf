"""What a running call says over HTTP, carried from its box to the gateway.

    client in the box ──▶ its loopback, where a socket listens that the box made and sent us ──▶ ApiRelay ──▶ calls.sock

A box has no key. What its connections may do is what its running call may do: the gateway is told which one that is
before the first byte, and the connections end with the call. Nothing of HTTP is read here, and next to nothing held.
"""

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from serai.ipc.messages import Bound
from serai_runner.outgoing.connection import Inner
from serai_runner.outgoing.refusals import MAX_CONNECTIONS, NO_CALL, TOO_MANY

#: Connections a box may open at once and then per second: far more than calls that come one after the other need,
#: and a flood of them takes a tenth of our time at most.
_BURST, _PER_S = 500, 500

#: Connections at which no more are taken, refused ones included: a refusal lingers.
_MAX_OPEN = 2 * MAX_CONNECTIONS

#: Whoever made a door may still hold it, make it block, and take the connection that we were told of. So we accept in
#: threads, one for each door at which somebody is, and shut a door that gives nobody for so long.
_accepting = ThreadPoolExecutor(64, "doors")
_MAX_ACCEPT_S = 1.0
#: Where TCP_INFO of a listening socket says how many connections wait (tcpi_unacked).
_TCP_INFO_BYTES, _AT_NUM_WAITING = 28, 24

#: Without a descriptor left, the next try to take a connection comes after this.
_NO_DESCRIPTOR_PAUSE_S = 0.1

#: Bytes read at once. As a side is not read while the other has anything left to take, also what a direction holds.
_READ_BYTES = 64 * 1024


class ApiRelay:
    """Owns the connections of one box: of one process that answers calls.

    Args:
        gateway: where the gateway takes connections of running calls.
        current: the call that runs in the box now; None: none. Asked once for each connection, when it comes.
    """

    def __init__(self, gateway: Path, current: Callable[[], Bound | None]) -> None:
        self._gateway = str(gateway)
        self._current = current
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._connections: set[Inner] = set()
        self._allowance, self._counted_at = float(_BURST), self._loop.time()
        self._pause: asyncio.TimerHandle | None = None
        self._is_full = False
        self._is_closed = False
        self._is_taking = False  # a thread is at the door
        self._num_late = 0  # of those at the door, the first: they came from a call that has ended
        # One for all: what is read is passed on, or copied, before the next read.
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def __len__(self) -> int:
        """Open connections, those included that are being refused."""
        return len(self._connections)

    def serve(self, listener: socket.socket) -> None:
        """Take connections from a listening stream socket, which is ours from now on."""
        assert self._listener is None, "a box has one way out"
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener.fileno(), self._accept)

    def cut(self) -> None:
        """End every connection, now, those too that wait to be taken: what a call has begun to ask does not outlive
        it, and is not asked in the name of the next one."""
        for inner in list(self._connections):
            inner.cut()
        if self._listener is not None:
            self._num_late = _num_waiting(self._listener) + self._is_taking
            if self._num_late and not self._is_taking:
                self._take_one()

    def close(self) -> None:
        listener = self._stop_listening()
        self.cut()
        if listener is not None:
            _shut(listener)
            self._is_closed = True
            if not self._is_taking:
                listener.close()
            # else when the thread is back: the descriptor's number must not be another's before

    def release(self) -> socket.socket | None:
        """End every connection and give the listening socket back, for another relay."""
        self.cut()
        return self._stop_listening()

    def _stop_listening(self) -> socket.socket | None:
        listener, self._listener = self._listener, None
        if self._pause is not None:
            self._pause.cancel()
        if listener is not None:
            self._loop.remove_reader(listener.fileno())
        return listener

    # Connections of the box

    def _accept(self) -> None:
        """One connection a turn of the loop, so that others have theirs. Who must wait waits in the socket's queue."""
        assert self._listener is not None, "nothing is accepted after the end"
        wait_s = self._must_wait_s()
        if len(self._connections) >= _MAX_OPEN:
            self._is_full = True
            self._loop.remove_reader(self._listener.fileno())
        elif wait_s > 0:
            self._pause_for(wait_s)
        else:
            self._allowance -= 1
            self._take_one()

    def _take_one(self) -> None:
        listener = self._listener
        assert listener is not None, "nothing is accepted after the end"
        self._is_taking = True
        self._loop.remove_reader(listener.fileno())
        late = self._loop.call_later(_MAX_ACCEPT_S, _shut, listener)
        taking = self._loop.run_in_executor(_accepting, listener.accept)
        taking.add_done_callback(partial(self._taken, listener, late))

    def _taken(
        self, listener: socket.socket, late: asyncio.TimerHandle, taking: "asyncio.Future[tuple[socket.socket, object]]"
    ) -> None:
        late.cancel()
        self._is_taking = False
        error = taking.exception() if not taking.cancelled() else OSError()
        sock = taking.result()[0] if error is None else None
        if sock is not None and (self._num_late or self._listener is not listener):
            sock.close()
        elif sock is not None:
            self._take(sock)
        if self._listener is not listener:  # given back, or closed
            if self._is_closed:
                listener.close()
            return
        self._num_late = max(0, self._num_late - 1) if sock is not None else 0
        if isinstance(error, OSError) and error.errno == errno.EINVAL:  # shut, or no door any more
            self.close()
        elif self._num_late:
            self._take_one()
        elif error is None or isinstance(error, (BlockingIOError, ConnectionError)):  # taken, or gone again
            self._accept_again()
        else:
            self._pause_for(_NO_DESCRIPTOR_PAUSE_S)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            admitted = TOO_MANY
        else:
            admitted = self._current() or NO_CALL
        inner = Inner(self._loop, self._gateway, self._buffer, self._forget)
        self._connections.add(inner)
        inner.begin(sock, admitted)

    def _must_wait_s(self) -> float:
        now = self._loop.time()
        self._allowance = min(_BURST, self._allowance + (now - self._counted_at) * _PER_S)
        self._counted_at = now
        return max(0.0, (1 - self._allowance) / _PER_S)

    def _pause_for(self, seconds: float) -> None:
        assert self._listener is not None, "paused only while it listens"
        self._loop.remove_reader(self._listener.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self._loop.call_later(seconds, self._accept_again)

    def _accept_again(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._listener is not None and not self._is_taking:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _forget(self, inner: Inner) -> None:
        self._connections.discard(inner)
        if self._is_full and len(self._connections) < _MAX_OPEN:
            self._is_full = False
            self._accept_again()


def _num_waiting(listener: socket.socket) -> int:
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return 0
    return int.from_bytes(info[_AT_NUM_WAITING:], sys.byteorder)


def _shut(listener: socket.socket) -> None:
    """Whoever waits in `accept` goes on."""
    with contextlib.suppress(OSError):  # it is closed, or does not listen
        listener.shutdown(socket.SHUT_RDWR)
