"""The connection of a replica, which runs an author's code: it may send `Run`, for the models of its version.

A peer that says anything else is cut off.
"""

import math
import time
from typing import TYPE_CHECKING

from serai.ipc.frames import MAX_FRAME_BYTES
from serai.ipc.messages import (
    Failure,
    Message,
    ModelSpec,
    Ran,
    Run,
    Share,
    Shared,
    Tensor,
    Wanted,
    Written,
    encode,
)
from serai.ipc.sockets import is_box_peer
from serai_gpu_pool.core import End, Outcome, Payload, Refused, Ticket
from serai_gpu_pool.links import Link
from serai_gpu_pool.region import Region

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
_TOO_MANY_INPUTS = Refused(
    "busy", f"inputs of over {_MAX_OPEN_BYTES >> 20} MiB of this version wait or run; send fewer at once", True, 1.0
)


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

    def may_connect(self, transport: "asyncio.BaseTransport") -> bool:
        return is_box_peer(transport)

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        super().connection_made(transport)
        if len(self._same_version()) > _MAX_CONNECTIONS:
            self.cut(f"more than {_MAX_CONNECTIONS} connections of one version")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._take_back()

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
            names = sorted(name for name in self._models if name)
            if names and not message.model:
                text = f'algorithm.toml has {len(names)} models, so say which: serai.model("{names[0]}")'
            else:
                text = f'no model "{message.model[:64]}" in algorithm.toml'
            text += f"; there are: {', '.join(names) or 'none'}"
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
            self.send_answer(ticket.id, encode(Ran(ticket.id, tensors, duration_s, len(payload))))
        else:
            self.send_answer(ticket.id, encode(Ran(ticket.id, tensors, duration_s)), payload)

    def _share(self, request: Share) -> None:
        """Give the replica memory for large inputs, in place of what it had; none when its version has enough."""
        self._take_back()
        held = sum(link._region.size for link in self._same_version() if link._region is not None)
        if not 0 < request.num_bytes <= MAX_FRAME_BYTES or held + request.num_bytes > _MAX_SHARED_BYTES:
            self.send_frame(encode(Shared(request.id, 0)))
            return
        region = Region(request.num_bytes)
        if self.transport is not None and region.send(self.transport, encode(Shared(request.id, region.size))):
            self._region = region
        else:
            self.cut("memory could not be shared: it does not read its answers")

    def _take_back(self) -> None:
        if self._region is not None:
            self._region.empty()
            self._region = None
