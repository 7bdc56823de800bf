"""May a call join the queue? If not, what its caller is told. Pure."""

from serai.ipc.messages import Failure, Refusal
from serai_runner.scheduling.calls import PendingCall
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings

#: Between these the estimate is believed: below, a retry only adds load; above, it is a guess.
_RETRY_AFTER_S = (0.1, 30.0)


def retry_after_s(estimate_s: float) -> float:
    shortest, longest = _RETRY_AFTER_S
    return min(max(estimate_s or 1.0, shortest), longest)


def busy(call: PendingCall, message: str, wait_s: float) -> Refusal:
    return Refusal(call.call.id, "busy", message, retriable=True, retry_after_s=retry_after_s(wait_s))


def draining(call: PendingCall) -> Refusal:
    return Refusal(call.call.id, "draining", "the runner host is stopping", retriable=True, retry_after_s=1.0)


def deadline_passed(call: PendingCall) -> Refusal:
    """Why it ended too late, if that was not its own work: the caller knows the rest."""
    version, why = call.version, ""
    if call.replica is None:
        why = "it waited for others all the time" if version.ready else "the algorithm was still starting"
        if not version.ready and version.starting is not None:
            why += f", for {max(0.0, call.deadline - version.starting.started_at):.3g} s"
    return Refusal(call.call.id, "deadline", why, retriable=False)


def not_startable(call: PendingCall, now: float) -> Refusal | Failure:
    """The answer while the version's last start has failed."""
    version = call.version
    if version.backoff_is_platform:
        wait_s = retry_after_s(version.retry_at - now)
        return Refusal(call.call.id, "unavailable", version.init_message, retriable=True, retry_after_s=wait_s)
    return Failure(call.call.id, "InitializationError", version.init_message, version.init_stacktrace)


def paused(call: PendingCall, now: float) -> Refusal | None:
    """The answer to a payer whose calls keep killing replicas; others are not turned away for it."""
    pause_s, num_crashes = call.version.crashes.pause_of(call.payer, now)
    if not num_crashes:
        return None
    message = f"the algorithm's process ended in {num_crashes} of your calls in a row; it is tried again after a pause"
    return Refusal(call.call.id, "unavailable", message, retriable=True, retry_after_s=retry_after_s(pause_s))


def refusal_of(
    call: PendingCall, settings: Settings, queued_bytes: int, now: float
) -> Refusal | Failure | PendingCall | None:
    """None: it may wait. A PendingCall: it may, in place of this one. Else what to answer it."""
    version = call.version
    if version.num_live == 0 and now < version.retry_at:
        return not_startable(call, now)
    wait_s = version.estimated_wait_s(now)
    if now + wait_s > call.deadline:
        return busy(call, f"about {wait_s:.3g} s of work are ahead, more than the call's deadline allows", wait_s)
    if queued_bytes + len(call.payload) > settings.max_queued_bytes:
        return busy(call, f"waiting inputs fill the {settings.max_queued_bytes >> 20} MiB kept for them", wait_s)
    capacity = version.capacity(settings.queue_per_slot, settings.queue_min)
    if len(version.queue) < capacity:
        return None
    return _displaced(version, call, capacity) or busy(call, f"{capacity} calls wait already", wait_s)


def _displaced(version: VersionState, call: PendingCall, capacity: int) -> PendingCall | None:
    """In a full queue a payer below its fair share takes the newest place of the payer that has most."""
    queue = version.queue
    own = queue.num_of(call.payer)
    if own + 1 > capacity / (queue.num_payers + (own == 0)):
        return None
    longest = queue.longest_payer()
    return queue.newest_of(longest) if queue.num_of(longest) > own + 1 else None
