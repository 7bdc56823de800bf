"""Sends a call to the daemon that runs it and waits for its answer: one frame out, one frame back.

Dispatcher ──▶ Route("runner.sock") ──▶ Link ──▶ runner host
           └─▶ Route("pool.sock")   ──▶ Link ──▶ pool
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from serai.ipc.link import Link
from serai.ipc.messages import (
    Call,
    Cancel,
    ContentType,
    Define,
    Failure,
    Refusal,
    Result,
    Stats,
    Unknown,
    VersionSpec,
    decode,
    encode,
)

#: How long a call waits for a daemon that is not there. A killed one is back within 1 s; this leaves room.
CONNECT_WAIT_S = 5.0

#: The daemon answers at the deadline; if it does not within this, the gateway answers for it.
OVERDUE_S = 0.7

#: How often overdue calls and callers who left are looked for. Only while calls are pending.
_SWEEP_S = 0.2

#: A call younger than this has its caller's departure noticed only when the answer is written.
_WATCH_AFTER_S = 0.5

Answer = tuple[Result | Failure | Refusal, bytes]


class Pending:
    """A call on its way."""

    __slots__ = ("answer", "call", "gone", "payload", "sent_at", "spec", "watcher")

    def __init__(self, spec: VersionSpec, call: Call, payload: bytes, answer: asyncio.Future[Answer]) -> None:
        self.spec = spec
        self.call = call
        self.payload = payload
        self.answer = answer
        self.sent_at = time.monotonic()
        self.gone: Callable[[], Awaitable[Any]] | None = None
        self.watcher: asyncio.Task[None] | None = None

    def settle(self, message: Result | Failure | Refusal, payload: bytes) -> None:
        if self.watcher is not None:
            self.watcher.cancel()
        if not self.answer.done():
            self.answer.set_result((message, payload))


class Route:
    """The way to one daemon: owns the calls that are with it, by id."""

    def __init__(self, name: str, socket_path: Path) -> None:
        self.name = name
        self._pending: dict[int, Pending] = {}
        self._stats: dict[int, asyncio.Future[bytes]] = {}
        self._defined: set[str] = set()
        self._next_id = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._link = Link(socket_path, self._on_frame, self._on_open, self._on_lost)

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    async def wait_open(self, timeout_s: float) -> bool:
        return await self._link.wait_open(timeout_s)

    def start(self) -> None:
        self._link.start()

    async def close(self) -> None:
        await self._link.close()

    async def call(
        self,
        spec: VersionSpec,
        content_type: ContentType,
        payload: bytes,
        *,
        deadline: float,
        call_id: str,
        payer: str,
        wants_stdout: bool = False,
        gone: Callable[[], Awaitable[Any]] | None = None,
    ) -> Answer:
        """Run one call. `gone` is awaited on slow calls: when it returns, the caller has left."""
        if not self._link.is_open:
            wait_s = min(CONNECT_WAIT_S, deadline - time.monotonic())
            if not await self._link.wait_open(wait_s):
                return self._refuse_unavailable()
        self._next_id = call_id_number = self._next_id + 1
        call = Call(call_id_number, spec.key, content_type, deadline, call_id, payer, wants_stdout)
        pending = Pending(spec, call, payload, asyncio.get_running_loop().create_future())
        pending.gone = gone
        self._pending[call_id_number] = pending
        self._send(pending)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        try:
            return await pending.answer
        finally:
            self._pending.pop(call_id_number, None)

    async def stats(self, timeout_s: float = 1.0) -> bytes:
        """The daemon's figures as Prometheus text; empty when it does not answer."""
        self._next_id = number = self._next_id + 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._stats[number] = answer
        try:
            if not self._link.send(encode(Stats(number))):
                return b""
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return b""
        finally:
            self._stats.pop(number, None)

    def _refuse_unavailable(self) -> Answer:
        message = f"the {self.name} is not there; it is being restarted"
        return Refusal(0, "unavailable", message, retriable=True, retry_after_s=1.0), b""

    def _send(self, pending: Pending) -> None:
        spec = pending.spec
        if spec.key not in self._defined:
            self._defined.add(spec.key)
            self._link.send(encode(Define(spec)))
        self._link.send(encode(pending.call), pending.payload)

    def _on_open(self) -> None:
        self._defined.clear()

    def _on_lost(self) -> None:
        """What was sent may have run, so it is not sent again: the caller decides."""
        lost, self._pending = self._pending, {}
        for pending in lost.values():
            message = f"the {self.name} died with the call in it"
            pending.settle(Refusal(0, "crashed", message, retriable=True), b"")

    def _on_frame(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Result | Failure | Refusal):
            pending = self._pending.pop(message.id, None)
            if pending is not None:  # else: late, the call has been answered
                pending.settle(message, payload)
        elif isinstance(message, Unknown):
            pending = self._pending.get(message.id)
            if pending is not None:
                self._defined.discard(pending.spec.key)
                self._send(pending)
        elif isinstance(message, Stats):
            answer = self._stats.get(message.id)
            if answer is not None and not answer.done():
                answer.set_result(payload)

    def _sweep(self) -> None:
        """Answer what is overdue, and watch the callers of what is slow."""
        now = time.monotonic()
        for pending in list(self._pending.values()):
            call = pending.call
            if now > call.deadline + OVERDUE_S:
                self._link.send(encode(Cancel(call.id)))
                message = f"no answer from the {self.name} by the deadline"
                pending.settle(Refusal(call.id, "deadline", message), b"")
            elif pending.watcher is None and pending.gone is not None and now > pending.sent_at + _WATCH_AFTER_S:
                pending.watcher = asyncio.get_running_loop().create_task(self._watch(pending))
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._pending else None

    async def _watch(self, pending: Pending) -> None:
        assert pending.gone is not None, "only calls with a caller are watched"
        await pending.gone()
        if not pending.answer.done():
            self._link.send(encode(Cancel(pending.call.id)))
            pending.answer.set_result((Refusal(pending.call.id, "crashed", "the caller has gone"), b""))


class Dispatcher:
    """Chooses the daemon for a version: code runs in the runner host, a bare model in the pool."""

    def __init__(self, run_dir: Path) -> None:
        self.runner = Route("runner host", run_dir / "runner.sock")
        self.pool = Route("pool", run_dir / "pool.sock")

    def route(self, spec: VersionSpec) -> Route:
        return self.pool if spec.kind == "model" else self.runner

    def start(self) -> None:
        self.runner.start()
        self.pool.start()

    async def close(self) -> None:
        await self.runner.close()
        await self.pool.close()
