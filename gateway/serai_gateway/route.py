"""The way to one daemon: a call goes out as one frame and its answer comes back as one.

A streamed call gets more of them back (`Item`, `Progress`, `Waiting`), and says when it has written them (`More`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from serai.ipc.frames import MAX_HEADER_BYTES, Buffer
from serai.ipc.link import Link
from serai.ipc.messages import (
    Call,
    Cancel,
    Command,
    Commanded,
    ContentType,
    Define,
    Failure,
    Infer,
    Inferred,
    Inspect,
    Inspected,
    Keep,
    Logged,
    More,
    Refusal,
    Result,
    Stats,
    Unknown,
    VersionSpec,
    Wanted,
    Written,
    decode,
    encode,
)
from serai.ipc.secrets import Secrets
from serai_gateway.log_feed import LogFeed
from serai_gateway.pending import Asked, CallStream, Event, Inbox, Pending, Reply

#: How long a call waits for a daemon that is not there. A killed one is back within 1 s; this leaves room.
CONNECT_WAIT_S = 5.0

#: The daemon answers at the deadline; if it does not within this, the gateway answers for it.
OVERDUE_S = 0.7

#: How often overdue calls and callers who left are looked for. Only while calls are pending.
_SWEEP_S = 0.2

#: A call younger than this has its caller's departure noticed only when the answer is written.
_WATCH_AFTER_S = 0.5

Verb = Literal["load", "unload", "pin", "unpin", "release"]

Answer = tuple[Result | Failure | Refusal, bytes]
InferAnswer = tuple[Inferred | Failure | Refusal, bytes]


class Route:
    """The way to one daemon: owns the calls that are with it, by id."""

    def __init__(self, name: str, socket_path: Path) -> None:
        self.name = name
        self._pending: dict[int, Pending] = {}
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        self._defined: dict[str, float] = {}  # version -> as of when its secrets are that were told with it
        self._next_id = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._link = Link(socket_path, self._on_frame, self._on_open, self._on_lost)
        self.logs = LogFeed(self._link.send)
        self.num_opened = 0  # times that it connected: what was told before is forgotten there

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    async def wait_open(self, timeout_s: float) -> bool:
        return await self._link.wait_open(timeout_s)

    def start(self) -> None:
        self._link.start()

    async def close(self) -> None:
        await self._link.close()

    async def call(self, spec: VersionSpec, content_type: ContentType, payload: bytes, asked: Asked) -> Answer:
        """Run one call. Raises CallerGone when `asked.gone` returns first."""
        call = self._write_call(spec, content_type, asked, wants_items=False)
        return await self._exchange(Pending(spec, call, payload, asked.gone, asked.secrets), watch=asked.depth > 0)

    @asynccontextmanager
    async def stream(
        self, spec: VersionSpec, content_type: ContentType, payload: bytes, asked: Asked
    ) -> AsyncIterator[CallStream]:
        """Run one call and see what it sends until it ends. Who leaves before that has cancelled it."""
        is_there = await self._is_there(asked.deadline)
        call = self._write_call(spec, content_type, asked, wants_items=True)
        pending = Pending(spec, call, payload, asked.gone, asked.secrets)
        events = CallStream(pending, lambda num_items: self._acknowledge(call.id, num_items))
        try:
            if is_there:
                self._begin(pending, watch=True)
            else:
                pending.settle(*self._refuse_unavailable())
            yield events
        finally:
            self._leave(call.id)

    async def infer(
        self,
        spec: VersionSpec,
        model: str,
        inputs: tuple[Written, ...],
        outputs: tuple[Wanted, ...],
        payload: Buffer,
        asked: Asked,
        *,
        as_json: bool,
        priority: int = 0,
    ) -> InferAnswer:
        """Run one model of a version with named tensors: see `Infer`. For the pool. Raises CallerGone like `call`."""
        deadline, call_id, payer = asked.deadline, asked.call_id, asked.payer
        infer = Infer(self._number(), spec.key, model, inputs, outputs, as_json, deadline, call_id, payer, priority)
        message, answer = await self._exchange(Pending(spec, infer, payload, asked.gone), watch=asked.depth > 0)
        return (message, answer) if isinstance(message, Inferred | Failure | Refusal) else self._refuse_nonsense()

    async def command(
        self, spec: VersionSpec, verb: Verb, model: str, deadline: float
    ) -> Commanded | Failure | Refusal:
        """Have one model of a version loaded, unloaded, pinned or unpinned; returns when it is so. For the pool."""
        command = Command(self._number(), verb, spec.key, model, deadline)
        message, _ = await self._exchange(Pending(spec, command, b"", None))
        return message if isinstance(message, Commanded | Failure | Refusal) else self._refuse_nonsense()[0]

    def keep(self, kept: Sequence[tuple[VersionSpec, Secrets]]) -> bool:
        """Say which versions have their smallest number of replicas; whether it could be said. For the runner host."""
        for spec, secrets in kept:
            if not self._is_defined(spec, secrets):
                self._define(encode(Define(spec)), spec, secrets)
        return self._link.send(encode(Keep(tuple(spec.key for spec, _ in kept))))

    async def stats(self, timeout_s: float = 1.0) -> bytes:
        """The daemon's figures as Prometheus text; empty when it does not answer."""
        return await self._ask(Stats, timeout_s)

    async def inspect(self, timeout_s: float = 2.0) -> bytes:
        """What the pool holds, a `serai_gpu_pool.snapshot.Snapshot` as JSON; empty when it does not answer."""
        return await self._ask(Inspect, timeout_s)

    async def _ask(self, question: type[Stats | Inspect], timeout_s: float) -> bytes:
        number = self._number()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            if not self._link.send(encode(question(number))):
                return b""
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return b""
        finally:
            self._questions.pop(number, None)

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id

    def _write_call(self, spec: VersionSpec, content_type: ContentType, asked: Asked, *, wants_items: bool) -> Call:
        return Call(
            self._number(),
            spec.key,
            content_type,
            asked.deadline,
            asked.call_id,
            asked.payer,
            asked.wants_stdout,
            wants_items,
            asked.root,
            asked.depth,
            asked.only_load,
        )

    async def _is_there(self, deadline: float) -> bool:
        return self._link.is_open or await self._link.wait_open(min(CONNECT_WAIT_S, deadline - time.monotonic()))

    async def _exchange(self, pending: Pending, *, watch: bool = False) -> tuple[Any, bytes]:
        """Send it and wait for the reply. Who stops waiting has cancelled it."""
        if not await self._is_there(pending.call.deadline):
            return self._refuse_unavailable()
        self._begin(pending, watch=watch)
        try:
            return await pending.reply()
        finally:
            self._leave(pending.call.id)

    def _begin(self, pending: Pending, *, watch: bool) -> None:
        """`watch`: look at once whether the caller has gone. What an algorithm asked for ends with its own call."""
        pending.sent_at = time.monotonic()
        self._pending[pending.call.id] = pending
        self._send(pending)
        if watch and pending.gone is not None and not pending.answer.done():
            pending.watcher = asyncio.get_running_loop().create_task(self._watch(pending))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _leave(self, number: int) -> None:
        """Nobody waits for this call any more; where it has not been answered, it need not go on."""
        pending = self._pending.pop(number, None)
        if pending is not None:
            self._link.send(encode(Cancel(number)))
            pending.abandon()  # its watcher ends

    def _acknowledge(self, number: int, num_items: int) -> None:
        self._link.send(encode(More(number, num_items)))

    def _refuse_unavailable(self) -> tuple[Refusal, bytes]:
        message = f"the {self.name} is not there; it is being restarted"
        return Refusal(0, "unavailable", message, retriable=True, retry_after_s=1.0), b""

    def _refuse_nonsense(self) -> tuple[Refusal, bytes]:
        return Refusal(0, "unavailable", f"the {self.name} answered something else than it was asked"), b""

    def _send(self, pending: Pending) -> None:
        spec = pending.spec
        if not self._is_defined(spec, pending.secrets):
            definition = encode(Define(spec))
            if len(definition) > MAX_HEADER_BYTES:  # an author's doing: it must not cost the others this connection
                self._pending.pop(pending.call.id, None)
                message = f"the models of {spec.key} have more or longer names than {MAX_HEADER_BYTES} bytes hold"
                pending.settle(Refusal(pending.call.id, "too_large", message), b"")
                return
            self._define(definition, spec, pending.secrets)
        self._link.send(encode(pending.call), pending.payload)

    def _is_defined(self, spec: VersionSpec, secrets: Secrets) -> bool:
        """Whether the daemon has heard of it, and of these secrets or newer ones."""
        told = self._defined.get(spec.key)
        return told is not None and told >= secrets.changed_at

    def _define(self, definition: bytes, spec: VersionSpec, secrets: Secrets) -> None:
        self._defined[spec.key] = secrets.changed_at
        self._link.send(definition, secrets.encode())

    def _on_open(self) -> None:
        self._defined.clear()
        self.num_opened += 1

    def _on_lost(self) -> None:
        """What was sent may have run, so it is not sent again: the caller decides."""
        lost, self._pending = self._pending, {}
        for pending in lost.values():
            message = f"the {self.name} died with the call in it"
            pending.settle(Refusal(0, "crashed", message, retriable=True), b"")
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result(b"")
        self.logs.on_lost()

    def _on_frame(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Reply):
            pending = self._pending.pop(message.id, None)
            if pending is not None:  # else: late, the call has been answered
                pending.settle(message, payload)
        elif isinstance(message, Event):
            pending = self._pending.get(message.id)
            if pending is not None and pending.inbox is not None:
                self._deliver(pending, pending.inbox, message, payload)
        elif isinstance(message, Unknown):
            self._define_again(message.id)
        elif isinstance(message, Stats | Inspected):
            answer = self._questions.get(message.id)
            if answer is not None and not answer.done():
                answer.set_result(payload)
        elif isinstance(message, Logged):
            self.logs.on_logged(message, payload)

    def _deliver(self, pending: Pending, inbox: Inbox, event: Event, payload: bytes) -> None:
        if pending.answer.done():  # late: whoever reads has been told of the end
            return
        if inbox.put(event, payload):
            pending.tell()
            return
        refusal = Refusal(event.id, "unavailable", f"the {self.name} sent more items than it was asked for")
        pending.settle(refusal, b"")  # its reader leaves, which cancels it

    def _define_again(self, number: int) -> None:
        """The daemon does not know the version: once, it is told again."""
        pending = self._pending.get(number)
        if pending is None:
            return
        if pending.was_defined_again:
            self._pending.pop(number)
            pending.settle(Refusal(number, "unavailable", f"the {self.name} does not take this version"), b"")
            return
        pending.was_defined_again = True
        self._defined.pop(pending.spec.key, None)
        self._send(pending)

    def _sweep(self) -> None:
        """Answer what is overdue, and watch the callers of what is slow."""
        now = time.monotonic()
        for pending in list(self._pending.values()):
            call = pending.call
            if now > call.deadline + OVERDUE_S:
                message = f"no answer from the {self.name} by the deadline"  # who waited leaves, which cancels it
                pending.settle(Refusal(call.id, "deadline", message), b"")
            elif pending.watcher is None and pending.gone is not None and now > pending.sent_at + _WATCH_AFTER_S:
                pending.watcher = asyncio.get_running_loop().create_task(self._watch(pending))
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._pending else None

    async def _watch(self, pending: Pending) -> None:
        assert pending.gone is not None, "only calls with a caller are watched"
        await pending.gone()
        pending.abandon()
