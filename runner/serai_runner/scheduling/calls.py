"""The nouns the scheduler speaks of: a call on its way, a replica as the scheduler sees it, how a process ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from serai.ipc.messages import Call

if TYPE_CHECKING:
    from serai_runner.scheduling.version import VersionState


_NO_ITEMS: deque[int] = deque()


class PendingCall:
    """One accepted call until its end. `source` is whoever gets the answer; only the host looks into it."""

    __slots__ = (
        "arrived", "call", "deadline", "depth", "ended", "items_out", "payer", "payload", "replica", "reports",
        "sent_at", "serial", "source", "told_at", "version",
    )  # fmt: skip

    def __init__(
        self, source: Any, call: Call, payload: bytes, version: VersionState, serial: int, arrived: float
    ) -> None:
        self.source = source
        self.call = call
        self.payload = payload
        self.version = version
        self.serial = serial  # unique in this host; the id under which a replica knows the call
        self.arrived = arrived
        self.deadline = call.deadline
        self.payer = call.payer
        self.depth = call.depth
        self.replica: ReplicaState | None = None  # that has it now, or had it at its end
        self.sent_at = 0.0
        self.ended = False
        self.items_out = deque[int]() if call.wants_items else _NO_ITEMS  # sizes of those that its caller has not taken
        self.reports = 0  # of how it is doing
        self.told_at = 0.0  # when its caller last heard why it waits; 0: never


#: starting → ready → doomed; a doomed replica has been killed and only its exit is awaited.
Phase = Literal["starting", "ready", "doomed"]

#: Why the host kills a replica. "deadline": the call in it ran too long; "cancelled": its caller has left. "room":
#: another version needs the place.
Doom = Literal["", "deadline", "cancelled", "load", "init", "protocol", "idle", "room", "stale", "drain"]


class ReplicaState:
    """What the scheduler knows of one replica process."""

    __slots__ = (
        "complaint", "doom", "ghosts", "id", "idle_since", "in_flight", "in_flight_bytes", "last_event", "min_depth",
        "num_replies", "phase", "retired", "secrets", "started_at", "strays", "version",
    )  # fmt: skip

    def __init__(self, replica_id: int, version: VersionState, now: float, min_depth: int = 0) -> None:
        self.id = replica_id
        self.version = version
        self.secrets = version.secrets  # that its process has, or will have
        #: More than 0: it is beyond the version's number, for calls at least so deep. Otherwise calls that wait for
        #: calls of the same version could hold all its replicas for ever.
        self.min_depth = min_depth
        self.phase: Phase = "starting"
        self.complaint: tuple[str, str] | None = None  # why every call will fail, and its stack trace
        self.doom: Doom = ""
        self.retired: Doom = ""  # takes no more calls, and is killed for this reason when it has answered those it has
        #: In the order sent, so the first `concurrency` of them may have been begun and no others.
        self.in_flight: dict[int, PendingCall] = {}
        self.in_flight_bytes = 0
        self.ghosts = 0  # calls in flight that have their end already (cancelled, expired)
        self.started_at = now
        self.idle_since = now
        self.last_event = now  # when it last went from idle to busy or answered
        self.num_replies = 0
        self.strays = 0  # replies that answered nothing

    def begun(self) -> list[PendingCall]:
        """The calls that may have been begun."""
        calls = []
        for call in self.in_flight.values():
            if len(calls) == self.version.concurrency:
                break
            calls.append(call)
        return calls


@dataclass(frozen=True)
class Ending:
    """How a replica's process ended."""

    how: str  # "exit code 3", "signal 11 (SIGSEGV)"
    out_of_memory: bool = False
    output: str = ""  # the last it printed
    is_platform: bool = False  # the sandbox failed, not the author's code
    has_begun: bool = False  # the author's code had its turn, in a process that this one would have come from
