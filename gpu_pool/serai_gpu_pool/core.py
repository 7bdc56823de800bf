"""The nouns of the pool: a ticket waits in a queue, tickets leave together as a batch, each gets one outcome."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import msgspec

from serai.ipc.messages import ModelSpec, RefusalCode, Tensor
from serai_gpu_pool.arena import Slab

#: How a ticket's payload is written, and how its answer is wanted.
Form = Literal["json", "binary", "tensors"]


#: An input: its bytes, or where they lie in shared memory.
Payload = bytes | memoryview | Slab


class Ticket:
    """One call of one model, from its arrival to its one end."""

    __slots__ = (
        "counted",
        "deadline",
        "done",
        "enqueued_at",
        "form",
        "id",
        "link",
        "model",
        "outputs",
        "payer",
        "payload",
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
        tensors: tuple[Tensor, ...] = (),
        outputs: tuple[str, ...] = (),
    ) -> None:
        self.id = id
        self.link = link  # whoever gets the answer; the decisions never look at it
        self.model = model  # sha256 of the model file
        self.payer = payer
        self.deadline = deadline
        self.payload: Payload = payload  # let go as soon as nobody reads it any more
        self.form: Form = form
        self.tensors = tensors
        self.outputs = outputs
        self.enqueued_at = 0.0
        self.queued = False  # waiting in its model's queue
        self.running = False  # in a batch: a worker may be reading its payload
        self.counted = False  # its deadline is watched
        self.done = False  # has had its end

    def __repr__(self) -> str:
        return f"Ticket({self.id}, {self.model[:8]}, {self.payer})"


#: Why an item of a batch has no result. The first three are the model's or the caller's fault, the rest are refusals.
OutcomeKind = Literal["ok", "InputError", "AlgorithmError", "OutOfMemoryError", "too_large"]


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one item of a batch ended. Its bytes, where it has any, lie in the reply's payload."""

    num_bytes: int
    kind: OutcomeKind = "ok"
    message: str = ""
    tensors: tuple[Tensor, ...] = ()


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


class State(Enum):
    COLD = "cold"
    LOADING = "loading"
    RESIDENT = "resident"
    DROPPING = "dropping"  # told to go; its bytes count until the device says they are free


@dataclass(slots=True)
class Batch:
    """Tickets that run together. The first batch of a device runs, the next ones wait inside its worker."""

    id: int
    model: str
    tickets: list[Ticket]
    started_at: float = 0.0


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
    "State",
    "Ticket",
    "Verdict",
]
