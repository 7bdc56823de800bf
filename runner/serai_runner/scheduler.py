"""Which call goes where, and which replicas there are. Pure: events and `now` in, `Effects` out.

Every call gets exactly one answer. A call that was certainly not begun when its replica died goes to another one.
"""

import math
from typing import Any, Protocol

from serai.ipc.messages import Call, Failure, Ready, Refusal, Result, VersionSpec
from serai_runner import admission
from serai_runner.calls import Doom, Ending, PendingCall, ReplicaState
from serai_runner.figures import Figures
from serai_runner.places import Places
from serai_runner.settings import Settings
from serai_runner.version import VersionState

#: A queue that was not empty for this long, or is estimated to take longer, wants another replica. About what a
#: start costs: a shorter burst is over before a new replica could help.
SCALE_WAIT_S = 0.05
#: Replies that answer nothing, until we take the replica for broken: far more than late answers can explain.
MAX_STRAYS = 100
#: A replica skips an expired call by itself; one that has not after this is killed.
GHOST_GRACE_S = 0.1


class Effects(Protocol):
    """The only way out of the scheduler. None of these may call back before it returns."""

    def start(self, replica: ReplicaState) -> None:
        """Start a process for `replica.version`; `on_ready` or `on_exit` follows."""
        ...

    def send(self, replica: ReplicaState, call: PendingCall) -> None: ...

    def kill(self, replica: ReplicaState) -> None:
        """SIGKILL to all of it (`replica.doom` says why); `on_exit` follows."""
        ...

    def reply(self, call: PendingCall, message: Result | Failure | Refusal, payload: bytes) -> None:
        """Answer the caller; `message.id` may still be the replica's: the caller's is `call.call.id`."""
        ...


