"""What the scheduler remembers of one version: its queue, its replicas, and how long its calls take."""

from serai.ipc.messages import VersionSpec
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_runner.scheduling.calls import ReplicaState
from serai_runner.scheduling.crashes import Crashes
from serai_runner.scheduling.fair_queue import FairQueue

#: Weight of the newest sample in the averages: the last twenty calls decide.
_ALPHA = 0.1
#: Work that may lie ahead in a replica's socket. One wake-up of a process costs about 50 µs, so sending a
#: millisecond of work at once makes that cost small, and a call never waits longer than this behind others unseen.
SEND_AHEAD_S = 0.001
MAX_DEPTH = 32
#: Reading, parsing and writing a call costs a replica at least this, besides the algorithm.
_LEAST_WORK_S = 20e-6
#: Of what we see of a short call, at least this part is work and the rest may be wake-ups.
_WAKE_UPS = 1 / 8
#: A replica that is silent for longer works on something slow, however fast its calls were: what comes now waits in our
#: queue, where another replica can take it. Above the pauses that a busy machine makes between two wake-ups.
STALLED_S = 0.005
#: Payloads above this are not sent ahead: they would only fill the socket's buffer.
SEND_AHEAD_BYTES = 256 * 1024
#: A queue may always hold this much work, even of tiny calls…
QUEUE_WORTH_S = 0.1
#: …up to this many calls.
QUEUE_WORTH_MAX = 4096
#: Back-off after a start that failed: doubles from the first to the last.
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 60.0


class VersionState:
    """Mutable, owned by the scheduler."""

    __slots__ = (
        "_deviation_s", "_work_s", "backoff_is_platform", "concurrency", "crashes", "depth", "failures", "init_message",
        "init_stacktrace", "is_kept", "queue", "ready", "retry_at", "secrets", "sends_ahead", "service_s", "spec",
        "start_s", "starting", "waiting_since",
    )  # fmt: skip

    def __init__(self, spec: VersionSpec) -> None:
        self.spec = spec
        self.secrets: Secrets = NO_SECRETS
        self.concurrency = max(1, spec.limits.concurrency)
        #: While its code may call others, a replica has one call, so that everybody knows whose calls those are.
        self.sends_ahead = not spec.calls
        self.queue = FairQueue()
        self.is_kept = False  # has its `scaling.min_replicas` without calls
        self.crashes = Crashes()
        self.waiting_since = 0.0  # since when the queue has not been empty
        self.ready: list[ReplicaState] = []
        self.starting: ReplicaState | None = None
        self.service_s = 0.0  # 0: not measured yet
        self._work_s = 0.0
        self._deviation_s = 0.0
        self.depth = self.concurrency
        self.start_s = 0.0  # 0: not measured yet
        self.failures = 0
        self.retry_at = 0.0
        self.init_message = ""
        self.init_stacktrace = ""
        self.backoff_is_platform = False

    def take_secrets(self, secrets: Secrets) -> bool:
        """Have new replicas started with them; whether those that there are have others.

        What is older than what we have counts for nothing: gateways learn of a change one after the other.
        """
        if secrets.changed_at <= self.secrets.changed_at:
            return False
        has_others = secrets.values != self.secrets.values
        self.secrets = secrets
        if has_others:  # a wrong one may have been why it could not start
            self.failures, self.retry_at = 0, 0.0
            self.crashes = Crashes()
        return has_others

    @property
    def num_live(self) -> int:
        return len(self.ready) + (self.starting is not None)

    def measured(self, service_s: float, told_s: float) -> None:
        """Take in how long a replica was busy with one call, as we saw it and as it says itself.

        What we see holds the wake-ups of both processes, and those are what sending ahead saves; so the replica's
        own figure decides about that, as far as it is believable. A false one harms only its own version's calls.
        """
        work_s = max(told_s, service_s * _WAKE_UPS, _LEAST_WORK_S)
        if self.service_s == 0.0:
            self.service_s, self._work_s = max(service_s, 1e-6), work_s
        else:
            self.service_s = max(self.service_s + _ALPHA * (service_s - self.service_s), 1e-6)
            error = work_s - self._work_s
            self._work_s += _ALPHA * error
            self._deviation_s += _ALPHA * (abs(error) - self._deviation_s)
        # The spread counts: a version that is mostly fast and sometimes slow must not have calls stuck behind.
        pessimistic = self._work_s + self._deviation_s
        ahead = int(SEND_AHEAD_S / pessimistic) if pessimistic < SEND_AHEAD_S else 1
        self.depth = max(self.concurrency, min(ahead, MAX_DEPTH)) if self.sends_ahead else self.concurrency

    def free_replica(self, now: float) -> ReplicaState | None:
        """The ready replica with the fewest calls, if one has room."""
        best, fewest = None, self.depth
        for replica in self.ready:
            num_calls = len(replica.in_flight)
            if replica.retired or num_calls >= fewest or replica.min_depth:
                continue
            if num_calls >= self.concurrency and (
                replica.in_flight_bytes > SEND_AHEAD_BYTES or now - replica.last_event > STALLED_S
            ):
                continue
            best, fewest = replica, num_calls
            if num_calls == 0:
                break
        return best

    def replica_for_inner(self) -> ReplicaState | None:
        """An idle replica that only takes calls which others wait for, and one of them waits that is deep enough."""
        deepest = self.queue.deepest
        for replica in self.ready:
            if replica.min_depth and replica.min_depth <= deepest and not replica.in_flight and not replica.retired:
                return replica
        return None

    def capacity(self, per_slot: int, at_least: int) -> int:
        """How many calls may wait."""
        bound = max(at_least, per_slot * self.concurrency * max(1, len(self.ready)))
        if self.service_s:
            bound = max(bound, min(int(QUEUE_WORTH_S / self.service_s), QUEUE_WORTH_MAX))
        return bound

    def estimated_wait_s(self, now: float) -> float:
        """Until a call that joins the queue now would begin; 0 when nothing is known."""
        slots = self.concurrency * max(1, len(self.ready))
        wait = len(self.queue) * self.service_s / slots
        if not self.ready:
            since = self.starting.started_at if self.starting is not None else now
            wait += max(0.0, self.start_s - (now - since))
        return wait

    def started(self, took_s: float) -> None:
        self.start_s = took_s if self.start_s == 0.0 else self.start_s + 0.3 * (took_s - self.start_s)
        self.failures = 0
        self.retry_at = 0.0

    def start_failed(self, message: str, stacktrace: str, is_platform: bool, now: float) -> None:
        self.init_message, self.init_stacktrace, self.backoff_is_platform = message, stacktrace, is_platform
        self.retry_at = now + min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2**self.failures)
        self.failures = min(self.failures + 1, 20)
