"""All connections of one worker: who may come in, what is counted, and the sweep that enforces deadlines."""

import asyncio
import collections
import contextvars
import ipaddress
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.refusals import Refused

if TYPE_CHECKING:
    from serai.ipc.messages import Bound
    from serai_gateway.server.exchange import Exchange


#: Connections looked at before other work gets its turn.
_SWEPT_AT_ONCE = 100


class Connection(Protocol):
    """What is known of a connection here."""

    @property
    def client(self) -> tuple[str, int] | None: ...

    @property
    def bound(self) -> "Bound | None": ...

    def sweep(self, now: float, elapsed_s: float) -> None: ...

    def shutdown(self) -> None: ...


class Connections:
    """Owns the set of open connections. The application finds it as `scope["state"]["http_server"]`.

    Args:
        app: the ASGI application.
        open_: the set in which the server looks for connections when it stops.
        tasks: the set in which the server looks for running requests when it stops.
    """

    def __init__(
        self,
        app: Any,
        limits: HttpLimits,
        loop: asyncio.AbstractEventLoop,
        *,
        open_: set[Any],
        tasks: set[asyncio.Task[None]],
        app_state: dict[str, Any],
    ) -> None:
        self._app = app
        self.limits = limits
        self.loop = loop
        self.app_state = app_state
        self.asgi = {"version": "3.0", "spec_version": "2.3"}
        self.draining = False
        #: Refusals and cuts by code, for metrics.
        self.counts: collections.Counter[str] = collections.Counter()
        self.num_requests = 0
        self._open = open_
        self._tasks = tasks
        self._per_peer: dict[str | bytes, int] = {}
        #: The loop's time at the last sweep: good enough for deadlines of many seconds, and free.
        self.now = loop.time()
        self.preamble = b""
        self._refresh_preamble()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> Refused | None:
        """Count a new connection in, or say why not."""
        if len(self._open) >= self.limits.max_connections:
            return Refused(503, "too_many_connections", "the server has no connection left: try again", retriable=True)
        peer = _peer_key(connection)
        num_open = self._per_peer.get(peer, 0)
        if connection.bound is not None:
            limit = self.limits.max_connections_per_call
            if num_open >= limit:
                message = f"over {limit} connections for one call and all that it calls: let more of them be reused"
                return Refused(503, "too_many_connections_of_call", message, retriable=True)
        elif num_open >= self.limits.max_connections_per_peer:
            limit = self.limits.max_connections_per_peer
            message = f"over {limit} connections from your address: send requests over those that are open"
            return Refused(503, "too_many_connections_of_peer", message, retriable=True)
        self._per_peer[peer] = num_open + 1
        self._open.add(connection)
        return None

    def forget(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        peer = _peer_key(connection)
        left = self._per_peer[peer] - 1
        if left:
            self._per_peer[peer] = left
        else:
            del self._per_peer[peer]

    def start(self, exchange: "Exchange") -> None:
        self.num_requests += 1
        # A context of its own: a request that was waiting behind another must not inherit what that one has set.
        task = self.loop.create_task(exchange.run(self._app), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count(self, refused: Refused) -> None:
        self.counts[refused.code] += 1

    def sweep(self) -> None:
        """Enforce the deadlines of all connections. Cost: well under a microsecond for each that meets them."""
        now = self.loop.time()
        elapsed_s, self.now = now - self.now, now
        self._refresh_preamble()
        self._sweep_some(list(self._open), now, elapsed_s)

    def _sweep_some(self, left: list[Any], now: float, elapsed_s: float) -> None:
        """Look at some connections, then let requests have their turn: two thousand refusals at once take 100 ms."""
        some = left[-_SWEPT_AT_ONCE:]
        del left[-_SWEPT_AT_ONCE:]
        for connection in some:
            if connection in self._open:
                connection.sweep(now, elapsed_s)
        if left:
            self.loop.call_soon(self._sweep_some, left, now, elapsed_s)

    def drain(self) -> None:
        """From now on each connection is closed after what it is doing, or soon if it does nothing."""
        self.draining = True
        for connection in tuple(self._open):
            connection.shutdown()

    def _refresh_preamble(self) -> None:
        self.preamble = f"date: {formatdate(time.time(), usegmt=True)}\r\nserver: serai\r\n".encode()


def _peer_key(connection: Connection) -> str | bytes:
    """Who counts as one peer: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.

    Running calls all come from the runner host: each counts with all that were made for the same call from outside.
    """
    if connection.bound is not None:
        return f"call {connection.bound.root or connection.bound.call_id}"
    host = connection.client[0] if connection.client else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped) if address.ipv4_mapped else address.packed[:8]
