"""The pool: the one owner of what happens on this machine's device.

Everything here runs as plain callbacks on one loop, in the order of arrival; the decisions are the scheduler's. Events
that arrive together are acted on together: a burst of calls becomes one batch.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from serai.ipc.messages import Admit, ModelSpec
from serai.ipc.sockets import serve_unix
from serai_gpu_pool.admission import Admission
from serai_gpu_pool.arena import Arena
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.device.base import Device
from serai_gpu_pool.links import GatewayLink, ReplicaLink
from serai_gpu_pool.metrics import Metrics
from serai_gpu_pool.scheduler import Scheduler
from serai_gpu_pool.settings import Settings

if TYPE_CHECKING:
    from serai_gpu_pool.links import Link

log = structlog.get_logger()


class Pool:
    """Owns the scheduler, the device and the connections. Implements `Effects` and `DeviceEvents`."""

    def __init__(self, settings: Settings, device: Device, arena: Arena) -> None:
        self.arena = arena
        self._settings = settings
        self._device = device
        self._scheduler = Scheduler(settings.cpu_budget_bytes, settings.limits, self)
        self._metrics = Metrics(self._scheduler)
        self._admission = Admission(settings.run / "models", self._replica_link)
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.AbstractServer | None = None
        self._admissions: asyncio.Queue[tuple[Admit | str, GatewayLink | None]] = asyncio.Queue()
        self._advancing = False  # `_advance` is on its way
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self.links: set[Link] = set()
        self.drained = asyncio.Event()  # draining, and nobody waits any more

    async def serve(self) -> None:
        """Open the socket, run until drained, then close everything."""
        self._settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._device.start(self)
        self._server = await serve_unix(self._settings.run / "pool.sock", self._gateway_link)
        admitting = self._loop.create_task(self._admit_in_order())
        log.info("pool listens", action="listen", budget_bytes=self._settings.cpu_budget_bytes)
        try:
            await self.drained.wait()
        finally:
            admitting.cancel()
            self._server.close()
            self._admission.close()
            await self._device.stop()
            for link in list(self.links):
                link.close()

    # ── what connections ask for ─────────────────────────────────────────────────────────────────────────────

    def submit(self, ticket: Ticket, model: ModelSpec) -> None:
        self._scheduler.on_call(ticket, model, time.monotonic())
        self._advance_soon()

    def cancel(self, ticket: Ticket) -> None:
        self._scheduler.on_cancel(ticket)
        self._advance_soon()

    def stats(self) -> bytes:
        self._metrics.worker_bytes = getattr(self._device, "worker_bytes", 0)
        return self._metrics.text()

    def admit(self, request: Admit, link: GatewayLink) -> None:
        self._admissions.put_nowait((request, link))

    def withdraw(self, version: str) -> None:
        self._admissions.put_nowait((version, None))

    def drain(self) -> None:
        """Finish what waits and runs, refuse what comes, then stop."""
        if not self._scheduler.draining:
            log.info("pool drains", action="drain", live=self._scheduler.num_live)
        self._scheduler.on_drain()
        self._advance_soon()

    def protocol_error(self, why: str) -> None:
        self._scheduler.counts.protocol_errors += 1
        log.warning("connection cut", action="protocol_error", why=why)

    # ── DeviceEvents ─────────────────────────────────────────────────────────────────────────────────────────

    def on_worker_ready(self) -> None:
        self._scheduler.on_worker_ready(time.monotonic())
        self._advance_soon()

    def on_start_failed(self, reason: str) -> None:
        self._scheduler.on_start_failed(reason)

    def on_loaded(self, model: str, resident_bytes: int, load_s: float) -> None:
        log.info("model loaded", action="loaded", model=model[:12], bytes=resident_bytes, seconds=round(load_s, 4))
        self._scheduler.on_loaded(model, resident_bytes, load_s, time.monotonic())
        self._advance_soon()

    def on_load_failed(self, model: str, failure: LoadFailure) -> None:
        log.warning("model not loaded", action="load_failed", model=model[:12], kind=failure.kind, why=failure.message)
        self._scheduler.on_load_failed(model, failure, time.monotonic())
        self._advance_soon()

    def on_dropped(self, model: str) -> None:
        self._scheduler.on_dropped(model, time.monotonic())
        self._advance_soon()

    def on_batch_done(
        self, batch_id: int, results: list[tuple[Outcome, bytes | memoryview]], duration_s: float
    ) -> None:
        self._scheduler.on_batch_done(batch_id, results, duration_s, time.monotonic())
        self._advance_soon()

    def on_worker_lost(self, reason: str) -> None:
        self._scheduler.on_worker_lost(reason, time.monotonic())
        self._advance_soon()

    # ── Effects ──────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, model: ModelSpec) -> None:
        self._device.load(model)

    def drop(self, model: str) -> None:
        self._device.drop(model)

    def run(self, batch: Batch) -> None:
        observe, now = self._metrics.queue_wait.observe, batch.started_at
        for ticket in batch.tickets:
            observe(now - ticket.enqueued_at)
        self._metrics.batch_size.observe(len(batch.tickets))
        self._device.run(batch)

    def kill_worker(self, reason: str) -> None:
        self._device.kill(reason)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        ticket.link.finish(ticket, outcome, payload, duration_s)

    def refuse(self, ticket: Ticket, end: End) -> None:
        ticket.link.refuse(ticket, end)

    # ── the turn of the owner ────────────────────────────────────────────────────────────────────────────────

    def _advance_soon(self) -> None:
        """Act once on everything that this turn of the loop brings."""
        if not self._advancing:
            self._advancing = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._advancing = False
        self._scheduler.advance(time.monotonic())
        self._set_timer()
        if self._scheduler.draining and not self._scheduler.num_live:
            self._scheduler.residency.ledger.check_integrity()
            self.drained.set()

    def _set_timer(self) -> None:
        """Wake up when the scheduler has to, not before. A timer that is early enough already is left alone."""
        due = self._scheduler.next_wakeup()
        if due is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._scheduler.on_time(time.monotonic())
        self._advance()

    # ── sockets of versions ──────────────────────────────────────────────────────────────────────────────────

    async def _admit_in_order(self) -> None:
        """One request at a time: an Admit, a Withdraw and an Admit of one version must not overtake each other."""
        while True:
            request, link = await self._admissions.get()
            if isinstance(request, Admit):
                directory = await self._admission.admit(request)
                if link is not None:
                    link.admitted(request.version, directory)
            elif self._admission.withdraw(request):
                for other in list(self.links):
                    if isinstance(other, ReplicaLink) and other.version == request:
                        other.close()

    def _gateway_link(self) -> Any:
        return GatewayLink(self)

    def _replica_link(self, request: Admit) -> ReplicaLink:
        return ReplicaLink(self, request.version, request.owner, request.models)
