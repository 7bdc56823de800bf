"""What a call that is not run is told. Pure; every text says which limit it was and what helps."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from serai_gpu_pool.core import Broken, LoadFailure, Refused, Verdict
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.strikes import MAX_STRIKES, WINDOW_S
from serai_gpu_pool.settings import Limits

if TYPE_CHECKING:
    from serai_gpu_pool.scheduling.devices import Device

#: Operators unpin when they like; to ask more often than this is of no use.
_PINNED_S = 30.0

DRAINING = Refused("draining", "the pool is stopping", retriable=True)
EXPIRED_ON_ARRIVAL = Refused("deadline", "the deadline had passed when the call arrived")
EXPIRED = Refused("deadline", "the deadline passed before the model answered")
HOPELESS = Refused("deadline", "the model cannot answer before the deadline any more: too much was ahead of this call")


def too_large(model: Model, devices: "Iterable[Device]") -> Refused:
    """It fits into none of these, at least as long as others are pinned there."""
    device = max(devices, key=lambda one: one.most_for(model))
    budget, pinned = device.ledger.budget, device.pinned_beside(model)
    worker = device.staff.worker_for(model)
    parts = [f"the model needs {_size(model.least_bytes)} of device memory"]
    if base := device.staff.base_of(worker):
        parts.append(f"the {model.framework} worker that runs it {_size(base)}")
    if pinned:
        parts.append(f"models that are pinned hold {_size(pinned)}")
    text = f"{', '.join(parts)}; the whole budget of {device.id} is {_size(budget)}"
    if pinned and model.least_bytes + base <= budget:
        return Refused("unavailable", f"{text}: unpin a model (serai pool unpin OWNER/NAME)", True, _PINNED_S)
    return Refused("too_large", f"{text}: start Serai with a larger budget (--cpu-budget)")


def no_framework(model: Model) -> Refused:
    return Refused(
        "unavailable",
        f"no device here runs {model.spec.format} models: {model.framework} was not installed when the pool started; "
        "install it (make frameworks) and restart Serai",
    )


def displaced(model: Model) -> Refused:
    return _busy(
        f"{len(model.queue)} calls wait for this model, most of them yours: another caller needs the place", 1.0
    )


def queue_full(model: Model, wait_s: float) -> Refused:
    return _busy(f"{len(model.queue)} calls already wait for this model", wait_s)


def input_full(queued_bytes: int, limit: int, wait_s: float) -> Refused:
    return _busy(f"{queued_bytes} bytes of input already wait, of at most {limit}", wait_s)


def too_late(wait_s: float) -> Refused:
    return _busy(f"this call would wait about {wait_s:.2g} s, past its deadline", wait_s)


def crashed(reason: str) -> Refused:
    return Refused("crashed", f"the model's worker ended while it ran: {reason}", retriable=True)


def hung(reason: str) -> Refused:
    return Refused("deadline", f"the model did not answer: {reason}")


def no_worker(reason: str) -> Refused:
    return Refused("unavailable", f"the device's worker cannot be started: {reason}", retriable=True, retry_after_s=5.0)


def locked_out(reason: str, now: float) -> Verdict:
    minutes = WINDOW_S / 60
    message = (
        f"the model ended its worker {MAX_STRIKES} times in {minutes:g} minutes (last: {reason}) "
        f"and is locked out for {minutes:g} minutes"
    )
    return Verdict(Refused("unavailable", message, retry_after_s=WINDOW_S), now + WINDOW_S)


def not_loaded(failure: LoadFailure, before: Verdict | None, limits: Limits, now: float) -> Verdict:
    """The same file fails the same way: each failure doubles the time to the next try."""
    attempts = before.attempts + 1 if before else 1
    wait_s = min(limits.retry_load_s * 2 ** min(attempts - 1, 30), limits.max_retry_load_s)
    if failure.kind == "broken":
        return Verdict(Broken(failure.message), now + wait_s, attempts)
    end = Refused("unavailable", failure.message, retriable=failure.kind == "memory", retry_after_s=wait_s)
    return Verdict(end, now + wait_s, attempts)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.4g} MiB" if num_bytes >= 1 << 20 else f"{num_bytes / 1024:,.3g} KiB"


def _busy(message: str, wait_s: float) -> Refused:
    return Refused("busy", message, retriable=True, retry_after_s=max(wait_s, 0.1))
