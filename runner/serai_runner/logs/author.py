"""What a version's author reads about its replicas and calls: their output, failures, ends and pauses.

Its secrets, where code prints them, are not written down: logs live longer, and are read by more people.
"""

from serai.ipc.messages import Failure, Ready, Result
from serai_runner.logs.logbook import Logbook
from serai_runner.scheduling.calls import Ending, ReplicaState
from serai_runner.scheduling.version import VersionState

#: Why a replica was killed, in words for its author. What is not here is none of the author's business.
_DOOMS = {
    "deadline": ("killed", "a call in it ran past its deadline"),
    "cancelled": ("killed", "the caller of the call in it has left"),
    "load": ("killed", "loading took too long"),
    "protocol": ("killed", "it broke the protocol of replicas"),
    "idle": ("idle", "ended after a time without calls"),
}


class AuthorLog:
    """Writes to the logbook."""

    def __init__(self, logbook: Logbook) -> None:
        self._book = logbook

    def started(self, replica: ReplicaState) -> None:
        self._book.event(replica.version.spec.key, replica.id, "start")

    def loaded(self, key: str, printed: bytes) -> None:
        """What the code printed while it was loaded, in a process that replicas are then forked from."""
        self._book.printed(key, 0, "", printed)

    def so_far(self, replica: ReplicaState, printed: bytes) -> None:
        """What the call that runs has printed since the last time."""
        begun = replica.begun()
        call_id = begun[0].call.call_id if begun else ""
        self._book.printed(replica.version.spec.key, replica.id, call_id, replica.secrets.hide_bytes(printed))

    def ready(self, replica: ReplicaState, message: Ready, printed: bytes, now: float) -> None:
        key = replica.version.spec.key
        self._book.printed(key, replica.id, "", replica.secrets.hide_bytes(printed))
        took_s = now - replica.started_at
        if message.error:
            stacktrace = message.stacktrace
            self._book.event(key, replica.id, "failed", message.error, stacktrace=stacktrace, duration_s=took_s)
        else:
            self._book.event(key, replica.id, "ready", duration_s=took_s)

    def replied(self, replica: ReplicaState, message: Result | Failure, payload: bytes, num_seen: int) -> None:
        """`num_seen`: bytes of what it printed that were told before."""
        call = replica.in_flight.get(message.id)
        if call is None:
            return
        key, call_id = replica.version.spec.key, call.call.call_id
        if message.stdout_bytes > num_seen:
            printed = payload[len(payload) - message.stdout_bytes + num_seen :]
            self._book.printed(key, replica.id, call_id, replica.secrets.hide_bytes(printed))
        if type(message) is Failure and not call.ended:
            self._book.failed(
                key, replica.id, call_id, message.error_type, message.message, message.stacktrace, message.duration_s
            )

    def ended(self, replica: ReplicaState, ending: Ending) -> None:
        key = replica.version.spec.key
        call_ids = ", ".join(call.call.call_id for call in replica.begun())
        if ending.output and replica.doom != "idle":
            self._book.printed(key, replica.id, call_ids, ending.output.encode())
        if replica.doom:
            if replica.doom in _DOOMS:
                name, text = _DOOMS[replica.doom]
                self._book.event(key, replica.id, name, text, call_id=call_ids)
        elif not ending.is_platform:
            text = ending.how
            if ending.out_of_memory:
                text = f"memory limit {replica.version.spec.limits.memory_bytes / (1 << 20):g} MiB exceeded"
            self._book.event(key, replica.id, "crashed", text, call_id=call_ids)

    def paused(self, version: VersionState, why: str, pause_s: float) -> None:
        self._book.event(version.spec.key, None, "backoff", f"{why}; next start in {max(pause_s, 0.0):.3g} s")
