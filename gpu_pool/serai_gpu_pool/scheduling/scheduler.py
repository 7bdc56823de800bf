"""The pool's decisions: who is refused, who waits, what runs next, what is loaded for it. Pure.

Every method is an event with the time at which it happened. The way out is `Effects`, nothing else. See design.md.
"""

from collections.abc import Callable

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.core import Batch, Counts, End, LoadFailure, ModelSpec, Outcome, Ticket
from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.scheduling import admission, batches, believable, losses, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.commands import Order, Orders
from serai_gpu_pool.scheduling.copies import Copy, Place, Residence, WorkerId
from serai_gpu_pool.scheduling.devices import Device, DeviceSpec
from serai_gpu_pool.scheduling.dispatch import Dispatch
from serai_gpu_pool.scheduling.effects import Effects, Result
from serai_gpu_pool.scheduling.foresight import Foresight
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.known import Known
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.places import Places
from serai_gpu_pool.scheduling.records import Record
from serai_gpu_pool.scheduling.strikes import Strikes
from serai_gpu_pool.scheduling.workers import Worker, WorkerState
from serai_gpu_pool.settings import Limits


class Scheduler:
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
        self.counts = Counts()
        self.host = HostTier(host_bytes)
        self.policy = policy
        self.devices = {
            one.id: Device(one, self.host, limits, effects, POLICIES[policy](), self.counts) for one in devices
        }
        self.draining = False
        self._known = Known(self.devices, limits.max_queued, framework_of, recall)
        self._places = Places(self.devices, limits)
        self._calls = Calls(self._known.models, effects, self.counts, self._places.emptied)
        self._limits = limits
        self._strikes = Strikes()
        self._orders = Orders(self.devices)
        self._dispatch = Dispatch(self.devices, self._calls, self.counts, limits, effects)
        self._foresight = Foresight()

    @property
    def models(self) -> dict[str, Model]:
        """By key, for reading."""
        return self._known.models

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

    def _cost_s(self, model: Model) -> float:
        """Device seconds that one more call of this model is thought to take."""
        device = next(iter(model.times), None) or next(iter(self.devices))
        return model.times_on(device).per_item(min(len(model.queue) + 1, self._limits.batch.max_items))

    def _run_again(self, model: Model, tickets: list[Ticket], now: float) -> None:
        self._calls.wait_again(model, tickets, self._cost_s(model))
        self._places.find(model, now)

    # ── what devices report; what nobody asked for is dropped ────────────────────────────────────────────────

    def on_worker_ready(self, id: WorkerId, base_bytes: int, process_bytes: int, now: float) -> None:
        """base_bytes: what the runtime takes of the device; process_bytes: what its process has in RAM."""
        device = self.devices[id.device]
        worker = device.staff.worker(id)
        if worker.state is WorkerState.STARTING:
            device.staff.started(worker, base_bytes, process_bytes, now)
            self.counts.worker_starts += 1
            self._places.look_again(worker, now)

    def on_start_failed(self, id: WorkerId, reason: str, now: float) -> None:
        """It could not be started. After several times whoever waits for it is told."""
        device = self.devices[id.device]
        worker = device.staff.worker(id)
        if device.staff.start_failed(worker, reason, now):
            for copy in worker.copies.values():
                self._calls.refuse_all(copy.model, refusals.no_worker(reason))
        self._places.look_again(worker, now)

    def on_loaded(self, id: WorkerId, key: str, residence: Residence, load_s: float, now: float) -> None:
        device, copy = self._loading(id, key)
        if device is None or copy is None:
            return
        device.loaded(copy, residence, load_s, now)
        if copy.place is Place.RESIDENT:
            self._places.find(copy.model, now)
        else:
            self._calls.refuse_all(copy.model, refusals.too_large(copy.model, device.ledger.budget))

    def on_load_failed(self, id: WorkerId, key: str, failure: LoadFailure, now: float) -> None:
        """Its callers are told why, and so are later ones until it is worth another try. Out of memory is tried once
        more with more room."""
        device, copy = self._loading(id, key)
        if device is None or copy is None:
            return
        model = copy.model
        device.load_failed(copy)
        self.counts.load_failures += 1
        if failure.kind == "memory":
            self._count_out_of_memory("load")
            most = device.most_for(model)
            more = model.bytes_to_reserve(most)
            model.load_tries += 1
            if model.load_tries == 1 and model.bytes_to_reserve(most) > more:
                self._places.find(model, now)
                return
            model.load_tries = 0
        model.verdict = refusals.not_loaded(failure, model.verdict, self._limits, now)
        self._calls.refuse_all(model, model.verdict.end)
        self._places.find(model, now)

    def on_improved(self, id: WorkerId, key: str, residence: Residence | None, now: float) -> None:
        device = self.devices[id.device]
        copy = device.staff.worker(id).improving
        if copy is None or copy.key != key:
            self.counts.ignored_messages += 1
        else:
            device.improved(copy, residence, now)

    def on_left(self, id: WorkerId, key: str, kept_bytes: int, process_bytes: int, now: float) -> None:
        """It was paged out or closed: the bytes are free again."""
        device = self.devices[id.device]
        copy = device.copies.get(key)
        if copy is None or copy.place is not Place.LEAVING or copy.worker != id:
            self.counts.ignored_messages += 1
            return
        device.left(copy, kept_bytes, process_bytes, now)
        for other in self.host.surplus(lambda one: not len(one.model.queue)):
            self.devices[other.worker.device].close_from_host(other, now)
        self._places.find(copy.model, now)

    def on_batch_done(
        self,
        id: WorkerId,
        batch_id: int,
        results: list[tuple[Outcome, Result]],
        duration_s: float,
        peak_bytes: int,
        now: float,
    ) -> None:
        """A batch came back: one result for each ticket, in their order. peak_bytes: beside the weights, 0 if
        unknown.
        """
        device = self.devices[id.device]
        worker = device.staff.worker(id)
        batch = worker.batches.get(batch_id)
        if batch is None or len(results) != len(batch.tickets):
            self.counts.ignored_messages += 1
            if batch is not None and worker.is_up:  # then nothing that it says can be trusted
                device.staff.end(worker, "the worker answered a batch with the wrong number of results")
            return
        model = self.models[batch.model]
        duration_s = believable.seconds(duration_s, id, now - batch.started_at, self._limits.run_timeout_s)
        self._dispatch.take_back(device, worker, batch, now)
        batches.learn(model, device.id, batch, duration_s, peak_bytes)
        if batch.is_disowned:
            return
        share_s = duration_s / len(results)
        for ticket, (outcome, payload) in zip(batch.tickets, results, strict=True):
            self._calls.turns.correct(ticket.payer, share_s - batch.charged_s)
            self._calls.came_back(ticket)
            if ticket.done:
                continue
            if outcome.kind == "OutOfMemoryError" and not ticket.out_of_memory:
                self._again_with_more(ticket, model, batch, now)
            elif outcome.kind == "no_room" and not ticket.alone:
                ticket.alone = True
                self._run_again(model, [ticket], now)
            else:
                self._calls.finish(ticket, outcome, payload, share_s, duration_s)

    def _again_with_more(self, ticket: Ticket, model: Model, batch: Batch, now: float) -> None:
        """It ran out of memory: once more by itself, with more set aside for it; others go for that."""
        self._count_out_of_memory("run")
        model.needed_more(1, batch.activation_bytes)
        ticket.out_of_memory = ticket.alone = True
        self._run_again(model, [ticket], now)

    def _count_out_of_memory(self, where: str) -> None:
        self.counts.out_of_memory[where] = self.counts.out_of_memory.get(where, 0) + 1

    def on_worker_lost(self, id: WorkerId, reason: str, now: float) -> None:
        """The worker's process has ended, and with it everything that it held. See losses.py for whose fault it was."""
        device = self.devices[id.device]
        worker = device.staff.worker(id)
        was_asked = worker.state is WorkerState.ENDING and worker.hung is None
        findings = losses.investigate(worker, list(worker.batches.values()))
        end = refusals.hung(reason) if worker.hung is not None else refusals.crashed(reason)
        for batch in device.lost(worker):
            if not batch.is_disowned:
                self._dispatch.uncharge(batch)
                for ticket in batch.tickets:
                    self._calls.came_back(ticket)
        worker.hung = None
        self.counts.worker_losses += 1
        for payer, seconds in findings.wasted(now):
            self._calls.turns.correct(payer, seconds)
        for ticket in findings.failed:
            self._calls.refuse(ticket, end)
        if not was_asked:
            for key, owner in findings.guilty:
                for payer in findings.payers_of(key, owner):
                    self._strike(self.models[key], owner, payer, reason, now)
        for ticket in reversed(findings.again):
            self._try_again(ticket, now)
        self._places.look_again(worker, now)
        for copy in worker.copies.values():
            self._places.find(copy.model, now)
        if not id.owner and not self.draining and worker.base_bytes <= device.ledger.free:
            device.staff.start(worker)

    def _try_again(self, ticket: Ticket, now: float) -> None:
        self.counts.retried += 1
        model = self.models[ticket.model]
        verdict = model.held_against(ticket, now)
        if verdict is not None:
            self._calls.refuse(ticket, verdict.end)
        else:
            self._run_again(model, [ticket], now)

    def _strike(self, model: Model, owner: str, payer: str, reason: str, now: float) -> None:
        """What one caller sends locks out that caller; the author's own calls, or a second caller's, lock out all."""
        if not self._strikes.add((model.key, owner, payer), now):
            return
        verdict = refusals.locked_out(reason, now)
        if not owner:
            model.verdict = verdict
        elif payer == owner or model.is_locked_for_others(owner, payer, now):
            model.verdicts[owner, ""] = verdict
        else:
            model.verdicts[owner, payer] = verdict
            self._calls.refuse_all(model, verdict.end, owner, payer)
            return
        self._calls.refuse_all(model, verdict.end, owner or None)

    def _loading(self, id: WorkerId, key: str) -> tuple[Device | None, Copy | None]:
        device = self.devices[id.device]
        copy = device.staff.worker(id).loading.get(key)
        if copy is None or copy.place is not Place.LOADING:
            self.counts.ignored_messages += 1
            return None, None
        return device, copy

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
