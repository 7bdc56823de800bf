"""Which call goes where. Pure: events and `now` in, `Effects` out.

Every call gets exactly one answer. A call that was certainly not begun when its replica died goes to another one.
"""

import math
from collections.abc import Iterable
from typing import Any

from serai.ipc.messages import (
    WINDOW,
    WINDOW_BYTES,
    Call,
    Cancel,
    Failure,
    Item,
    More,
    Progress,
    Ready,
    Refusal,
    Result,
    VersionSpec,
    Waiting,
)
from serai_runner.scheduling import admission
from serai_runner.scheduling.calls import Doom, Ending, PendingCall, ReplicaState
from serai_runner.scheduling.effects import Effects
from serai_runner.scheduling.figures import Figures
from serai_runner.scheduling.fleet import Fleet, mib
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings

#: Replies that answer nothing, until we take the replica for broken: far more than late answers can explain.
MAX_STRAYS = 100
#: Reports of one call: far more than our part of a box lets through, so whoever sends more does it to flood us.
_MAX_REPORTS, _MAX_REPORTS_PER_S = 100, 50
#: A replica skips an expired call by itself; one that has not after this is killed.
GHOST_GRACE_S = 0.1
#: A call whose caller has left may end by itself within this. Killing the replica costs its next caller a start.
CANCEL_GRACE_S = 0.5
#: Callers who want to know why they wait are told again after this.
_TELL_AGAIN_S = 1.0


