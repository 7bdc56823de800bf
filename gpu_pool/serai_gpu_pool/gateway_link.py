"""The connection of a gateway worker or of the runner host: it may send everything.

Only processes of our own user reach that socket.
"""

from collections import deque
from typing import TYPE_CHECKING

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
    Result,
    Stats,
    Unknown,
    VersionSpec,
    Withdraw,
    encode,
)
from serai_gpu_pool.core import End, Outcome, Payload, Refused, Ticket
from serai_gpu_pool.links import Link
from serai_gpu_pool.scheduling.commands import Order

if TYPE_CHECKING:
    from serai_gpu_pool.pool import Pool

#: Answers on their way to one gateway. It reads all the time, but a batch of the largest comes at once; what comes on
#: top is for its own caller to ask for again, and costs no one else's call.
_MAX_UNREAD_BY_GATEWAY_BYTES = 384 << 20
#: From here on a gateway is behind with reading, and nothing more is read from it.
_GATEWAY_IS_BEHIND_BYTES = 96 << 20
#: Answers from this size on are sent to a gateway one after the other, and smaller ones go before them.
_BULKY_BYTES = 256 << 10

_TOO_MANY_RESULTS = Refused(
    "busy", "more large results are on their way than the pool holds; ask for fewer at once", True, 1.0
)


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

    def send_payload(self, header: bytes, payload: bytes | memoryview) -> None:
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
            self.send_answer(ticket.id, encode(Inferred(ticket.id, outcome.tensors, duration_s)), payload)
        else:
            self.send_answer(ticket.id, encode(Result(ticket.id, ticket.form, duration_s)), payload)

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
            self.pool.command(Order(command.id, command.verb, command.deadline, self, model.owner), model)

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


def _wrong_type(call: Call) -> Failure:
    text = f"a model takes JSON, or raw bytes as application/octet-stream; this input is {call.content_type}"
    return Failure(call.id, "InputError", text)
