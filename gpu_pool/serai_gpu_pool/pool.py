"""The pool: the one owner of what happens on this machine's devices.

Everything here runs as plain callbacks on one loop, in the order of arrival; the decisions are the scheduler's. Events
that arrive together are acted on together: a burst of calls becomes one batch.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from serai.ipc.messages import Admit, ModelSpec
from serai.ipc.sockets import serve_unix
from serai_gpu_pool.arena import Arena
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.device.base import Workers
from serai_gpu_pool.frameworks.registry import FRAMEWORK_OF
from serai_gpu_pool.gateway_link import GatewayLink
from serai_gpu_pool.metrics import Metrics
from serai_gpu_pool.records_file import RecordsFile
from serai_gpu_pool.replica_link import ReplicaLink
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.settings import Settings
from serai_gpu_pool.version_sockets import VersionSockets
from serai_gpu_pool.view import snapshot

if TYPE_CHECKING:
    from serai_gpu_pool.links import Link

log = structlog.get_logger()

#: What was measured is written so long after something was loaded. A kill loses at most that, and it is measured again.
_SAVE_AFTER_S = 30.0


class Pool:
    """Owns the scheduler, the workers and the connections. Implements `Effects` and `WorkerEvents`."""

    def __init__(self, settings: Settings, devices: list[DeviceSpec], workers: Workers, arena: Arena) -> None:
        self.arena = arena
        self._settings = settings
        self._workers = workers
        self._records = RecordsFile(settings.home)
        self._scheduler = Scheduler(
            devices,
            settings.host_bytes,
            settings.limits,
            self,
            settings.policy,
            framework_of=FRAMEWORK_OF.__getitem__,
            recall=self._records.recall,
        )
        self._metrics = Metrics(self._scheduler)
        self._sockets = VersionSockets(settings.run / "models", self._replica_link)
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.AbstractServer | None = None
        self._admissions: asyncio.Queue[tuple[Admit | str, GatewayLink | None]] = asyncio.Queue()
        self._advancing = False  # `_advance` is on its way
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self.links: set[Link] = set()
        self.drained = asyncio.Event()  # draining, and nobody waits any more
        self._saving: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Open the socket, run until drained, then close everything."""
        self._settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._workers.begin(self)
        self._scheduler.start()
        self._server = await serve_unix(self._settings.run / "pool.sock", self._gateway_link)
        admitting = self._loop.create_task(self._admit_in_order())
        budgets = {one.id: one.ledger.budget for one in self._scheduler.devices.values()}
        log.info("pool listens", action="listen", budgets=budgets, host_bytes=self._settings.host_bytes)
        try:
            await self.drained.wait()
        finally:
            admitting.cancel()
            self._server.close()
            self._sockets.close()
            await self._workers.stop()
            self._records.save(self._scheduler.models.values())
            for link in list(self.links):
                link.close()

    # ── what connections ask for ─────────────────────────────────────────────────────────────────────────────

    def submit(self, ticket: Ticket, model: ModelSpec) -> None:
        self._scheduler.on_call(ticket, model, time.monotonic())
        self._advance_soon()

    def cancel(self, ticket: Ticket) -> None:
        self._scheduler.on_cancel(ticket)
        self._advance_soon()

    def command(self, order: Order, model: ModelSpec) -> None:
        self._scheduler.on_order(order, model, time.monotonic())
        self._advance_soon()

    def stats(self) -> bytes:
        return self._metrics.text()

    def inspect(self) -> bytes:
        return msgspec.json.encode(snapshot(self._scheduler, self._workers, time.monotonic()))

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

    # ── WorkerEvents ─────────────────────────────────────────────────────────────────────────────────────────

    def on_worker_ready(self, id: WorkerId, base_bytes: int, process_bytes: int) -> None:
        self._scheduler.on_worker_ready(id, base_bytes, process_bytes, time.monotonic())
        self._advance_soon()

    def on_start_failed(self, id: WorkerId, reason: str) -> None:
        log.error("worker not started", action="start_failed", worker=str(id), why=reason)
        self._scheduler.on_start_failed(id, reason, time.monotonic())
        self._advance_soon()

    def on_loaded(self, id: WorkerId, key: str, residence: Residence, load_s: float) -> None:
        self._scheduler.on_loaded(id, key, residence, load_s, time.monotonic())
        self._advance_soon()
        if self._saving is None:
            self._saving = self._loop.call_later(_SAVE_AFTER_S, self._save)

    def on_load_failed(self, id: WorkerId, key: str, failure: LoadFailure) -> None:
        log.warning("model not loaded", action="load_failed", model=key[-64:], kind=failure.kind, why=failure.message)
        self._scheduler.on_load_failed(id, key, failure, time.monotonic())
        self._advance_soon()

    def on_improved(self, id: WorkerId, key: str, residence: Residence | None) -> None:
        self._scheduler.on_improved(id, key, residence, time.monotonic())
        self._advance_soon()

    def on_left(self, id: WorkerId, key: str, kept_bytes: int, process_bytes: int) -> None:
        self._scheduler.on_left(id, key, kept_bytes, process_bytes, time.monotonic())
        self._advance_soon()

    def on_batch_done(
        self,
        id: WorkerId,
        batch_id: int,
        results: list[tuple[Outcome, bytes | memoryview]],
        duration_s: float,
        peak_bytes: int,
    ) -> None:
        self._scheduler.on_batch_done(id, batch_id, results, duration_s, peak_bytes, time.monotonic())
        self._advance_soon()

    def on_worker_lost(self, id: WorkerId, reason: str) -> None:
        self._scheduler.on_worker_lost(id, reason, time.monotonic())
        self._advance_soon()

    # ── Effects ──────────────────────────────────────────────────────────────────────────────────────────────

    def start_worker(self, worker: WorkerId) -> None:
        self._workers.start_worker(worker)

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        self._workers.kill_worker(worker, reason)

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        log.info("model is loaded", action="load", model=model.key[-64:], name=model.name, worker=str(worker))
        self._workers.load(worker, model)

    def page_in(self, worker: WorkerId, key: str) -> None:
        self._workers.page_in(worker, key)

    def page_out(self, worker: WorkerId, key: str) -> None:
        self._workers.page_out(worker, key)

    def close(self, worker: WorkerId, key: str) -> None:
        self._workers.close(worker, key)

    def improve(self, worker: WorkerId, key: str) -> None:
        self._workers.improve(worker, key)

    def run(self, batch: Batch) -> None:
        observe, now = self._metrics.queue_wait.observe, batch.started_at
        for ticket in batch.tickets:
            observe(now - ticket.enqueued_at)
        self._metrics.batch_size.observe(len(batch.tickets))
        self._workers.run(batch)

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
        now = time.monotonic()
        try:
            for order, end in self._scheduler.advance(now):
                order.link.settled(order.id, end)
        finally:  # a mistake of ours must not stop the clock, or nobody's deadline passes any more
            self._set_timer(now)
        if self._scheduler.draining and not self._scheduler.num_live:
            self._scheduler.check_integrity()
            self.drained.set()

    def _set_timer(self, now: float) -> None:
        """Wake up when the scheduler has to, not before. A timer that is early enough already is left alone."""
        due = self._scheduler.next_wakeup(now)
        if due is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - now), self._on_timer)

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
                directory = await self._sockets.admit(request)
                if link is not None:
                    link.admitted(request.version, directory)
            elif self._sockets.withdraw(request):
                for other in list(self.links):
                    if isinstance(other, ReplicaLink) and other.version == request:
                        other.close()

    def _save(self) -> None:
        self._saving = None
        self._records.save(self._scheduler.models.values())

    def _gateway_link(self) -> Any:
        return GatewayLink(self)

    def _replica_link(self, request: Admit) -> ReplicaLink:
        return ReplicaLink(self, request.version, request.owner, request.models)
