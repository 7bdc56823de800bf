"""One client's connection: bytes in, one exchange at a time, bytes out, and nothing without a limit."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from serai_gateway.server.bodies import ChunkedBody, FixedBody
from serai_gateway.server.exchange import Exchange
from serai_gateway.server.pace import BodyPace, WriteWatch
from serai_gateway.server.refusals import Refused, malformed, response_bytes
from serai_gateway.server.request_parser import Request, RequestParser

if TYPE_CHECKING:
    from serai.ipc.messages import Bound
    from serai_gateway.server.connections import Connections

#: What a connection is doing. Plain integers, because they are compared on every read.
NEW: Final = 0  # nothing has come yet
HEAD: Final = 1  # part of a head has come
BODY: Final = 2  # the application runs, or has answered already, and the body is still coming
BUSY: Final = 3  # the application runs and the body is here
IDLE: Final = 4  # answered, waiting for the next request
LINGER: Final = 5  # refused; what still comes is dropped

#: Body bytes that may wait for the application before we stop reading, and the client with us.
_HIGH_WATER_BYTES = 64 * 1024


class HttpConnection(asyncio.Protocol):
    """HTTP/1.1 on one connection. All decisions about time are made in `sweep`, which its owner calls now and then."""

    __slots__ = (
        "_body",
        "_connections",
        "_exchange",
        "_held",
        "_limits",
        "_loop",
        "_pace",
        "_parser",
        "_phase",
        "_read_paused",
        "_server",
        "_since",
        "_transport",
        "_watch",
        "_writable",
        "bound",
        "client",
        "write_paused",
    )

    def __init__(self, connections: "Connections", bound: "Bound | None" = None) -> None:
        self._connections = connections
        self.bound = bound  # the running call that speaks here; None: anybody
        self._limits = connections.limits
        self._loop = connections.loop
        self._transport: asyncio.Transport = None  # pyright: ignore[reportAttributeAccessIssue] # set when connected
        self.client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._parser = RequestParser(connections.limits)
        self._phase: int = NEW
        self._since = 0.0  # when the phase began, on the loop's clock
        self._exchange: Exchange | None = None  # None once it is answered
        self._body: ChunkedBody | FixedBody | None = None
        self._pace: BodyPace | None = None
        self._watch: WriteWatch | None = None
        self._held = b""  # what came after the request being served
        self._read_paused = False
        self.write_paused = False
        self._writable: asyncio.Event | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        self._since = self._loop.time()
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = peer[:2] if isinstance(peer, tuple) else None
        self._server = own[:2] if isinstance(own, tuple) else None
        refused = self._connections.admit(self)
        if refused is not None:  # no lingering: there are too many already
            self._connections.count(refused)
            self._phase = LINGER
            self._transport.write(response_bytes(refused, self.preamble))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        self._body = self._pace = self._watch = None
        self.resume_writing()

    def eof_received(self) -> None:
        """A client that stops sending has gone: its request is not worth working on. The transport closes."""

    def data_received(self, data: bytes) -> None:
        try:
            if self._phase == BODY:
                self._take_body(data)
            elif self._phase == BUSY:
                self._hold(data)
            elif self._phase != LINGER:
                self._take_head(data)
        except Refused as refused:
            self._refuse(refused)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
        if self._watch is not None:
            self._watch.drained(self._loop.time(), self._transport.get_write_buffer_size())

    # Requests

    def _take_head(self, data: bytes) -> None:
        parsed = self._parser.feed(data)
        if parsed is not None:
            self._begin(*parsed)
        elif self._phase != HEAD:
            if self._phase == IDLE:
                self._since = self._loop.time()
            self._phase = HEAD

    def _begin(self, request: Request, rest: bytes) -> None:
        # A connection kept for later is one that a later call of the same replica would find cut.
        keep_alive = request.keep_alive and self.bound is None and not self._connections.draining
        exchange = self._exchange = Exchange(self, self._build_scope(request), keep_alive=keep_alive)
        framing = request.framing
        length = framing.content_length
        if not framing.chunked and len(rest) >= length:  # all here: nearly every request
            self._phase = BUSY
            exchange.feed(rest[:length], last=True)
            if len(rest) > length:
                self._hold(rest[length:])
        else:
            exchange.expects_continue = framing.expects_continue
            self._body = ChunkedBody(self._limits, request.max_body_bytes) if framing.chunked else FixedBody(length)
            self._phase = BODY
            if rest:
                self._take_body(rest)
            if self._body is not None:  # it goes on
                raised = request.max_body_bytes > self._limits.max_body_bytes
                self._pace = BodyPace(self._limits, self._loop.time(), raised=raised)
        self._connections.start(exchange)

    def _build_scope(self, request: Request) -> dict[str, Any]:
        connections, target = self._connections, request.target
        scope = {
            "type": "http",
            "asgi": connections.asgi,
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "root_path": "",
            "headers": request.headers,
            "client": self.client,
            "server": self._server,
            "state": connections.app_state.copy(),
        }
        if self.bound is not None:
            scope["serai.bound"] = self.bound
        return scope

    def _take_body(self, data: bytes) -> None:
        assert self._body is not None, "there is one in this phase"
        if self._pace is not None:
            self._pace.arrived(len(data))
        pieces, rest = self._body.feed(data)
        exchange = self._exchange  # None: answered already, the body is read for the sake of the next request
        if exchange is not None:
            for piece in pieces:
                exchange.feed(piece, last=False)
        if rest is None:
            if exchange is not None and exchange.waiting_bytes > _HIGH_WATER_BYTES:
                self._pause_reading()
            return
        self._body = self._pace = None
        self._phase = BUSY
        if rest:
            self._hold(rest)
        if exchange is not None:
            exchange.feed(b"", last=True)
        else:
            self._next_request()

    def _hold(self, data: bytes) -> None:
        """Keep what came early, and take no more until it is due."""
        self._held += data
        if self.bound is None:
            self._pause_reading()
        elif len(self._held) > _HIGH_WATER_BYTES:  # read on, to hear at once that the call which asks has ended
            raise malformed("pipelined", "one request a connection: open another for the next")

    def _next_request(self) -> None:
        if self._connections.draining:
            self._transport.close()
            return
        self._phase = IDLE
        self._since = self._connections.now
        held, self._held = self._held, b""
        self._resume_reading()
        if held:
            self.data_received(held)

    # The exchange's side

    @property
    def preamble(self) -> bytes:
        return self._connections.preamble

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        self._transport.writelines(parts)

    async def drained(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()
        self._writable.clear()
        if self.write_paused:
            await self._writable.wait()

    def send_continue(self) -> None:
        if self._phase == BODY:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def want_body(self) -> None:
        if self._phase == BODY:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def response_complete(self, exchange: Exchange) -> None:
        self._exchange = None
        if self._phase == BODY:
            if exchange.keep_alive:
                self._resume_reading()
            else:
                self._linger()
        elif exchange.keep_alive:
            self._next_request()
        else:
            self._transport.close()

    def abandon(self, exchange: Exchange, why: Refused) -> None:
        """The application will not end this exchange as it should."""
        if exchange is self._exchange:
            self._refuse(why)

    # Ends

    def _refuse(self, refused: Refused) -> None:
        self._connections.count(refused)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        if exchange is not None and exchange.is_on_wire:
            self._transport.abort()  # a reset, so that nobody takes what came for the whole answer
        elif not self._transport.is_closing():
            self._transport.write(response_bytes(refused, self.preamble))
            self._linger()

    def _linger(self) -> None:
        """Say that we are done, then drop what comes: closing at once could destroy our answer on its way."""
        self._phase = LINGER
        self._since = self._loop.time()
        self._held = b""
        self._body = self._pace = None
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume_reading()

    def shutdown(self) -> None:
        """The server stops: serve what is here, and one request that may be on its way, then close."""
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._phase in (NEW, IDLE):
            self._since = self._loop.time()

    # Deadlines

    def sweep(self, now: float, elapsed_s: float) -> None:
        """Enforce every deadline. Called for each connection, `elapsed_s` after the time before."""
        limits, phase = self._limits, self._phase
        waiting_bytes = self._transport.get_write_buffer_size()
        if (waiting_bytes or self._watch is not None) and self._is_stuck(now, waiting_bytes):
            self._connections.counts["write_deadline"] += 1
            self._transport.abort()
            return
        age = now - self._since
        if phase in (IDLE, NEW):
            allowed_s = limits.keep_alive_s if phase == IDLE else limits.header_deadline_s
            if age >= (limits.drain_idle_s if self._connections.draining else allowed_s):
                self._transport.close()
        elif phase == HEAD:
            if age >= limits.header_deadline_s:
                message = f"the headers were not complete after {limits.header_deadline_s:g} s: send them in one go"
                self._refuse(Refused(408, "header_deadline", message, retriable=True))
        elif phase == BODY:
            self._sweep_body(now, elapsed_s)
        elif phase == LINGER and age >= limits.linger_s:
            self._transport.abort()

    def _is_stuck(self, now: float, waiting_bytes: int) -> bool:
        if not waiting_bytes:
            self._watch = None
            return False
        if self._watch is None:
            self._watch = WriteWatch(self._limits, now, waiting_bytes)
        return self._watch.is_stuck(now, waiting_bytes)

    def _sweep_body(self, now: float, elapsed_s: float) -> None:
        limits, pace, exchange = self._limits, self._pace, self._exchange
        if pace is None:
            return
        if self._read_paused or (exchange is not None and exchange.expects_continue):
            pace.excuse(elapsed_s)  # we are the ones who wait
        elif pace.is_too_slow(now):
            message = (
                f"the body came too slowly: at least {limits.min_body_bytes_per_s} bytes/s, "
                f"all of it within {limits.body_deadline_s:g} s: use a faster line or send less at once"
            )
            self._refuse(Refused(408, "body_deadline", message, retriable=True))
