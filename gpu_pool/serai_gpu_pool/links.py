"""Connections to the pool: what each kind of peer may say, and how tickets are answered.

A gateway or the runner host may send everything, but only processes of our own user reach that socket. A replica runs
an author's code: it may send `Run`, for the models of its version, and a peer that says anything else is cut off.
"""

import math
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from serai.ipc.frames import MAX_FRAME_BYTES, FrameError
from serai.ipc.messages import (
    Admit,
    Admitted,
    Call,
    Cancel,
    Command,
    Commanded,
    Define,
    Drain,
    Failure,
    Infer,
    Inferred,
    Inspect,
    Inspected,
    Message,
    ModelSpec,
    Ran,
    Refusal,
    Result,
    Run,
    Share,
    Shared,
    Stats,
    Tensor,
    Unknown,
    VersionSpec,
    Wanted,
    Withdraw,
    Written,
    decode,
    encode,
)
from serai.ipc.sockets import is_own_peer
from serai_gpu_pool.core import Broken, End, Outcome, Payload, Refused, Ticket
from serai_gpu_pool.intake import Intake
from serai_gpu_pool.region import Region
from serai_gpu_pool.scheduling.commands import Order

if TYPE_CHECKING:
    import asyncio

    from serai_gpu_pool.pool import Pool

#: Longest a replica may let one run wait and work. Its own call has a deadline that is rarely longer.
_MAX_RUN_TIMEOUT_S = 300.0
#: Runs that one replica connection may have open: far more than an author's threads, far less than memory.
_MAX_OPEN_RUNS = 1024
#: Connections of one version, over all of its replicas: each may hold a half-sent frame of the largest size.
_MAX_CONNECTIONS = 64

#: Memory that the connections of one version share with us, together. It is theirs to fill, and nobody's account.
_MAX_SHARED_BYTES = 256 << 20
#: What the connections of one version may have begun to send and not ended: two of the largest frames.
_MAX_RECEIVED_BYTES = 2 * MAX_FRAME_BYTES
#: Inputs of one version that wait or run. Half of what may wait in the whole pool, so others always find room.
_MAX_OPEN_BYTES = 256 << 20
#: An input below this is counted and always let in: as many as one version may have open are no danger.
_SMALL_BYTES = 4096
#: Answers that the connections of one version may leave unread: four of the largest.
_MAX_UNREAD_BYTES = 256 << 20
#: Answers on their way to one gateway. It reads all the time, but a batch of the largest comes at once; what comes on
#: top is for its own caller to ask for again, and costs no one else's call.
_MAX_UNREAD_BY_GATEWAY_BYTES = 384 << 20
#: From here on a gateway is behind with reading, and nothing more is read from it.
_GATEWAY_IS_BEHIND_BYTES = 96 << 20
#: Answers from this size on are sent to a gateway one after the other, and smaller ones go before them.
_BULKY_BYTES = 256 << 10

_TOO_MANY_INPUTS = Refused(
    "busy", f"inputs of over {_MAX_OPEN_BYTES >> 20} MiB of this version wait or run; send fewer at once", True, 1.0
)
_TOO_MANY_RESULTS = Refused(
    "busy", "more large results are on their way than the pool holds; ask for fewer at once", True, 1.0
)


