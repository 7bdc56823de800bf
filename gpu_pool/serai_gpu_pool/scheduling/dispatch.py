"""Gives the devices their batches, and takes them back. Pure."""

from serai_gpu_pool.core import Batch, Counts, Ticket
from serai_gpu_pool.scheduling import batches, placement, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.copies import Copy
from serai_gpu_pool.scheduling.devices import Device, batch_name
from serai_gpu_pool.scheduling.effects import Effects
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.workers import Worker
from serai_gpu_pool.settings import Limits


class Dispatch:
    __slots__ = ("_calls", "_counts", "_devices", "_effects", "_last", "_limits")

    def __init__(
        self, devices: dict[str, Device], calls: Calls, counts: Counts, limits: Limits, effects: Effects
    ) -> None:
        self._devices = devices
        self._calls = calls
        self._counts = counts
        self._limits = limits
        self._effects = effects
        self._last = 0

    def start_batches(self, now: float) -> None:
        """All that the devices can take now."""
        for device in self._devices.values():
            while self._start_batch(device, now):
                pass

    def _start_batch(self, device: Device, now: float) -> bool:
        """Give the device the batch whose turn it is, if it can take one. Whether another try makes sense."""
        opening = batches.opening(device, self._limits, now)
        if opening is None:
            return False
        device.short_for = None
        for copy in self._by_turn(device):
            if not batches.may_run(copy, device, self._limits, now):
                continue
            if opening.behind is not None and opening.behind.worker != copy.worker:
                return False  # it is next, but cannot wait inside of another worker
            size, activation = batches.size(copy, device, self._limits)
            if opening.behind is not None and batches.is_better_later(
                copy, device, size, opening.behind, self._limits, now
            ):
                return False
            if activation <= max(device.ledger.free, 0):
                self._take_and_run(device, copy, size, opening, now)
                return True
            device.make_room(activation - device.ledger.free, copy.model, now)
            device.short_for = device.short_for or copy
            if opening.behind is not None:
                return False  # what runs now has a part of the memory: nobody passes
        return False

    def _by_turn(self, device: Device) -> list[Copy]:
        if len(device.ready) == 1:
            return list(device.ready.values())
        return sorted(device.ready.values(), key=lambda one: one.model.queue.rank(self._calls.turns))

    def _take_and_run(self, device: Device, copy: Copy, size: int, opening: batches.Opening, now: float) -> None:
        tickets = self._calls.take(copy.model, size, self._limits.batch.max_bytes)
        tickets = self._in_time(tickets, copy.model, device, now)
        if tickets:
            self._run(device, copy, tickets, opening, now)

    def _in_time(self, tickets: list[Ticket], model: Model, device: Device, now: float) -> list[Ticket]:
        """Without those that would miss their deadline even now. When nobody is left, the one with the most time runs
        all the same: an estimate that is wrong is only put right by trying."""
        soonest = now + model.times_on(device.id).predict(len(tickets))
        kept = [ticket for ticket in tickets if ticket.deadline >= soonest]
        if not kept and not len(model.queue):
            kept = [max(tickets, key=lambda one: one.deadline)]
        for ticket in tickets:
            if ticket not in kept:
                self._calls.refuse(ticket, refusals.HOPELESS)
        return kept

    def _run(self, device: Device, copy: Copy, tickets: list[Ticket], opening: batches.Opening, now: float) -> None:
        model = copy.model
        self._last += 1
        batch = batches.make(self._last, device, copy, tickets, opening, now)
        device.ledger.reserve(batch_name(batch), batch.activation_bytes)
        batch.charged_s = batch.predicted_s / len(tickets)
        for ticket in tickets:
            ticket.running = True
            self._calls.turns.charge(ticket.payer, batch.charged_s)
            model.stats.queue_s += now - ticket.enqueued_at
        device.workers[copy.worker].batches[batch.id] = device.running[batch.id] = batch
        device.lease(copy, now)
        model.last_used = now
        self._counts.batches += 1
        self._counts.items += len(tickets)
        self._effects.run(batch)
        self._replicate(device, model, now)

    def _replicate(self, device: Device, model: Model, now: float) -> None:
        """A device that cannot keep up with a model gets help from one that has nothing to do."""
        waiting = len(model.queue)
        if len(self._devices) == 1 or not waiting:
            return
        per_item_s = model.times_on(device.id).per_item(min(waiting, self._limits.batch.max_items))
        if waiting * per_item_s <= self._limits.replicate_s:
            return
        other = placement.second_home(self._devices.values(), model)
        if other is not None:
            other.try_load(other.copy_of(model), now)

    def take_back(self, device: Device, worker: Worker, batch: Batch, now: float) -> None:
        """The batch has ended: what it held is free, what waited behind it has begun."""
        del worker.batches[batch.id], device.running[batch.id]
        device.ledger.release(batch_name(batch))
        worker.idle_since = now
        for following in worker.batches.values():
            if following.lane == batch.lane:
                following.started_at = now
                break
        device.unlease(device.copies[batch.model], now)

    def uncharge(self, batch: Batch) -> None:
        """It came to nothing, through no fault of those who pay: they are charged again when it is run again."""
        for ticket in batch.tickets:
            self._calls.turns.correct(ticket.payer, -batch.charged_s)