class Scheduler:
    """Owns all versions and calls of one host, and through its fleet the replicas.

    `wake_at` is when `on_tick` must be called at the latest; any event may bring it forward.
    """

    def __init__(self, effects: Effects, settings: Settings) -> None:
        self.versions: dict[str, VersionState] = {}
        self.figures = Figures()
        self.fleet = Fleet(effects, settings, self.figures, self.versions, self._answer_waiting)
        self.replicas = self.fleet.replicas
        self.is_draining = False
        self._effects = effects
        self._settings = settings
        self._serial = 0
        self._queued_bytes = 0

    @property
    def wake_at(self) -> float:
        return self.fleet.wake_at

    # Events from callers

    def define(self, spec: VersionSpec) -> VersionState:
        version = self.versions.get(spec.key)
        if version is None:
            version = self.versions[spec.key] = VersionState(spec)
        version.spec = spec  # the same code; paths may have moved
        return version

    def on_keep(self, keys: Iterable[str], now: float) -> None:
        if not self.is_draining:
            self.fleet.keep([self.versions[key] for key in keys if key in self.versions], now)

    def on_call(self, source: Any, call: Call, payload: bytes, version: VersionState, now: float) -> PendingCall:
        self._serial += 1
        pending = PendingCall(source, call, payload, version, self._serial, now)
        if self.is_draining:
            self._refuse(pending, admission.draining(pending))
        elif pending.deadline <= now:
            self._refuse(pending, admission.deadline_passed(pending))
        elif version.crashes.are_paused and (refusal := admission.paused(pending, now)) is not None:
            self._refuse(pending, refusal)
        elif not version.queue and (replica := version.free_replica(now)) is not None:
            self._send(replica, pending, now)
        else:
            self._queue(pending, now)
        return pending

    def on_cancel(self, call: PendingCall, now: float) -> None:
        """The caller does not want it any more. No answer is sent; what runs is stopped."""
        if call.ended:
            return
        self._close(call, "cancelled")
        replica = call.replica
        if replica is not None and call.serial in replica.in_flight:
            self._effects.tell_replica(replica, Cancel(call.serial))
            call.deadline = min(call.deadline, now + CANCEL_GRACE_S)
            self.fleet.wake(call.deadline)

    def on_more(self, call: PendingCall, num_items: int) -> None:
        """The caller has taken so many items."""
        num_items = min(num_items, len(call.items_out))
        if num_items > 0 and not call.ended and call.replica is not None:
            for _ in range(num_items):
                call.items_out.popleft()
            self._effects.tell_replica(call.replica, More(call.serial, num_items))

    # Events from replicas

    def on_ready(self, replica: ReplicaState, message: Ready, now: float) -> None:
        if replica.phase != "starting":
            return
        version = replica.version
        if message.error:
            self.fleet.start_failed(replica, message.error, message.stacktrace, False, now)
            self.fleet.doom(replica, "init")
            return
        if message.complaint:
            replica.complaint = (message.complaint, message.stacktrace)
        self.fleet.ready(replica, now)
        self._dispatch(version, now)
        self.fleet.ensure(version, now)

    def on_reply(self, replica: ReplicaState, message: Result | Failure, payload: bytes, now: float) -> None:
        call = replica.in_flight.pop(message.id, None)
        if call is None:
            self._stray(replica)
            return
        version = replica.version
        busy_s = (now - replica.last_event) * min(len(replica.in_flight) + 1, version.concurrency)
        version.measured(busy_s, message.duration_s)
        version.crashes.succeeded(call.payer)
        replica.last_event = now
        replica.num_replies += 1
        replica.in_flight_bytes -= len(call.payload)
        if call.ended:
            replica.ghosts -= 1
        else:
            self._end(call, "succeeded" if type(message) is Result else "failed", message, payload)
        if version.queue and not replica.retired:
            self._dispatch(version, now)
        if not replica.in_flight:
            self.fleet.became_idle(replica, now)
        elif replica.ghosts:
            self.fleet.wake(now + GHOST_GRACE_S)

    def on_item(self, replica: ReplicaState, message: Item | Progress, payload: bytes, now: float) -> None:
        call = replica.in_flight.get(message.id)
        if call is None or not call.call.wants_items:
            self._stray(replica)
        elif not self._may_tell(call, message, payload, now):
            self.on_violation(replica)
        elif not call.ended:
            self._effects.tell_caller(call, message, payload)

    def on_violation(self, replica: ReplicaState) -> None:
        """It sent something that is no message of a replica, or more than it may."""
        self.fleet.doom(replica, "protocol")

    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        """The process has ended and everything it had sent has been taken in."""
        version = replica.version
        self.fleet.gone(replica, ending, now)
        self._settle(replica, ending, now)
        self.fleet.fill_places(now)  # before its own: it may have been killed to make room for another
        self._dispatch(version, now)
        self.fleet.ensure(version, now)

    # Events of time and of the host

    def on_tick(self, now: float) -> None:
        """Everything that is due: deadlines, load deadlines, idle replicas, wants for more replicas."""
        self.fleet.wake_at = math.inf
        for version in self.versions.values():
            for call in [call for call in version.queue if call.deadline <= now]:
                self._refuse(call, admission.deadline_passed(call))
            for call in version.queue:
                self.fleet.wake(call.deadline)
                if call.told_at:
                    self._tell_waiting(call, now)
            self.fleet.ensure(version, now)
        for replica in list(self.replicas.values()):
            if replica.in_flight:
                self._tick_calls(replica, now)
            else:
                self.fleet.tick(replica, now)

    def on_drain(self) -> None:
        """Refuse what comes; what was accepted is still answered."""
        self.is_draining = True
        for version in self.versions.values():
            version.is_kept = False

    def on_drained(self, now: float) -> None:
        """No more time: refuse what is left and kill every replica."""
        for version in self.versions.values():
            for call in list(version.queue):
                self._refuse(call, admission.draining(call))
        for replica in list(self.replicas.values()):
            self.fleet.doom(replica, "drain")

    def retire(self, version: VersionState, why: Doom, now: float) -> None:
        """Replace all replicas of a version once they have answered what they have."""
        for replica in list(version.ready):
            self.fleet.retire(replica, why)
        if version.starting is not None:
            self.fleet.doom(version.starting, why)
        self.fleet.ensure(version, now)

    @property
    def num_open(self) -> int:
        """Calls that have no answer yet."""
        in_flight = sum(len(replica.in_flight) - replica.ghosts for replica in self.replicas.values())
        return in_flight + sum(len(version.queue) for version in self.versions.values())

    # Calls

    def _queue(self, call: PendingCall, now: float) -> None:
        version = call.version
        verdict = admission.refusal_of(call, self._settings, self._queued_bytes, now)
        if isinstance(verdict, PendingCall):
            capacity = len(version.queue)
            self._refuse(verdict, admission.busy(verdict, f"{capacity} calls wait, most of them yours", 0.0))
        elif verdict is not None:
            self._refuse(call, verdict)
            return
        if not version.queue:
            version.waiting_since = now
        version.queue.push(call)
        self._queued_bytes += len(call.payload)
        self.fleet.wake(call.deadline)
        if call.depth:
            self._dispatch(version, now)  # a replica that is kept for such calls may be idle
        self.fleet.ensure(version, now)
        if call.call.wants_items and not call.ended and call.replica is None:
            self._tell_waiting(call, now)

    def _dispatch(self, version: VersionState, now: float) -> None:
        queue = version.queue
        while queue and (replica := version.replica_for_inner()) is not None:
            call = queue.pop_inner(replica.min_depth)
            assert call is not None, "it was chosen for one"
            self._queued_bytes -= len(call.payload)
            self._send(replica, call, now)
        while queue and (replica := version.free_replica(now)) is not None:
            call = queue.pop()
            self._queued_bytes -= len(call.payload)
            self._send(replica, call, now)

    def _send(self, replica: ReplicaState, call: PendingCall, now: float) -> None:
        if call.call.only_load:
            self._tell_loaded(replica, call)
            return
        if not replica.in_flight:
            replica.last_event = now
        call.replica = replica
        call.sent_at = now
        replica.in_flight[call.serial] = call
        replica.in_flight_bytes += len(call.payload)
        if call.deadline < self.fleet.wake_at:
            self.fleet.wake_at = call.deadline
        self.figures.waited(now - call.arrived)
        self._effects.send(replica, call)

    def _tell_loaded(self, replica: ReplicaState, call: PendingCall) -> None:
        """This replica has loaded its code, which is all that was asked."""
        if replica.complaint is None:
            self._end(call, "succeeded", Result(call.call.id, "void", 0.0), b"")
        else:
            self._end(call, "failed", Failure(call.call.id, "LoadingError", *replica.complaint), b"")

    def _tell_waiting(self, call: PendingCall, now: float) -> None:
        """Why it waits, to a caller who wants to know: at once, and again while that lasts."""
        if now >= call.told_at + _TELL_AGAIN_S:
            call.told_at = now
            version = call.version
            state = "queued" if version.ready else "starting"
            estimate_s = round(version.estimated_wait_s(now), 3)
            position = version.queue.position_of(call)
            self._effects.tell_caller(call, Waiting(call.call.id, state, position, estimate_s), b"")
        self.fleet.wake(call.told_at + _TELL_AGAIN_S)

    def _refuse(self, call: PendingCall, answer: Refusal | Failure) -> None:
        self._end(call, answer.code if isinstance(answer, Refusal) else "failed", answer, b"")

    def _end(self, call: PendingCall, outcome: str, message: Result | Failure | Refusal, payload: bytes) -> None:
        self._close(call, outcome)
        self._effects.reply(call, message, payload)

    def _close(self, call: PendingCall, outcome: str) -> None:
        """The call has its end: it leaves the queue; in a replica it stays as a ghost until that answers."""
        assert not call.ended, "a call ends once"
        call.ended = True
        self.figures.calls[outcome] += 1
        replica = call.replica
        if replica is None:
            if call.version.queue.remove(call):
                self._queued_bytes -= len(call.payload)
        elif call.serial in replica.in_flight:
            replica.ghosts += 1

    def _may_tell(self, call: PendingCall, message: Item | Progress, payload: bytes, now: float) -> bool:
        """Whether it keeps to the window, or to what anybody could read; noted as told."""
        if type(message) is Progress:
            call.reports += 1
            return call.reports <= _MAX_REPORTS + _MAX_REPORTS_PER_S * (now - call.sent_at)
        out = call.items_out
        if out and (len(out) >= WINDOW or sum(out) >= WINDOW_BYTES):
            return False
        if not call.ended:
            out.append(len(payload))
        return True

    def _stray(self, replica: ReplicaState) -> None:
        self.figures.strays += 1
        replica.strays += 1
        if replica.strays > MAX_STRAYS:
            self.fleet.doom(replica, "protocol")

    def _settle(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        """What becomes of the calls a dead replica had: those begun end, the others go back to the front."""
        begun = {call.serial for call in replica.begun()}
        left = list(replica.in_flight.values())
        replica.in_flight.clear()
        for call in reversed(left):
            if call.ended or call.serial in begun:
                continue
            call.replica = None
            if not call.version.queue:
                call.version.waiting_since = now
            call.version.queue.push_front(call)
            self._queued_bytes += len(call.payload)
            self.fleet.wake(call.deadline)
        for call in left:
            if not call.ended and call.serial in begun:
                if not replica.doom:
                    self._note_crash(call, ending, now)
                self._end(call, *_crash_answer(call, replica, ending), b"")

    def _note_crash(self, call: PendingCall, ending: Ending, now: float) -> None:
        version = call.version
        if version.crashes.crashed(call.payer, now):
            message = f"its process ends in call after call ({ending.how}); it is started again after a pause"
            version.start_failed(message, ending.output, True, now)  # callers may try again: it is not their doing
            self._effects.paused(version, message, version.retry_at - now)
        elif (pause := version.crashes.pause_of(call.payer, now))[1]:
            why = f"its process ended in {pause[1]} calls of {call.payer} in a row ({ending.how})"
            self._effects.paused(version, why, pause[0])

    def _answer_waiting(self, version: VersionState, now: float) -> None:
        for call in list(version.queue):
            self._refuse(call, admission.not_startable(call, now))

    def _tick_calls(self, replica: ReplicaState, now: float) -> None:
        begun = {call.serial for call in replica.begun()}
        overdue: Doom = ""
        for call in list(replica.in_flight.values()):
            if not call.ended and call.deadline <= now:
                self._refuse(call, admission.deadline_passed(call))
                overdue = "deadline" if call.serial in begun else overdue
            elif not call.ended:
                self.fleet.wake(call.deadline)
            elif call.serial in begun and replica.phase != "doomed":
                due = call.deadline + GHOST_GRACE_S
                if due > now:
                    self.fleet.wake(due)
                elif replica.version.concurrency == 1 or call.call.deadline <= now:
                    overdue = overdue or ("deadline" if call.call.deadline <= now else "cancelled")
                else:  # others run in the same process; it was asked to stop this one, and has till its deadline
                    self.fleet.wake(call.call.deadline)
        if overdue:
            self.fleet.doom(replica, overdue)


def _crash_answer(call: PendingCall, replica: ReplicaState, ending: Ending) -> tuple[str, Failure | Refusal]:
    call_id, version = call.call.id, replica.version
    if ending.out_of_memory and not replica.doom:
        message = f"memory limit {mib(version)} exceeded"
        return "failed", Failure(call_id, "OutOfMemoryError", message)
    how = {
        "": f"ended with {ending.how}",
        "deadline": "was killed: another call in it ran past its deadline",
        "cancelled": "was killed: the caller of another call in it has left",
        "protocol": "was killed: it broke the protocol of replicas",
        "drain": "was killed: the runner host is stopping",
    }.get(replica.doom, f"was killed ({replica.doom})")
    message = f"the algorithm's process {how} while the call ran"
    return "crashed", Refusal(call_id, "crashed", message, retriable=True)
