"""Whether a call is queued or refused at the door, by what is known and what is thought. Pure.

What is thought may be wrong, so an estimate alone never keeps a model from being tried: see `objection` (6).
"""

from collections.abc import Collection

from serai_gpu_pool.core import End, Refused, Ticket
from serai_gpu_pool.scheduling import batches, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.copies import Copy, Place
from serai_gpu_pool.scheduling.devices import Device, all_copies
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.settings import Limits


def objection(
    ticket: Ticket, model: Model, is_usable: bool, devices: Collection[Device], calls: Calls, limits: Limits, now: float
) -> End | None:
    """Why a call cannot be queued, or None.

    (2) its deadline has passed  (3) something is held against its model  (4) which no device can run or hold
    (5) too many wait  (6) it would wait past its deadline. (1) is that we are stopping, which the caller knows.
    """
    if not ticket.deadline > now:  # (2)
        return refusals.EXPIRED_ON_ARRIVAL
    verdict = model.held_against(ticket, now)
    if verdict is not None:  # (3)
        end = verdict.end
        return Refused(end.code, end.message, end.retriable, verdict.until - now) if isinstance(end, Refused) else end
    if not is_usable and (end := no_device(model, devices, now)) is not None:  # (4)
        return end
    if model.queue.is_full and model.queue.displaced_by(ticket.payer) is None:  # (5)
        return refusals.queue_full(model, sum(_wait(ticket, model, devices, calls, now)))
    if calls.queued_bytes + len(ticket.payload) > limits.max_queued_bytes:
        return refusals.input_full(calls.queued_bytes, limits.max_queued_bytes, calls.turns.total_backlog_s)
    if not calls.deadlines.num_live or (is_usable and ticket.deadline - now > _longest_wait(calls, limits)):
        return None
    ahead_s, own_s = _wait(ticket, model, devices, calls, now)  # (6)
    if not len(model.queue) and not _is_tried(model, devices):
        own_s = 0.0  # what is thought of the model itself may be wrong, and nobody else finds out
    return refusals.too_late(ahead_s + own_s) if now + ahead_s + own_s > ticket.deadline else None


def _longest_wait(calls: Calls, limits: Limits) -> float:
    """No call of a model in memory is thought to wait longer: two batches, all that is queued, and its own run."""
    return calls.turns.total_backlog_s + 3 * limits.run_timeout_s


def no_device(model: Model, devices: Collection[Device], now: float) -> End | None:
    """Why the model cannot be brought into any device's memory, or None."""
    able = [one for one in devices if model.framework in one.spec.frameworks]
    if not able:
        return refusals.no_framework(model)
    if all(model.least_bytes > one.most_for(model) for one in able):
        return refusals.too_large(model, able)
    workers = [one.staff.worker_for(model) for one in able]
    if all(worker.error and now < worker.retry_at for worker in workers):
        return refusals.no_worker(workers[0].error)
    return None


def _wait(ticket: Ticket, model: Model, devices: Collection[Device], calls: Calls, now: float) -> tuple[float, float]:
    """Seconds until it is this ticket's turn, and from then until its answer, as far as anybody can tell.

    A load goes on while others run: only what it takes longer than that is its own.
    """
    copies = all_copies(devices, model.key)
    device, copy = next(((one, copy) for one, copy in copies if copy.takes_batches), (next(iter(devices)), None))
    ahead_s = batches.remaining_s(device, now) + calls.turns.ahead_s(ticket.payer, 0.0) / len(devices)
    load_s = 0.0 if copy is not None else model.load_s.get(_tier(copies), 0.0)
    return ahead_s, max(load_s - ahead_s, 0.0) + model.times_on(device.id).predict(1)


def _is_tried(model: Model, devices: Collection[Device]) -> bool:
    copies = all_copies(devices, model.key)
    return any(copy.place is Place.LOADING or device.ledger.leases(model.key) for device, copy in copies)


def _tier(copies: list[tuple[Device, Copy]]) -> str:
    return "host" if any(copy.place is Place.HOST for _, copy in copies) else "disk"
