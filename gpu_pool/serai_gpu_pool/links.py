"""What connections to the pool have in common: open tickets by id, and answers to them.

gateway_link.py and replica_link.py say what each kind of peer may ask.
"""

from typing import TYPE_CHECKING

import msgspec

from serai.ipc.frames import MAX_HEADER_BYTES, FrameError
from serai.ipc.messages import (
    Failure,
    Message,
    ModelSpec,
    Refusal,
    decode,
    encode,
)
from serai.ipc.sockets import is_own_peer
from serai_gpu_pool.core import Broken, End, Outcome, Payload, Ticket
from serai_gpu_pool.intake import Intake

if TYPE_CHECKING:
    import asyncio

    from serai_gpu_pool.pool import Pool

#: Characters of an error that go out: what a model says of itself may be of any length.
_MAX_MESSAGE = 4000


class Link(Intake):
    """A connection of a gateway or of a replica."""

    def __init__(self, pool: "Pool", is_ours: bool) -> None:
        super().__init__(pool.arena, is_ours)
        self.pool = pool
        self.tickets: dict[int, Ticket] = {}

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        super().connection_made(transport)
        self.pool.links.add(self)
        if not self.may_connect(transport):
            self.cut("the peer is another user")

    def may_connect(self, transport: "asyncio.BaseTransport") -> bool:
        return is_own_peer(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever asked is gone: nothing of theirs is worth running any more."""
        super().connection_lost(exc)
        self.pool.links.discard(self)
        tickets, self.tickets = list(self.tickets.values()), {}
        for ticket in tickets:
            self.pool.cancel(ticket)

    def pause_writing(self) -> None:
        """The peer does not read its answers: read no more of its questions."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def payload_received(self, header: bytes, payload: Payload) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        try:
            message = decode(header)
        except (msgspec.DecodeError, RecursionError):
            self.cut("a header that is no message")
            return
        self.message_received(message, payload)

    def message_received(self, message: Message, payload: Payload) -> None:
        raise NotImplementedError

    def frame_error(self, error: FrameError) -> None:
        self.pool.protocol_error(str(error))

    def cut(self, why: str) -> None:
        self.pool.protocol_error(why)
        if self.transport is not None:
            self.transport.abort()

    def submit(self, ticket: Ticket, model: ModelSpec) -> None:
        self.tickets[ticket.id] = ticket
        self.pool.submit(ticket, model)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        """Send the result of a ticket, or how its run failed."""
        if self.tickets.pop(ticket.id, None) is None:
            return
        if outcome.kind == "ok":
            self.send_result(ticket, outcome, payload, duration_s)
        elif outcome.kind in ("too_large", "no_room"):
            self.send_frame(encode(Refusal(ticket.id, "too_large", _short(outcome.message))))
        else:
            self.send_failure(ticket.id, outcome.kind, outcome.message, duration_s)

    def send_answer(self, id: int, header: bytes, payload: bytes | memoryview = b"") -> None:
        """A result. Names and shapes come from a worker, which is not believed: they may be longer than can be said."""
        if len(header) <= MAX_HEADER_BYTES:
            self.send_payload(header, payload)
        else:
            text = f"names and shapes of the outputs take {len(header):,} bytes, over the limit of {MAX_HEADER_BYTES:,}"
            self.send_failure(id, "AlgorithmError", f"{text}: ask for fewer outputs")

    def send_payload(self, header: bytes, payload: bytes | memoryview) -> None:
        self.send_frame(header, payload)

    def send_failure(self, id: int, kind: str, message: str, duration_s: float = 0.0) -> None:
        self.send_frame(encode(Failure(id, kind, _short(message), duration_s=duration_s)))

    def send_result(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        raise NotImplementedError

    def refuse(self, ticket: Ticket, end: End) -> None:
        """Send why a ticket is not run."""
        if self.tickets.pop(ticket.id, None) is not None:
            self.send_end(ticket.id, end)

    def send_end(self, id: int, end: End) -> None:
        if isinstance(end, Broken):
            self.send_failure(id, "InitializationError", end.message)
        else:
            self.send_frame(encode(Refusal(id, end.code, _short(end.message), end.retriable, end.retry_after_s)))


def _short(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"
