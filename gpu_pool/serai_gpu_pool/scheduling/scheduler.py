"""The pool's decisions: who is refused, who waits, what runs next, what is loaded for it. Pure.

Every method is an event with the time at which it happened. The way out is `Effects`, nothing else. See design.md.
"""

from collections.abc import Callable

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.core import Batch, Counts, End, ModelSpec, Ticket
from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.scheduling import admission, batches, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.commands import Order, Orders
from serai_gpu_pool.scheduling.copies import WorkerId
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.dispatch import Dispatch
from serai_gpu_pool.scheduling.effects import Effects
from serai_gpu_pool.scheduling.foresight import Foresight
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.known import Known
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.places import Places
from serai_gpu_pool.scheduling.records import Record
from serai_gpu_pool.scheduling.reports import Reports
from serai_gpu_pool.scheduling.workers import Worker
from serai_gpu_pool.settings import Limits


class Scheduler(Reports):
    """All devices of one machine: their memory, their queues, their batches.

    Args:
        framework_of: the framework that runs a format ("onnx" for "onnx").
        recall: what was measured of a model before, or None.
    """

    def __init__(
        self,
        devices: list[DeviceSpec],
        host_bytes: int,
        limits: Limits,
        effects: Effects,
        policy: str = DEFAULT_POLICY,
        framework_of: Callable[[ModelFormat], str] = str,
        recall: Callable[[ModelSpec], Record | None] = lambda _: None,
    ) -> None:
        counts = Counts()
        host = HostTier(host_bytes)
        pins: set[str] = set()
        by_id = {one.id: Device(one, host, limits, effects, POLICIES[policy](), counts, pins) for one in devices}
        places = Places(by_id, limits)
        self._known = Known(by_id, limits.max_queued, framework_of, recall, pins)
        calls = Calls(self._known.models, effects, counts, places.emptied)
        dispatch = Dispatch(by_id, calls, counts, limits, effects)
        super().__init__(by_id, host, self._known.models, calls, places, dispatch, counts, limits)
        self.policy = policy
        self._orders = Orders(by_id)
        self._foresight = Foresight()

    @property
    def num_live(self) -> int:
        """Tickets that wait or run."""
        return self._calls.deadlines.num_live

    @property
    def queued_bytes(self) -> int:
        return self._calls.queued_bytes

    @property
    def backlog_s(self) -> float:
        """Device seconds that wait, as far as anybody knows."""
        return self._calls.turns.total_backlog_s

    def start(self) -> None:
        """Start the workers that everybody shares; those of single owners are started when they are needed."""
        for device in self.devices.values():
            if "onnx" in device.spec.frameworks:
                device.staff.start(device.staff.worker(WorkerId(device.id, "onnx")))

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_call(self, ticket: Ticket, spec: ModelSpec, now: float) -> None:
        """A call arrived: queue it or refuse it. See admission.py for why."""
        model = self._known.get(spec, now)
        is_usable = self._is_usable(model)
        end = refusals.DRAINING if self.draining else self._objection(ticket, model, is_usable, now)
        if end is not None:
            self._calls.refuse(ticket, end)
            return
        displaced = model.queue.displaced_by(ticket.payer) if model.queue.is_full else None
        if displaced is not None:
            self._calls.refuse(displaced, refusals.displaced(model))
        self._calls.arrived(ticket, now)
        self._calls.wait(model, ticket, self._cost_s(model))
        self._places.find(model, now)
        if self._limits.foresees:
            self._foresight.called(model, now)
        model.called(now)
        if is_usable:
            self.counts.hits += 1
            model.stats.hits += 1
        else:
            self.counts.misses += 1

    def on_cancel(self, ticket: Ticket) -> None:
        self._calls.cancel(ticket)

    def on_order(self, order: Order, spec: ModelSpec, now: float) -> None:
        """An operator wants something of a model."""
        model = self._known.get(spec, now)
        self._orders.add(order, model, now)
        self._places.find(model, now)

    def on_drain(self) -> None:
        self.draining = True

    def _load_foreseen(self, now: float) -> None:
        """Models that are about to be called are loaded where there is room for them."""
        for model in self._foresight.due(self.models, now):
            if not self._is_usable(model):
                model.wanted_until = max(model.wanted_until, now + 2 * model.lead_s)
                self.counts.foreseen += 1
                self._places.find(model, now)

    def _is_usable(self, model: Model) -> bool:
        """Is it in memory somewhere?"""
        for device in self.devices.values():
            copy = device.copies.get(model.key)
            if copy is not None and copy.takes_batches:
                return True
        return False

    def _objection(self, ticket: Ticket, model: Model, is_usable: bool, now: float) -> End | None:
        return admission.objection(ticket, model, is_usable, self.devices.values(), self._calls, self._limits, now)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def next_wakeup(self, now: float) -> float | None:
        """When `on_time` and `advance` have to be called although nothing happened."""
        times = [self._calls.deadlines.next(), *self._places.moments(), *self._orders.moments()]
        times.append(self._foresight.next_due())
        for device in self.devices.values():
            times += [device.room_at, *batches.moments(device, self._limits, now)]
        return min((time for time in times if time is not None and time < float("inf")), default=None)

    def on_time(self, now: float) -> None:
        """Tell those whose deadline has passed, notice what is late, and end a worker that is stuck or idle."""
        for ticket in self._calls.deadlines.due(now):
            self._calls.refuse(ticket, refusals.EXPIRED)
        self._places.on_time(now)
        self._load_foreseen(now)
        for device in self.devices.values():
            for worker in device.workers.values():
                if worker.is_up:
                    self._watch(device, worker, now)
                elif worker.waiting and not worker.has_to_wait(now):
                    self._places.look_again(worker, now)

    def _watch(self, device: Device, worker: Worker, now: float) -> None:
        stuck = batches.stuck(worker, self._limits, now)
        if stuck is not None:
            key, reason = stuck
            worker.hung = device.copies[key]
            device.staff.end(worker, reason)
        elif worker.id.owner and worker.is_idle and now >= worker.idle_since + self._limits.worker_idle_s:
            device.staff.end(worker, "idle")
        else:
            for late in batches.mark_late(worker, self._limits, now):
                self.counts.late_batches += 1
                for batch in batches.disown(worker, late):
                    self._run_elsewhere(batch, now)

    def _run_elsewhere(self, batch: Batch, now: float) -> None:
        """It waits behind one that does not end: its tickets go back to the front of their queue."""
        self._dispatch.uncharge(batch)
        tickets = [ticket for ticket in batch.tickets if not ticket.done]
        if tickets:
            self._run_again(self.models[batch.model], tickets, now)

    # ── making it so ─────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: float) -> list[tuple[Order, End | None]]:
        """Give the devices all the work that they can take now. Called once after each bunch of events.

        Returns orders that are settled, with why they could not be carried out, or None.
        """
        settled = self._orders.settle(now)  # before what was unloaded is loaded again for those who wait
        for device in self.devices.values():
            device.room_at = None
            device.staff.tidy(self._places.wanted)
            if device.ledger.free < 0:
                device.shrink(now)
        self._places.load_wanted(self._calls, now)
        self._dispatch.start_batches(now)
        return settled

    def check_integrity(self) -> None:
        """Recount everything; for idle moments and tests."""
        self.host.check_integrity()
        for device in self.devices.values():
            device.check_integrity()
