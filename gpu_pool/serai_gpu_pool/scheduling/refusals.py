"""What a call that is not run is told. Pure; every text says which limit it was and what helps."""

from serai_gpu_pool.core import Broken, LoadFailure, Refused, Verdict
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.strikes import MAX_STRIKES, WINDOW_S
from serai_gpu_pool.settings import Limits

DRAINING = Refused("draining", "the pool is stopping", retriable=True)
EXPIRED_ON_ARRIVAL = Refused("deadline", "the deadline had passed when the call arrived")
EXPIRED = Refused("deadline", "the deadline passed before the model answered")
HOPELESS = Refused("deadline", "the model cannot answer before the deadline any more: too much was ahead of this call")


def too_large(model: Model, budget: int) -> Refused:
    return Refused(
        "too_large",
        f"the model needs {model.least_bytes} bytes of device memory and the whole budget is {budget}: "
        "start the pool with a larger --cpu-budget",
    )


def no_framework(model: Model) -> Refused:
    return Refused(
        "unavailable",
        f"no device here runs {model.spec.format} models: {model.framework} is not installed on this machine",
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


def _busy(message: str, wait_s: float) -> Refused:
    return Refused("busy", message, retriable=True, retry_after_s=max(wait_s, 0.1))
