"""What the scheduler can have done. The only way out of it."""

from typing import Protocol

from serai.ipc.messages import Cancel, Failure, Item, More, Progress, Refusal, Result, Waiting
from serai_runner.scheduling.calls import PendingCall, ReplicaState
from serai_runner.scheduling.version import VersionState


class Effects(Protocol):
    """None of these may call back before it returns."""

    def start(self, replica: ReplicaState) -> None:
        """Start a process for `replica.version`; `on_ready` or `on_exit` follows."""
        ...

    def send(self, replica: ReplicaState, call: PendingCall) -> None: ...

    def tell_replica(self, replica: ReplicaState, message: Cancel | More) -> None:
        """Something about a call that it has; `message.id` is the call's serial."""
        ...

    def kill(self, replica: ReplicaState) -> None:
        """SIGKILL to all of it (`replica.doom` says why); `on_exit` follows."""
        ...

    def reply(self, call: PendingCall, message: Result | Failure | Refusal, payload: bytes) -> None:
        """Answer the caller; `message.id` may still be the replica's: the caller's is `call.call.id`."""
        ...

    def tell_caller(self, call: PendingCall, message: Item | Progress | Waiting, payload: bytes) -> None:
        """Something before the answer, to a caller who wants that."""
        ...

    def paused(self, version: VersionState, why: str, pause_s: float) -> None:
        """No replica of the version is started for so long. For its author."""
        ...
