"""The pool's decisions: who is refused, who waits, what runs next, what is loaded for it. Pure.

Every method is an event with the time at which it happened. The way out is `Effects`, nothing else. See design.md.
"""

from collections.abc import Callable, Iterable

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.core import Batch, Counts, End, LoadFailure, ModelSpec, Outcome, Refused, Ticket
from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.scheduling import batches, commands, losses, placement, refusals
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.scheduling.copies import Copy, Place, Residence, WorkerId
from serai_gpu_pool.scheduling.deadlines import Deadlines
from serai_gpu_pool.scheduling.devices import Device, DeviceSpec, Start, all_copies, batch_name, worker_owner
from serai_gpu_pool.scheduling.effects import Effects, Result
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.records import Record
from serai_gpu_pool.scheduling.strikes import Strikes
from serai_gpu_pool.scheduling.turns import Turns
from serai_gpu_pool.scheduling.wanted import Wanted
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
        self.models: dict[str, Model] = {}
        self.turns = Turns()
        self.draining = False
        self.queued_bytes = 0
        self._limits = limits
        self._effects = effects
        self._framework_of = framework_of
        self._recall = recall
        self._strikes = Strikes()
        self._deadlines = Deadlines()
        self._wanted = Wanted()  # models with calls or orders and no copy to run them
        self._later: dict[str, Model] = {}  # that operators want, and that could not be loaded lately
        self._largest_budget = max(one.budget_bytes for one in devices)
        self._orders: list[Order] = []
        self._settled: list[tuple[Order, End | None]] = []
        self._last_batch = 0

    @property
    def num_live(self) -> int:
        """Tickets that wait or run."""
        return self._deadlines.num_live

    def start(self) -> None:
        """Start the workers that everybody shares; those of single owners are started when they are needed."""
        for device in self.devices.values():
            if "onnx" in device.spec.frameworks:
                device.start(device.worker(WorkerId(device.id, "onnx")))

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_call(self, ticket: Ticket, spec: ModelSpec, now: float) -> None:
        """A call arrived: queue it or refuse it.

        (1) we are stopping  (2) its deadline has passed  (3) something is held against its model  (4) which no device
        can run or hold  (5) too many wait  (6) it would wait past its deadline. Otherwise it waits.
        """
        model = self._model(spec)
        is_usable = self._is_usable(model)
        end = self._objection(ticket, model, is_usable, now)
        if end is not None:
            self._refuse(ticket, end)
            return
        self._deadlines.add(ticket)
        ticket.enqueued_at = now
        self._queue(model, [ticket], now)
        if is_usable:
            self.counts.hits += 1
            model.stats.hits += 1
        else:
            self.counts.misses += 1

    def on_cancel(self, ticket: Ticket) -> None:
        """Its caller has gone. It ends here: nothing is sent to anybody."""
        if not ticket.done:
            self._unqueue(ticket)
            self._end(ticket)
            self.counts.outcomes["cancelled"] = self.counts.outcomes.get("cancelled", 0) + 1

    def on_order(self, order: Order, spec: ModelSpec, now: float) -> None:
        """An operator wants something of a model."""
        model = self._model(spec)
        commands.begin(order, model, now)
        self._orders.append(order)
        self._find_place(model, now)

    def on_drain(self) -> None:
        self.draining = True

    def _model(self, spec: ModelSpec) -> Model:
        model = self.models.get(spec.key)
        if model is None:
            model = self.models[spec.key] = Model(spec, self._framework_of(spec.format), self._limits.max_queued)
            record = self._recall(spec)
            if record is not None:
                record.apply(model, self.devices)
        return model

    def _is_usable(self, model: Model) -> bool:
        """Is it in memory somewhere?"""
        for device in self.devices.values():
            copy = device.copies.get(model.key)
            if copy is not None and copy.takes_batches:
                return True
        return False

    def _objection(self, ticket: Ticket, model: Model, is_usable: bool, now: float) -> End | None:
        if self.draining:  # (1)
            return refusals.DRAINING
        if not ticket.deadline > now:  # (2)
            return refusals.EXPIRED_ON_ARRIVAL
        verdict = model.held_against(ticket, now)
        if verdict is not None:  # (3)
            end = verdict.end
            return (
                Refused(end.code, end.message, end.retriable, verdict.until - now) if isinstance(end, Refused) else end
            )
        if not is_usable and (end := self._no_device(model, now)) is not None:  # (4)
            return end
        if model.queue.is_full:  # (5)
            return refusals.queue_full(model, self._wait_s(ticket, model, now))
        if self.queued_bytes + len(ticket.payload) > self._limits.max_queued_bytes:
            return refusals.input_full(self.queued_bytes, self._limits.max_queued_bytes, self.turns.total_backlog_s)
        if not self._deadlines.num_live:
            return None  # nothing to wait for: an estimate that is wrong is put right by trying
        wait_s = self._wait_s(ticket, model, now)
        return refusals.too_late(wait_s) if now + wait_s > ticket.deadline else None  # (6)

    def _no_device(self, model: Model, now: float) -> End | None:
        able = [one for one in self.devices.values() if model.framework in one.spec.frameworks]
        if not able:
            return refusals.no_framework(model)
        if all(model.least_bytes > one.most_for(model) for one in able):
            return refusals.too_large(model, max(one.ledger.budget for one in able))
        workers = [one.worker_for(model) for one in able]
        if all(worker.error and now < worker.retry_at for worker in workers):
            return refusals.no_worker(workers[0].error)
        return None

    def _wait_s(self, ticket: Ticket, model: Model, now: float) -> float:
        """How long it would take until this ticket has its answer, as far as anybody can tell."""
        copies = all_copies(self.devices.values(), model.key)
        device, copy = next(((one, copy) for one, copy in copies if copy.takes_batches), (None, None))
        load_s = 0.0
        if copy is None:
            tier = "host" if any(one.place is Place.HOST for _, one in copies) else "disk"
            load_s = model.load_s.get(tier, 0.0)
            device = next(iter(self.devices.values()))
        assert device is not None, "a pool has a device"
        runs_s = batches.remaining_s(device, now) + self.turns.ahead_s(ticket.payer, ticket.cost_s) / len(self.devices)
        return max(load_s, runs_s) + model.times_on(device.id).predict(1)

    def _queue(self, model: Model, tickets: list[Ticket], now: float, again: bool = False) -> None:
        times = model.times_on(self._device_for_times(model))
        for ticket in tickets:
            ticket.cost_s = times.per_item(min(len(model.queue) + 1, self._limits.batch.max_items))
            self.turns.joined(ticket.payer, ticket.cost_s)
            self.queued_bytes += len(ticket.payload)
            if not again:
                model.queue.push(ticket)
        if again:
            model.queue.push_back(tickets)
        self._find_place(model, now)

    def _device_for_times(self, model: Model) -> str:
        return next(iter(model.times), None) or next(iter(self.devices))

    # ── what devices report; what nobody asked for is dropped ────────────────────────────────────────────────

    def on_worker_ready(self, id: WorkerId, base_bytes: int, process_bytes: int, now: float) -> None:
        """base_bytes: what the runtime takes of the device; process_bytes: what its process has in RAM."""
        device = self.devices[id.device]
        worker = device.worker(id)
        if worker.state is WorkerState.STARTING:
            device.started(worker, base_bytes, process_bytes, now)
            self.counts.worker_starts += 1
            self._look_again(worker, now)

    def on_start_failed(self, id: WorkerId, reason: str, now: float) -> None:
        """It could not be started. After several times whoever waits for it is told."""
        device = self.devices[id.device]
        worker = device.worker(id)
        if device.start_failed(worker, reason, now):
            for copy in worker.copies.values():
                self._refuse_queue(copy.model, refusals.no_worker(reason))
        self._look_again(worker, now)

    def on_loaded(self, id: WorkerId, key: str, residence: Residence, load_s: float, now: float) -> None:
        device, copy = self._loading(id, key)
        if device is None or copy is None:
            return
        device.loaded(copy, residence, load_s, now)
        if copy.place is Place.RESIDENT:
            self._find_place(copy.model, now)
        else:
            self._refuse_queue(copy.model, refusals.too_large(copy.model, device.ledger.budget))

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
                self._find_place(model, now)
                return
            model.load_tries = 0
        model.verdict = refusals.not_loaded(failure, model.verdict, self._limits, now)
        self._refuse_queue(model, model.verdict.end)
        self._find_place(model, now)

    def on_improved(self, id: WorkerId, key: str, residence: Residence | None, now: float) -> None:
        device = self.devices[id.device]
        copy = device.worker(id).improving
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
        self._find_place(copy.model, now)

    def on_batch_done(
        self,
        id: WorkerId,
        batch_id: int,
        results: list[tuple[Outcome, Result]],
        duration_s: float,
        peak_bytes: int,
        now: float,
    ) -> None:
        """A batch came back: one result for each ticket, in their order. peak_bytes: beside the weights, 0 if unknown."""
        device = self.devices[id.device]
        worker = device.worker(id)
        batch = worker.batches.get(batch_id)
        if batch is None or len(results) != len(batch.tickets):
            self.counts.ignored_messages += 1
            if batch is not None and worker.is_up:  # then nothing that it says can be trusted
                device.end(worker, "the worker answered a batch with the wrong number of results")
            return
        model = self.models[batch.model]
        self._take_back(device, worker, batch, now)
        batches.learn(model, device.id, batch, duration_s, peak_bytes)
        if batch.is_disowned:
            return
        share_s = duration_s / len(results)
        for ticket, (outcome, payload) in zip(batch.tickets, results, strict=True):
            self.turns.charge(ticket.payer, share_s)
            ticket.running = False
            if ticket.done:
                ticket.payload = b""
            elif outcome.kind == "OutOfMemoryError" and not ticket.out_of_memory:
                self._again_with_more(ticket, model, batch, now)
            else:
                self._finish(ticket, model, outcome, payload, share_s, batch)

    def _take_back(self, device: Device, worker: Worker, batch: Batch, now: float) -> None:
        """The batch has ended: what it held is free, what waited behind it has begun."""
        del worker.batches[batch.id], device.running[batch.id]
        device.ledger.release(batch_name(batch))
        worker.idle_since = now
        for following in worker.batches.values():
            if following.lane == batch.lane:
                following.started_at = now
                break
        device.unlease(device.copies[batch.model], now)

    def _finish(
        self, ticket: Ticket, model: Model, outcome: Outcome, payload: Result, share_s: float, batch: Batch
    ) -> None:
        ticket.payload = b""
        self._end(ticket)
        stats = model.stats
        if outcome.kind == "ok":
            stats.succeeded += 1
        else:
            stats.failed += 1
        stats.compute_s += share_s
        self.counts.outcomes[outcome.kind] = self.counts.outcomes.get(outcome.kind, 0) + 1
        self._effects.finish(ticket, outcome, payload, share_s * len(batch.tickets))

    def _again_with_more(self, ticket: Ticket, model: Model, batch: Batch, now: float) -> None:
        """It ran out of memory: once more by itself, with more set aside for it; others go for that."""
        self._count_out_of_memory("run")
        model.needed_more(1, batch.activation_bytes)
        ticket.out_of_memory = ticket.alone = True
        self._queue(model, [ticket], now, again=True)

    def _count_out_of_memory(self, where: str) -> None:
        self.counts.out_of_memory[where] = self.counts.out_of_memory.get(where, 0) + 1

    def on_worker_lost(self, id: WorkerId, reason: str, now: float) -> None:
        """The worker's process has ended, and with it everything that it held. See losses.py for whose fault it was."""
        device = self.devices[id.device]
        worker = device.worker(id)
        was_asked = worker.state is WorkerState.ENDING and worker.hung is None
        findings = losses.investigate(worker, list(worker.batches.values()))
        hung = worker.hung
        for batch in device.lost(worker):
            for ticket in batch.tickets if not batch.is_disowned else ():
                ticket.running = False
                if ticket.done:
                    ticket.payload = b""
        worker.hung = None
        self.counts.worker_losses += 1
        for ticket in findings.failed:
            self._refuse(ticket, refusals.hung(reason) if hung else refusals.crashed(reason))
        if not was_asked:
            for key, owner in findings.guilty:
                self._strike(self.models[key], owner, reason, now)
        for ticket in reversed(findings.again):
            self.counts.retried += 1
            model = self.models[ticket.model]
            verdict = model.held_against(ticket, now)
            if verdict is not None:
                self._refuse(ticket, verdict.end)
            else:
                self._queue(model, [ticket], now, again=True)
        self._look_again(worker, now)
        for copy in worker.copies.values():
            self._find_place(copy.model, now)
        if not id.owner and not self.draining and worker.base_bytes <= device.ledger.free:
            device.start(worker)

    def _strike(self, model: Model, owner: str, reason: str, now: float) -> None:
        if not self._strikes.add((model.key, owner), now):
            return
        verdict = refusals.locked_out(reason, now)
        if owner:
            model.verdicts[owner] = verdict
        else:
            model.verdict = verdict
        self._refuse_queue(model, verdict.end, owner or None)

    def _loading(self, id: WorkerId, key: str) -> tuple[Device | None, Copy | None]:
        device = self.devices[id.device]
        copy = device.worker(id).loading.get(key)
        if copy is None or copy.place is not Place.LOADING:
            self.counts.ignored_messages += 1
            return None, None
        return device, copy

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def next_wakeup(self, now: float) -> float | None:
        """When `on_time` and `advance` have to be called although nothing happened."""
        times = [self._deadlines.next(), *(order.deadline for order in self._orders)]
        times += [model.verdict.until for model in self._later.values() if model.verdict is not None]
        for device in self.devices.values():
            times += [device.room_at, *batches.moments(device, self._limits, now)]
        return min((time for time in times if time is not None and time < float("inf")), default=None)

    def on_time(self, now: float) -> None:
        """Tell those whose deadline has passed, notice what is late, and end a worker that is stuck or idle."""
        for ticket in self._deadlines.due(now):
            self._unqueue(ticket)
            self._refuse(ticket, refusals.EXPIRED)
        for model in [one for one in self._later.values() if not one.is_held_back(now)]:
            del self._later[model.key]
            self._find_place(model, now)
        for device in self.devices.values():
            for worker in device.workers.values():
                if worker.is_up:
                    self._watch(device, worker, now)
                elif worker.waiting and not worker.has_to_wait(now):
                    self._look_again(worker, now)

    def _watch(self, device: Device, worker: Worker, now: float) -> None:
        stuck = batches.stuck(worker, self._limits, now)
        if stuck is not None:
            key, reason = stuck
            worker.hung = device.copies[key]
            device.end(worker, reason)
        elif worker.id.owner and worker.is_idle and now >= worker.idle_since + self._limits.worker_idle_s:
            device.end(worker, "idle")
        else:
            for late in batches.mark_late(worker, self._limits, now):
                self.counts.late_batches += 1
                for batch in batches.disown(worker, late):
                    self._run_elsewhere(batch, now)

    def _run_elsewhere(self, batch: Batch, now: float) -> None:
        """It waits behind one that does not end: its tickets go back to the front of their queue."""
        tickets = [ticket for ticket in batch.tickets if not ticket.done]
        for ticket in tickets:
            ticket.running = False
        if tickets:
            self._queue(self.models[batch.model], tickets, now, again=True)

    # ── making it so ─────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: float) -> list[tuple[Order, End | None]]:
        """Give the devices all the work that they can take now. Called once after each bunch of events.

        Returns orders that are settled, with why they could not be carried out, or None.
        """
        if self._orders:
            self._settle_orders(now)  # before what was unloaded is loaded again for those who wait
        for device in self.devices.values():
            device.room_at = None
            device.tidy_workers(self._wanted)
            if device.ledger.free < 0:
                device.shrink(now)
        self._load_wanted(now)
        for device in self.devices.values():
            while self._start_batch(device, now):
                pass
        settled, self._settled = self._settled, []
        return settled

    def _load_wanted(self, now: float) -> None:
        """Begin loads. A model that is next and has waited long enough for room holds up those after it, which would
        take what is made free for it."""
        busy = {device.id for device in self.devices.values() if device.improvable and device.try_improve(now)}
        if not self._wanted:
            return
        for model in self._in_order(self._wanted.first()):
            if not len(model.queue) and not model.pinned and now >= model.wanted_until:
                self._wanted.discard(model.key)
                continue
            device = placement.choose(self.devices.values(), model, self._limits.placement)
            if device is None:
                self._refuse_queue(model, refusals.too_large(model, self._largest_budget))
                self._wanted.discard(model.key)
                continue
            copy = device.copy_of(model)
            if device.id in busy or copy.place not in (Place.DISK, Place.HOST):
                continue
            start = device.try_load(copy, now)
            worker = device.workers[copy.worker]
            if start is Start.BEGUN:
                self._wanted.discard(model.key)
            elif start is Start.NO_ROOM:
                if now >= model.waiting_since + self._limits.patience_s and device.expects_room():
                    busy.add(device.id)
            elif worker.has_to_wait(now):
                self._wanted.discard(model.key)
                worker.waiting[model.key] = model

    def _look_again(self, worker: Worker, now: float) -> None:
        """Something has changed for those who wait for this worker."""
        waiting, worker.waiting = worker.waiting, {}
        for model in waiting.values():
            self._find_place(model, now)

    def _in_order(self, models: Iterable[Model]) -> list[Model]:
        """Those with calls before those that are only asked for, by whose turn it is."""
        last = (float("inf"), 0, 0.0)
        return sorted(models, key=lambda one: one.queue.rank(self.turns) if len(one.queue) else last)

    def _start_batch(self, device: Device, now: float) -> bool:
        """Give the device the batch whose turn it is, if it can take one. Whether another try makes sense."""
        opening = batches.opening(device, self._limits, now)
        if opening is None:
            return False
        for copy in self._by_turn(device):
            if not batches.may_run(copy, device, self._limits, now):
                continue
            if opening.behind is not None and opening.behind.worker != copy.worker:
                return False  # it is next, but cannot wait inside of another worker
            size, activation = batches.size(copy, device, self._limits)
            if activation <= max(device.ledger.free, 0):
                self._take_and_run(device, copy, size, opening, now)
                return True
            device.make_room(activation - device.ledger.free, copy.model, now)
        return False

    def _by_turn(self, device: Device) -> list[Copy]:
        if len(device.ready) == 1:
            return list(device.ready.values())
        return sorted(device.ready.values(), key=lambda one: one.model.queue.rank(self.turns))

    def _take_and_run(self, device: Device, copy: Copy, size: int, opening: batches.Opening, now: float) -> None:
        model = copy.model
        tickets = model.queue.take(size, self._limits.batch.max_bytes, self.turns)
        for ticket in tickets:
            self.turns.left(ticket.payer, ticket.cost_s)
            self.queued_bytes -= len(ticket.payload)
        tickets = self._in_time(tickets, model, device, now)
        if not len(model.queue):
            self._forget_place(model)
        if tickets:
            self._run(device, copy, tickets, opening, now)

    def _run(self, device: Device, copy: Copy, tickets: list[Ticket], opening: batches.Opening, now: float) -> None:
        model = copy.model
        self._last_batch += 1
        batch = batches.make(self._last_batch, device, copy, tickets, opening, now)
        device.ledger.reserve(batch_name(batch), batch.activation_bytes)
        for ticket in tickets:
            ticket.running = True
            model.stats.queue_s += now - ticket.enqueued_at
        device.workers[copy.worker].batches[batch.id] = device.running[batch.id] = batch
        device.lease(copy, now)
        model.last_used = now
        self.counts.batches += 1
        self.counts.items += len(tickets)
        self._effects.run(batch)
        elsewhere = len(self.devices) > 1 and self._backlog_s(model, device) > self._limits.replicate_s
        if elsewhere and (other := placement.second_home(self.devices.values(), model)) is not None:
            other.try_load(other.copy_of(model), now)

    def _backlog_s(self, model: Model, device: Device) -> float:
        waiting = len(model.queue)
        return (
            waiting * model.times_on(device.id).per_item(min(waiting, self._limits.batch.max_items)) if waiting else 0.0
        )

    def _in_time(self, tickets: list[Ticket], model: Model, device: Device, now: float) -> list[Ticket]:
        """Without those that would miss their deadline even now. When nobody is left, the one with the most time runs all
        the same: an estimate that is wrong is only put right by trying."""
        soonest = now + model.times_on(device.id).predict(len(tickets))
        kept = [ticket for ticket in tickets if ticket.deadline >= soonest]
        if not kept and not len(model.queue):
            kept = [max(tickets, key=lambda one: one.deadline)]
        for ticket in tickets:
            if ticket not in kept:
                self._refuse(ticket, refusals.HOPELESS)
        return kept

    def _settle_orders(self, now: float) -> None:
        waiting = []
        for order in self._orders:
            model = order.model
            end = commands.state_of(order, list(self.devices.values()), now)
            if end is commands.WAIT and model is not None and order.verb in ("load", "pin"):
                end = self._no_device(model, now) or commands.WAIT
            if end is commands.WAIT:
                waiting.append(order)
            else:
                self._settled.append((order, end))
                if end is not None and model is not None:
                    commands.give_up(order, model)
        self._orders = waiting

    # ── where a model stands ─────────────────────────────────────────────────────────────────────────────────

    def _find_place(self, model: Model, now: float) -> None:
        """A model that has calls is either ready somewhere, wanted, or on its way to be."""
        has_calls = bool(len(model.queue))
        if not has_calls and not model.pinned and now >= model.wanted_until:
            return
        if not has_calls and model.is_held_back(now):
            self._later[model.key] = model
            return
        copies = all_copies(self.devices.values(), model.key)
        usable = [(device, copy) for device, copy in copies if copy.takes_batches]
        if usable:
            self._wanted.discard(model.key)
            if has_calls:
                for device, copy in usable:
                    device.ready.setdefault(model.key, copy)
        elif not any(copy.place is Place.LOADING for _, copy in copies) and model.key not in self._wanted:
            model.waiting_since = now
            self._wanted.add(model, worker_owner(model.spec))

    def _forget_place(self, model: Model) -> None:
        for device in self.devices.values():
            device.ready.pop(model.key, None)
        if not model.wanted_until and not model.pinned:
            self._wanted.discard(model.key)

    def _unqueue(self, ticket: Ticket) -> None:
        if ticket.queued:
            model = self.models[ticket.model]
            model.queue.remove(ticket)
            self.turns.left(ticket.payer, ticket.cost_s)
            self.queued_bytes -= len(ticket.payload)
            if not len(model.queue):
                self._forget_place(model)

    def _refuse_queue(self, model: Model, end: End, owner: str | None = None) -> None:
        for ticket in model.queue.drain(owner):
            self.turns.left(ticket.payer, ticket.cost_s)
            self.queued_bytes -= len(ticket.payload)
            self._refuse(ticket, end)
        if not len(model.queue):
            self._forget_place(model)

    def _refuse(self, ticket: Ticket, end: End) -> None:
        self._end(ticket)
        code = end.code if isinstance(end, Refused) else "broken"
        self.counts.refusals[code] = self.counts.refusals.get(code, 0) + 1
        self.models[ticket.model].stats.refused += 1
        self._effects.refuse(ticket, end)

    def _end(self, ticket: Ticket) -> None:
        assert not ticket.done, "a call has exactly one end"
        ticket.done = True
        if not ticket.running:
            ticket.payload = b""
        self._deadlines.ended(ticket)

    def check_integrity(self) -> None:
        """Recount everything; for idle moments and tests."""
        self.host.check_integrity()
        for device in self.devices.values():
            device.check_integrity()