class Scheduler:
    """Owns all versions, replicas and calls of one host.

    `wake_at` is when `on_tick` must be called at the latest; any event may bring it forward.
    """

    def __init__(self, effects: Effects, settings: Settings) -> None:
        self.versions: dict[str, VersionState] = {}
        self.replicas: dict[int, ReplicaState] = {}
        self.figures = Figures()
        self.is_draining = False
        self.wake_at = math.inf
        self._effects = effects
        self._settings = settings
        self._serial = 0
        self._queued_bytes = 0
        self._places = Places(settings, self.replicas)

    # Events from callers

    def define(self, spec: VersionSpec) -> VersionState:
        version = self.versions.get(spec.key)
        if version is None:
            version = self.versions[spec.key] = VersionState(spec)
        version.spec = spec  # the same code; paths may have moved
        return version

    def on_call(self, source: Any, call: Call, payload: bytes, version: VersionState, now: float) -> PendingCall:
        self._serial += 1
        pending = PendingCall(source, call, payload, version, self._serial, now)
        if self.is_draining:
            self._refuse(pending, admission.draining(pending))
        elif pending.deadline <= now:
            self._refuse(pending, admission.deadline_passed(pending))
        elif not version.queue and (replica := version.free_replica(now)) is not None:
            self._send(replica, pending, now)
        else:
            self._queue(pending, now)
        return pending

    def on_cancel(self, call: PendingCall) -> None:
        """The caller does not want it any more. No answer is sent."""
        if call.ended:
            return
        self._close(call, "cancelled")

    # Events from replicas

    def on_ready(self, replica: ReplicaState, message: Ready, now: float) -> None:
        if replica.phase != "starting":
            return
        version = replica.version
        if message.error:
            self._start_failed(replica, message.error, message.stacktrace, False, now)
            self._doom(replica, "init")
            return
        version.starting = None
        version.started(now - replica.started_at)
        version.ready.append(replica)
        replica.phase = "ready"
        replica.idle_since = replica.last_event = now
        self._wake(now + self._settings.idle_s)
        self._dispatch(version, now)
        self._ensure_replicas(version, now)

    def on_reply(self, replica: ReplicaState, message: Result | Failure, payload: bytes, now: float) -> None:
        call = replica.in_flight.pop(message.id, None)
        if call is None:
            self._stray(replica)
            return
        version = replica.version
        busy_s = (now - replica.last_event) * min(len(replica.in_flight) + 1, version.concurrency)
        version.measured(busy_s, message.duration_s)
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
            self._became_idle(replica, now)
        elif replica.ghosts:
            self._wake(now + GHOST_GRACE_S)

    def on_violation(self, replica: ReplicaState) -> None:
        """It sent something that is no message of a replica."""
        self._doom(replica, "protocol")

    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        """The process has ended and everything it had sent has been taken in."""
        del self.replicas[replica.id]
        version = replica.version
        was_starting = replica is version.starting
        self._leave(replica)
        self.figures.ends[replica.doom or ("memory" if ending.out_of_memory else "exit")] += 1
        if was_starting:
            self._start_failed(replica, *_start_error(ending, version), ending.is_platform, now)
        elif not replica.doom and replica.num_replies == 0 and not replica.in_flight:
            # Without this a replica that ends by itself after loading would be started again without pause.
            self._start_failed(replica, f"ended right after loading ({ending.how})", ending.output, False, now)
        self._settle(replica, ending, now)
        for wanting in self._places.served_next():  # before its own: it may have been killed to make room for another
            self._ensure_replicas(wanting, now)
        self._dispatch(version, now)
        self._ensure_replicas(version, now)

    # Events of time and of the host

    def on_tick(self, now: float) -> None:
        """Everything that is due: deadlines, load deadlines, idle replicas, wants for more replicas."""
        self.wake_at = math.inf
        for version in self.versions.values():
            for call in [call for call in version.queue if call.deadline <= now]:
                self._refuse(call, admission.deadline_passed(call))
            for call in version.queue:
                self._wake(call.deadline)
            self._ensure_replicas(version, now)
        for replica in list(self.replicas.values()):
            self._tick_replica(replica, now)

    def on_drain(self) -> None:
        """Refuse what comes; what was accepted is still answered."""
        self.is_draining = True

    def on_drained(self, now: float) -> None:
        """No more time: refuse what is left and kill every replica."""
        for version in self.versions.values():
            for call in list(version.queue):
                self._refuse(call, admission.draining(call))
        for replica in list(self.replicas.values()):
            self._doom(replica, "drain")

    def retire(self, version: VersionState, why: Doom, now: float) -> None:
        """Replace all replicas of a version once they have answered what they have."""
        for replica in list(version.ready):
            self._retire(replica, why)
        if version.starting is not None:
            self._doom(version.starting, why)
        self._ensure_replicas(version, now)

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
        self._wake(call.deadline)
        self._ensure_replicas(version, now)

    def _dispatch(self, version: VersionState, now: float) -> None:
        queue = version.queue
        while queue and (replica := version.free_replica(now)) is not None:
            call = queue.pop()
            self._queued_bytes -= len(call.payload)
            self._send(replica, call, now)

    def _send(self, replica: ReplicaState, call: PendingCall, now: float) -> None:
        if not replica.in_flight:
            replica.last_event = now
        call.replica = replica
        call.sent_at = now
        replica.in_flight[call.serial] = call
        replica.in_flight_bytes += len(call.payload)
        if call.deadline < self.wake_at:
            self.wake_at = call.deadline
        self.figures.waited(now - call.arrived)
        self._effects.send(replica, call)

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

    def _stray(self, replica: ReplicaState) -> None:
        self.figures.strays += 1
        replica.strays += 1
        if replica.strays > MAX_STRAYS:
            self._doom(replica, "protocol")

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
            self._wake(call.deadline)
        for call in left:
            if not call.ended and call.serial in begun:
                self._end(call, *_crash_answer(call, replica, ending), b"")

    # Replicas

    def _ensure_replicas(self, version: VersionState, now: float) -> None:
        """Start a replica if calls wait for one. One at a time: its arrival decides about the next."""
        if not version.queue or version.starting is not None:
            return
        num_ready = sum(not replica.retired for replica in version.ready)
        if num_ready:
            if num_ready >= self._settings.max_replicas:
                return
            hurry_at = version.waiting_since + SCALE_WAIT_S
            if now < hurry_at and version.estimated_wait_s(now) < SCALE_WAIT_S:
                self._wake(hurry_at)
                return
        if now < version.retry_at:
            self._wake(version.retry_at)
            if not num_ready:
                self._answer_waiting(version, now)
            return
        if self._places.has_room_for(version):
            self._places.unwant(version)
            self._start(version, now)
            return
        self._places.want(version)
        replica = self._places.to_free(version, self.versions.values())
        if replica is not None:
            self._retire(replica, "room")

    def _start(self, version: VersionState, now: float) -> None:
        self._serial += 1
        replica = ReplicaState(self._serial, version, now)
        self.replicas[replica.id] = replica
        version.starting = replica
        self.figures.starts += 1
        self._wake(now + self._settings.load_s)
        self._effects.start(replica)

    def _start_failed(
        self, replica: ReplicaState, message: str, stacktrace: str, is_platform: bool, now: float
    ) -> None:
        version = replica.version
        version.start_failed(message, stacktrace, is_platform, now)
        if not version.ready:
            self._answer_waiting(version, now)

    def _answer_waiting(self, version: VersionState, now: float) -> None:
        for call in list(version.queue):
            self._refuse(call, admission.not_startable(call, now))

    def _doom(self, replica: ReplicaState, why: Doom) -> None:
        if replica.phase == "doomed":
            return
        self._leave(replica)
        replica.phase = "doomed"
        replica.doom = why
        self._effects.kill(replica)

    def _retire(self, replica: ReplicaState, why: Doom) -> None:
        if not replica.in_flight:
            self._doom(replica, why)
        else:
            replica.retired = why

    def _leave(self, replica: ReplicaState) -> None:
        """It takes no more calls."""
        version = replica.version
        if version.starting is replica:
            version.starting = None
        elif replica in version.ready:
            version.ready.remove(replica)

    def _became_idle(self, replica: ReplicaState, now: float) -> None:
        replica.idle_since = now
        if replica.phase != "ready":
            return
        if replica.retired:
            self._doom(replica, replica.retired)
        elif self._places.is_wanted(replica):
            self._doom(replica, "room")
        else:
            self._wake(now + self._settings.idle_s)

    def _tick_replica(self, replica: ReplicaState, now: float) -> None:
        if replica.phase == "starting":
            due = replica.started_at + self._settings.load_s
            if due > now:
                self._wake(due)
                return
            self._start_failed(replica, f"did not finish loading within {self._settings.load_s:g} s", "", False, now)
            self._doom(replica, "load")
        elif replica.phase == "ready" and not replica.in_flight:
            due = replica.idle_since + self._settings.idle_s
            self._doom(replica, "idle") if due <= now else self._wake(due)
        elif replica.in_flight:
            self._tick_calls(replica, now)

    def _tick_calls(self, replica: ReplicaState, now: float) -> None:
        begun = {call.serial for call in replica.begun()}
        overdue = False
        for call in list(replica.in_flight.values()):
            if not call.ended and call.deadline <= now:
                self._refuse(call, admission.deadline_passed(call))
                overdue = overdue or call.serial in begun
            elif not call.ended:
                self._wake(call.deadline)
            elif call.serial in begun and replica.phase != "doomed":
                due = call.deadline + GHOST_GRACE_S
                if due <= now:
                    overdue = True
                else:
                    self._wake(due)
        if overdue:
            self._doom(replica, "deadline")

    def _wake(self, at: float) -> None:
        if at < self.wake_at:
            self.wake_at = at


def _start_error(ending: Ending, version: VersionState) -> tuple[str, str]:
    if ending.is_platform:
        return ending.how, ""
    if ending.out_of_memory:
        return f"memory limit {_mib(version)} exceeded while loading", ending.output
    return f"ended while loading ({ending.how})", ending.output


def _crash_answer(call: PendingCall, replica: ReplicaState, ending: Ending) -> tuple[str, Failure | Refusal]:
    call_id, version = call.call.id, replica.version
    if ending.out_of_memory and not replica.doom:
        message = f"memory limit {_mib(version)} exceeded"
        return "failed", Failure(call_id, "OutOfMemoryError", message)
    how = {
        "": f"ended with {ending.how}",
        "deadline": "was killed: another call in it ran past its deadline",
        "protocol": "was killed: it broke the protocol of replicas",
        "drain": "was killed: the runner host is stopping",
    }.get(replica.doom, f"was killed ({replica.doom})")
    message = f"the algorithm's process {how} while the call ran"
    return "crashed", Refusal(call_id, "crashed", message, retriable=True)


def _mib(version: VersionState) -> str:
    return f"{version.spec.limits.memory_bytes / (1 << 20):g} MiB"
