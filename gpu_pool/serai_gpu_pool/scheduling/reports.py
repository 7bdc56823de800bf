"""What devices report, as the scheduler takes it. Pure. What nobody asked for is dropped."""

from serai_gpu_pool.core import Batch, Counts, LoadFailure, Outcome, Ticket
from serai_gpu_pool.scheduling import batches, believable, losses, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.copies import Copy, Place, Residence, WorkerId
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.dispatch import Dispatch
from serai_gpu_pool.scheduling.effects import Result
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.places import Places
from serai_gpu_pool.scheduling.strikes import Strikes
from serai_gpu_pool.scheduling.workers import WorkerState
from serai_gpu_pool.settings import Limits


class Reports:
    """The side of the scheduler that faces the devices."""

    def __init__(
        self,
        devices: dict[str, Device],
        host: HostTier,
        models: dict[str, Model],
        calls: Calls,
        places: Places,
        dispatch: Dispatch,
        counts: Counts,
        limits: Limits,
    ) -> None:
        self.devices = devices
        self.host = host
        self.models = models  # by key, for reading
        self.counts = counts
        self.draining = False
        self._calls = calls
        self._places = places
        self._dispatch = dispatch
        self._limits = limits
        self._strikes = Strikes()

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
            self._calls.refuse_all(copy.model, refusals.too_large(copy.model, [device]))

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
            if model.retries:
                model.tried_again(ticket, outcome.kind, batch.activation_bytes, peak_bytes)
            if ticket.done:
                continue
            if outcome.kind == "OutOfMemoryError" and self._is_tried_again(ticket, model, batch):
                self._run_again(model, [ticket], now)
            elif outcome.kind == "no_room" and not ticket.alone:
                ticket.alone = True
                self._run_again(model, [ticket], now)
            else:
                self._calls.finish(ticket, outcome, payload, share_s, duration_s)

    def _is_tried_again(self, ticket: Ticket, model: Model, batch: Batch) -> bool:
        """It ran out of memory: once more by itself, with more set aside for it. Others go for that, so not for a
        payer whom so much has not helped before."""
        if ticket.out_of_memory:
            return False
        self._count_out_of_memory("run")
        more = model.guess(ticket, self.devices[batch.device].ledger.budget)
        ticket.out_of_memory = ticket.alone = True
        return more or len(batch.tickets) > 1

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

    def _cost_s(self, model: Model) -> float:
        """Device seconds that one more call of this model is thought to take."""
        device = next(iter(model.times), None) or next(iter(self.devices))
        return model.times_on(device).per_item(min(len(model.queue) + 1, self._limits.batch.max_items))

    def _run_again(self, model: Model, tickets: list[Ticket], now: float) -> None:
        self._calls.wait_again(model, tickets, self._cost_s(model))
        self._places.find(model, now)
