"""The nouns of the pool: a ticket waits in a queue, tickets leave together as a batch, each gets one outcome."""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from serai.ipc.messages import ModelSpec, RefusalCode, Wanted, Written
from serai_gpu_pool.arena import Slab

#: How a ticket's payload is written, and how its answer is wanted.
Form = Literal["json", "binary", "tensors"]


#: An input: its bytes, or where they lie in shared memory.
Payload = bytes | memoryview | Slab


class Ticket:
    """One call of one model, from its arrival to its one end."""

    __slots__ = (
        "alone",
        "as_json",
        "attempts",
        "cost_s",
        "counted",
        "deadline",
        "done",
        "enqueued_at",
        "form",
        "id",
        "link",
        "model",
        "out_of_memory",
        "outputs",
        "owner",
        "payer",
        "payload",
        "priority",
        "queued",
        "running",
        "tensors",
    )

    def __init__(
        self,
        id: int,
        model: str,
        payer: str,
        deadline: float,
        payload: Payload,
        form: Form = "json",
        link: Any = None,
        tensors: tuple[Written, ...] = (),
        outputs: tuple[Wanted, ...] = (),
        owner: str = "",
        priority: int = 0,
    ) -> None:
        self.id = id
        self.link = link  # whoever gets the answer; the decisions never look at it
        self.model = model  # key of the model
        self.owner = owner  # of the version that was called
        self.priority = priority  # among the calls of its payer: smaller goes first
        self.payer = payer
        self.deadline = deadline
        self.payload: Payload = payload  # let go as soon as nobody reads it any more
        self.form: Form = form
        self.tensors = tensors
        self.outputs = outputs  # wanted; empty: all
        self.as_json = False  # how those that are not named are wanted
        self.enqueued_at = 0.0
        self.queued = False  # waiting in its model's queue
        self.running = False  # in a batch: a worker may be reading its payload
        self.counted = False  # its deadline is watched
        self.done = False  # has had its end
        self.cost_s = 0.0  # what it was thought to take when it was queued
        self.alone = False  # has to run by itself: a batch with it ended its worker, or ran out of memory
        self.attempts = 0  # runs that ended with their worker
        self.out_of_memory = False  # has had its second chance after that

    def __repr__(self) -> str:
        return f"Ticket({self.id}, {self.model[:8]}, {self.payer})"


#: Why an item of a batch has no result: the model's or the caller's fault, or (small letters) a refusal. "no_room": the
#: others of its batch left none for its result; alone there is.
OutcomeKind = Literal["ok", "InputError", "ParsingError", "AlgorithmError", "OutOfMemoryError", "too_large", "no_room"]


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one item of a batch ended. Its bytes, where it has any, lie in the reply's payload."""

    num_bytes: int
    kind: OutcomeKind = "ok"
    message: str = ""
    tensors: tuple[Written, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that is not run, and why."""

    code: RefusalCode
    message: str
    retriable: bool = False
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A call that is not run because its model cannot be loaded: the author's fault, not ours."""

    message: str


End = Refused | Broken


@dataclass(slots=True)
class Batch:
    """Tickets that run together. In each lane of a worker one batch runs, the next one waits inside."""

    id: int
    model: str
    tickets: list[Ticket]
    started_at: float = 0.0  # when it began to run, as far as the owner can tell
    device: str = ""
    worker: Any = None  # its WorkerId
    lane: int = 0
    predicted_s: float = 0.0
    activation_bytes: int = 0  # set aside for it
    wants_measure: bool = False  # nobody knows what a batch of this size needs
    is_late: bool = False  # takes much longer than it should: others do not wait for it any more
    charged_s: float = 0.0  # to the payer of each ticket, until it is known what it took
    is_disowned: bool = False  # its tickets were given to others: nobody waits for its results
    payloads: list[Payload] = field(default_factory=list)  # of a disowned one: the worker may still read them


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model could not be loaded.

    kind: "broken" (the file is at fault), "damaged" (the store's copy is), "memory" (there was not enough).
    """

    kind: Literal["broken", "damaged", "memory"]
    message: str


@dataclass(slots=True)
class Verdict:
    """What is held against a model for a while: it is not loaded before `until`."""

    end: End
    until: float
    attempts: int = 1


@dataclass(slots=True)
class Counts:
    """Figures that only ever grow. Plain integers: the hot path must not pay for metrics."""

    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    hits: int = 0
    misses: int = 0
    worker_starts: int = 0
    worker_losses: int = 0
    batches: int = 0
    items: int = 0
    improvements: int = 0
    prefetches: int = 0
    foreseen: int = 0
    page_ins: int = 0
    out_of_memory: dict[str, int] = field(default_factory=dict)
    leaks: int = 0
    retried: int = 0
    late_batches: int = 0
    protocol_errors: int = 0
    ignored_messages: int = 0
    evictions: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


__all__ = [
    "Batch",
    "Broken",
    "Counts",
    "End",
    "Form",
    "LoadFailure",
    "ModelSpec",
    "Outcome",
    "OutcomeKind",
    "Payload",
    "Refused",
    "Ticket",
    "Verdict",
]