class Link(Intake):
    """What gateways and replicas have in common: open tickets by id, and answers to them."""

    def __init__(self, pool: "Pool", is_ours: bool) -> None:
        super().__init__(pool.arena, is_ours)
        self.pool = pool
        self.tickets: dict[int, Ticket] = {}

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        super().connection_made(transport)
        self.pool.links.add(self)
        if not is_own_peer(transport):
            self.cut("the peer is another user")

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
            self.send_frame(encode(Refusal(ticket.id, "too_large", outcome.message)))
        else:
            self.send_frame(encode(Failure(ticket.id, outcome.kind, outcome.message, duration_s=duration_s)))

    def send_result(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        raise NotImplementedError

    def refuse(self, ticket: Ticket, end: End) -> None:
        """Send why a ticket is not run."""
        if self.tickets.pop(ticket.id, None) is not None:
            self.send_end(ticket.id, end)

    def send_end(self, id: int, end: End) -> None:
        if isinstance(end, Broken):
            self.send_frame(encode(Failure(id, "InitializationError", end.message)))
        else:
            self.send_frame(encode(Refusal(id, end.code, end.message, end.retriable, end.retry_after_s)))


class GatewayLink(Link):
    """A gateway worker or the runner host."""

    def __init__(self, pool: "Pool") -> None:
        super().__init__(pool, is_ours=True)
        self._versions: dict[str, VersionSpec] = {}
        self._bulky: deque[tuple[bytes, bytes | memoryview]] = deque()  # answers that wait for the one being written
        self._bulky_bytes = 0
        self._is_writing_much = False  # more than the transport's buffer takes at once; `resume_writing` will come

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._bulky.clear()
        self._bulky_bytes = 0

    def pause_writing(self) -> None:
        """A large answer is being written. That is no reason to let all others wait; see `_send_answer`."""
        self._is_writing_much = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_writing_much = False
        while self._bulky and not self._is_writing_much:
            header, payload = self._bulky.popleft()
            self._bulky_bytes -= len(payload)
            self.send_frame(header, payload)

    @property
    def unread_bytes(self) -> int:
        return super().unread_bytes + self._bulky_bytes

    def _send_answer(self, header: bytes, payload: bytes | memoryview) -> None:
        """Send it, after other large ones if it is large: those who ask for little do not wait for those who ask for
        much."""
        if len(payload) >= _BULKY_BYTES and self._is_writing_much:
            self._bulky.append((header, payload))
            self._bulky_bytes += len(payload)
        else:
            self.send_frame(header, payload)
        if self.unread_bytes > _GATEWAY_IS_BEHIND_BYTES:
            super().pause_writing()

    def message_received(self, message: Message, payload: Payload) -> None:
        if type(message) is Call:
            self._call(message, payload)
        elif type(message) is Infer:
            self._infer(message, payload)
        elif isinstance(message, Define):
            self._versions[message.spec.key] = message.spec
        elif isinstance(message, Cancel):
            ticket = self.tickets.pop(message.id, None)
            if ticket is not None:
                self.pool.cancel(ticket)
        elif isinstance(message, Stats):
            self.send_frame(encode(Stats(message.id)), self.pool.stats())
        elif isinstance(message, Inspect):
            self.send_frame(encode(Inspected(message.id)), self.pool.inspect())
        elif isinstance(message, Command):
            self._command(message)
        elif isinstance(message, Admit):
            self.pool.admit(message, self)
        elif isinstance(message, Withdraw):
            self.pool.withdraw(message.version)
        elif isinstance(message, Drain):
            self.pool.drain()
        else:
            self.cut(f"a {type(message).__name__} from a gateway")

    def admitted(self, version: str, directory: str) -> None:
        self.send_frame(encode(Admitted(version, directory)))

    def send_result(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        if len(payload) and self.unread_bytes + len(payload) > _MAX_UNREAD_BY_GATEWAY_BYTES:
            self.send_end(ticket.id, _TOO_MANY_RESULTS)
        elif ticket.form == "tensors":
            self._send_answer(encode(Inferred(ticket.id, outcome.tensors, duration_s)), payload)
        else:
            self._send_answer(encode(Result(ticket.id, ticket.form, duration_s)), payload)

    def settled(self, id: int, end: End | None) -> None:
        """A command was carried out, or cannot be."""
        if end is None:
            self.send_frame(encode(Commanded(id)))
        else:
            self.send_end(id, end)

    def _call(self, call: Call, payload: Payload) -> None:
        model = self._model_of(call.id, call.version, "")
        if model is None:
            return
        if call.content_type not in ("json", "binary"):
            self.send_frame(encode(_wrong_type(call)))
            return
        ticket = Ticket(call.id, model.key, call.payer, call.deadline, payload, call.content_type, link=self)
        ticket.owner = model.owner
        self.submit(ticket, model)

    def _infer(self, infer: Infer, payload: Payload) -> None:
        model = self._model_of(infer.id, infer.version, infer.model)
        if model is None:
            return
        ticket = Ticket(infer.id, model.key, infer.payer, infer.deadline, payload, "tensors", link=self)
        ticket.tensors, ticket.outputs, ticket.as_json = infer.inputs, infer.outputs, infer.as_json
        ticket.owner, ticket.priority = model.owner, infer.priority
        self.submit(ticket, model)

    def _command(self, command: Command) -> None:
        model = self._model_of(command.id, command.version, command.model)
        if model is not None:
            self.pool.command(Order(command.id, command.verb, command.deadline, self), model)

    def _model_of(self, id: int, version: str, name: str) -> ModelSpec | None:
        """The model that is meant; None after having said why there is none."""
        spec = self._versions.get(version)
        if spec is None:
            self.send_frame(encode(Unknown(id)))
            return None
        if id in self.tickets:
            self.cut("an id that is in use")
            return None
        if name:
            model = next((one for one in spec.models if one.name == name), None)
        else:
            model = spec.models[0] if len(spec.models) == 1 else None
        if model is None:
            has = f"version {spec.key} has {len(spec.models)} models; one that is called by itself has exactly one"
            self.send_end(id, Refused("unavailable", f"no model {name!r} in {spec.key}" if name else has))
        return model


class ReplicaLink(Link):
    """Code of an author, behind the socket of its version."""

    def __init__(self, pool: "Pool", version: str, owner: str, models: tuple[ModelSpec, ...]) -> None:
        super().__init__(pool, is_ours=False)
        self.version = version
        self._owner = owner
        self._models = {model.name: model for model in models}
        if len(models) == 1:
            self._models[""] = models[0]
        self._region: Region | None = None
        self._sizes: dict[int, int] = {}  # of the inputs of open runs, by id
        self._open_bytes = 0

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        super().connection_made(transport)
        if len(self._same_version()) > _MAX_CONNECTIONS:
            self.cut(f"more than {_MAX_CONNECTIONS} connections of one version")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._region = None

    def may_receive(self, num_bytes: int) -> bool:
        held = sum(link.received_bytes for link in self._same_version())
        return held + num_bytes <= _MAX_RECEIVED_BYTES and super().may_receive(num_bytes)

    def _same_version(self) -> "list[ReplicaLink]":
        return [link for link in self.pool.links if isinstance(link, ReplicaLink) and link.version == self.version]

    def message_received(self, message: Message, payload: Payload) -> None:
        if isinstance(message, Share):
            self._share(message)
            return
        if not isinstance(message, Run):
            self.cut(f"a {type(message).__name__} from a replica")
            return
        if message.id in self.tickets or len(self.tickets) >= _MAX_OPEN_RUNS:
            self.cut("an id that is in use, or too many runs at once")
            return
        model = self._models.get(message.model)
        if model is None:
            names = ", ".join(sorted(name for name in self._models if name)) or "none"
            text = f'no model "{message.model[:64]}" in algorithm.toml; there are: {names}'
            self.send_frame(encode(Failure(message.id, "InputError", text)))
            return
        if not 0 < message.timeout_s <= _MAX_RUN_TIMEOUT_S or not math.isfinite(message.timeout_s):
            text = f"a timeout of {message.timeout_s} s is not between 0 and {_MAX_RUN_TIMEOUT_S:g}"
            self.send_frame(encode(Failure(message.id, "InputError", text)))
            return
        if message.shared_bytes and (
            self._region is None or len(payload) or not 0 < message.shared_bytes <= self._region.size
        ):
            self.cut("a run with inputs in memory that is not shared")
            return
        if self._waits_too_much(message.shared_bytes or len(payload)):
            self.send_end(message.id, _TOO_MANY_INPUTS)
            return
        if message.shared_bytes and self._region is not None:
            payload = self._region.read(message.shared_bytes, self.pool.arena)
        deadline = time.monotonic() + message.timeout_s
        ticket = Ticket(message.id, model.key, self._owner, deadline, payload, "tensors", link=self)
        ticket.tensors = tuple([Written(one.name, one.dtype, one.shape) for one in message.inputs])
        ticket.outputs = tuple([Wanted(name) for name in dict.fromkeys(message.outputs)])
        ticket.owner = self._owner
        self.submit(ticket, model)

    def _waits_too_much(self, more_bytes: int) -> bool:
        """Would its version have too much of the pool's memory with an input of this size?"""
        if more_bytes < _SMALL_BYTES:
            return False
        return sum(link._open_bytes for link in self._same_version()) + more_bytes > _MAX_OPEN_BYTES

    def submit(self, ticket: Ticket, model: ModelSpec) -> None:
        self._sizes[ticket.id] = len(ticket.payload)
        self._open_bytes += len(ticket.payload)
        super().submit(ticket, model)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        self._open_bytes -= self._sizes.pop(ticket.id, 0)
        super().finish(ticket, outcome, payload, duration_s)
        if self.unread_bytes and sum(link.unread_bytes for link in self._same_version()) > _MAX_UNREAD_BYTES:
            self.cut("it asks and does not read its answers")

    def refuse(self, ticket: Ticket, end: End) -> None:
        self._open_bytes -= self._sizes.pop(ticket.id, 0)
        super().refuse(ticket, end)

    def send_result(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        tensors = tuple([Tensor(one.name, one.dtype, one.shape) for one in outcome.tensors])
        if self._region is not None and self._region.write(payload):
            self.send_frame(encode(Ran(ticket.id, tensors, duration_s, len(payload))))
        else:
            self.send_frame(encode(Ran(ticket.id, tensors, duration_s)), payload)

    def _share(self, request: Share) -> None:
        """Give the replica memory for large inputs, in place of what it had; none when its version has enough."""
        self._region = None
        held = sum(link._region.size for link in self._same_version() if link._region is not None)
        if not 0 < request.num_bytes <= MAX_FRAME_BYTES or held + request.num_bytes > _MAX_SHARED_BYTES:
            self.send_frame(encode(Shared(request.id, 0)))
            return
        region = Region(request.num_bytes)
        if self.transport is not None and region.send(self.transport, encode(Shared(request.id, region.size))):
            self._region = region
        else:
            self.cut("memory could not be shared: it does not read its answers")


def _wrong_type(call: Call) -> Failure:
    text = f"a model takes JSON, or raw bytes as application/octet-stream; this input is {call.content_type}"
    return Failure(call.id, "InputError", text)
