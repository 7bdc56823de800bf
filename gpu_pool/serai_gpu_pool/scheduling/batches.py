"""Which batch a device takes next, how large it is, and when it is late. Pure.

A device runs one batch at a time, in one worker. The next one is sent shortly before that ends. A batch that takes much
longer than it should keeps its lane, and others go on beside it; so they do, from the beginning, beside one that is
known to take long.
"""

from typing import NamedTuple

from serai_gpu_pool.core import Batch, Ticket
from serai_gpu_pool.scheduling.copies import Copy, Place
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.workers import MAX_LANES, Worker
from serai_gpu_pool.settings import Limits

#: A batch that is shorter than this is followed by the next at once: it ends before a timer would fire.
_SHORT_S = 0.004
#: What a device idles when the next batch is sent to it only when the last one has ended: two wake-ups of processes
#: that share busy cores.
_ROUND_TRIP_S = 0.0005
#: Runs of one batch size between two measurements of what it needs beside the weights.
_MEASURE_EVERY = 64
#: Batches on one device that are late, with which another one that is known to take long may begin: the last lane of a
#: worker is for those that are quick.
_MOST_LATE = MAX_LANES - 1
#: Nothing is sent behind a batch that may well be late before it ends: what waits inside would be run twice. So much of
#: the bound is left for a run that takes longer than the last ones did.
_SAFE_SHARE = 0.5


class Opening(NamedTuple):
    """Where the next batch may go: behind a batch that runs in a worker, or (None) to any worker."""

    behind: Batch | None


def opening(device: Device, limits: Limits, now: float) -> Opening | None:
    """Room for one more batch, or None. What is known to take long is late from now on: it was sent to a free lane."""
    for batch in device.running.values():
        if _is_long(batch.predicted_s, limits):
            batch.is_late = True
    if not device.ready:
        return None
    on_time = [batch for batch in device.running.values() if not batch.is_late]
    if not on_time:
        return Opening(None)
    if len(on_time) == 1 and now >= _followed_at(on_time[0], limits):
        return Opening(on_time[0])
    return None


def _followed_at(batch: Batch, limits: Limits) -> float:
    """When the batch after it is sent."""
    if batch.predicted_s <= _SHORT_S:
        return batch.started_at
    if batch.predicted_s > _SAFE_SHARE * _longest_alone_s(limits):
        return float("inf")
    return batch.started_at + batch.predicted_s - limits.lead_s


def may_run(copy: Copy, device: Device, limits: Limits, now: float) -> bool:
    """Is this copy's worker able to take a batch of it? An author whose model is stuck in a lane gets no second one."""
    worker = device.workers[copy.worker]
    if not copy.takes_batches or not worker.may_run(limits, now):  # room for another may just have been made with it
        return False
    owner, is_long = copy.model.spec.owner, _is_long(copy.model.times_on(device.id).predict(1), limits)
    late = [one for one in device.running.values() if one.is_late and not one.is_disowned]
    for batch in late:
        if not is_long and batch.worker != copy.worker:
            continue
        if batch.model == copy.key or (owner and any(ticket.owner == owner for ticket in batch.tickets)):
            return False
    if is_long and len(late) >= _MOST_LATE:
        return False
    return worker.free_lane() is not None


def size(copy: Copy, device: Device, limits: Limits) -> tuple[int, int]:
    """How many of its calls the next batch should hold, and the bytes that it needs beside the weights.

    As large as pays and as is there now; smaller where memory is short.
    """
    model = copy.model
    times = model.times_on(device.id)
    number = times.best_size(len(model.queue), limits.batch.max_items, limits.batch.max_seconds)
    while number > 1 and model.activation(number) > device.ledger.free:
        number //= 2
    activation = max(model.activation(number), model.guessed_bytes if model.retries else 0)
    if activation > device.ledger.free:
        # One large input must not shut out all the small ones after it: what nobody could free is not asked for.
        activation = min(activation, max(device.most_for(model) - device.ledger.resident[copy.key], 0))
    return number, activation


def is_better_later(copy: Copy, device: Device, size: int, behind: Batch, limits: Limits, now: float) -> bool:
    """Should this batch not be sent yet, because of the calls that will come until the one before it ends?

    Each that joins saves a run of its own for the price of a larger one; what is sent cannot be joined any more.
    """
    model = copy.model
    times = model.times_on(device.id)
    if _is_long(times.predict(size), limits):
        return True  # others go on beside it, but not beside the one before it
    if size < len(model.queue):
        return False  # it is as large as pays
    saved_s = times.predict(size) + times.predict(1) - times.predict(size + 1)
    remaining_s = behind.started_at + behind.predicted_s - now
    return remaining_s * saved_s > _ROUND_TRIP_S * model.gap_s


def make(id: int, device: Device, copy: Copy, tickets: list[Ticket], opening: Opening, now: float) -> Batch:
    model, number = copy.model, len(tickets)
    worker = device.workers[copy.worker]
    lane = worker.free_lane() if opening.behind is None else opening.behind.lane
    assert lane is not None, "may_run has looked"
    wanted = max([model.activation(number), *(model.retries.get(ticket, 0) for ticket in tickets if model.retries)])
    activation = min(wanted, max(device.ledger.free, 0))
    predicted_s = model.times_on(device.id).predict(number)
    batch = Batch(id, model.key, tickets, now, device.id, copy.worker, lane, predicted_s, activation)
    for owner in {ticket.owner for ticket in tickets}:
        model.used_for(owner, now)
    batch.wants_measure = wanted > model.activation(number) or _wants_measure(model, number)
    return batch


def _wants_measure(model: Model, number: int) -> bool:
    """Sizes that are powers of two, at first and now and then: what a run needs depends on inputs, and those change."""
    if number & (number - 1):
        return False
    return number not in model.activation_bytes or model.stats.runs_of(number) % _MEASURE_EVERY == 0


def learn(model: Model, device: str, batch: Batch, duration_s: float, peak_bytes: int) -> None:
    number = len(batch.tickets)
    model.times_on(device).learn(number, duration_s)
    model.stats.batch(number, duration_s)
    if peak_bytes:
        model.activation_bytes[number] = max(model.activation_bytes.get(number, 0) // 2, peak_bytes)


def remaining_s(device: Device, now: float) -> float:
    """Until the device takes the next batch. What is late, or known to take long, is beside it."""
    return sum(
        max(0.0, batch.predicted_s - max(0.0, now - batch.started_at))
        for batch in device.running.values()
        if not batch.is_late
    )


# ── what is late, and what is stuck ──────────────────────────────────────────────────────────────────────────


def _longest_alone_s(limits: Limits) -> float:
    return max(limits.late_s, limits.longest_alone_s)


def _is_long(predicted_s: float, limits: Limits) -> bool:
    """It would be late at some time for sure: then it is from the beginning, and nobody waits until then."""
    return predicted_s > _longest_alone_s(limits)


def _late_at(batch: Batch, limits: Limits) -> float:
    after_s = max(limits.late_s, limits.late_factor * batch.predicted_s)
    return batch.started_at + min(after_s, _longest_alone_s(limits))


def _begun(worker: Worker) -> list[Batch]:
    """The first batch of each lane."""
    first: dict[int, Batch] = {}
    for batch in worker.batches.values():
        first.setdefault(batch.lane, batch)
    return list(first.values())


def mark_late(worker: Worker, limits: Limits, now: float) -> list[Batch]:
    """Batches that from now on do not hold up others."""
    late = [batch for batch in _begun(worker) if not batch.is_late and now >= _late_at(batch, limits)]
    for batch in late:
        batch.is_late = True
    return late


def disown(worker: Worker, late: Batch) -> list[Batch]:
    """Batches that wait inside of the worker behind one that may never end: their tickets are for others to run.

    The worker may still come to them, so their model stays and so do their inputs; nobody waits for their results.
    """
    stuck = [
        one for one in worker.batches.values() if one.lane == late.lane and one is not late and not one.is_disowned
    ]
    for batch in stuck:
        batch.is_late = batch.is_disowned = True
        batch.payloads = [ticket.payload for ticket in batch.tickets]
    return stuck


def stuck(worker: Worker, limits: Limits, now: float) -> tuple[str, str] | None:
    """The model for which the worker has to be ended, and what to say."""
    for batch in _begun(worker):
        if now >= batch.started_at + limits.run_timeout_s:
            return batch.model, f"a run took longer than {limits.run_timeout_s:g} s"
    for copy in worker.moving:
        if now >= copy.began_at + limits.load_timeout_s:
            what = "an eviction" if copy.place is Place.LEAVING else "a load"
            return copy.key, f"{what} took longer than {limits.load_timeout_s:g} s"
    return None


def moments(device: Device, limits: Limits, now: float) -> list[float]:
    """When time alone changes something here. What is past already, and would not be looked at again, is left out."""
    times: list[float] = []
    for worker in device.workers.values():
        if not worker.is_up:
            if worker.waiting and worker.retry_at > now:
                times.append(worker.retry_at)
            continue
        for batch in _begun(worker):
            times.append(batch.started_at + limits.run_timeout_s)
            if not batch.is_late:
                times.append(_late_at(batch, limits))
            if not batch.is_late and device.ready and (follow_at := _followed_at(batch, limits)) > now:
                times.append(follow_at)
        for copy in worker.moving:
            times.append(copy.began_at + limits.load_timeout_s)
        for copy in worker.loading.values():
            if (late_at := worker.load_is_late_at(copy, limits)) > now:
                times.append(late_at)
        if worker.id.owner and worker.is_idle:
            times.append(worker.idle_since + limits.worker_idle_s)
    return times
