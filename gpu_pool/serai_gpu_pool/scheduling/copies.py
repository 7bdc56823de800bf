"""A model on one device: where its weights are, and who works with them. Pure.

DISK ── load ──▶ LOADING ──▶ RESIDENT ── page out ──▶ LEAVING ──▶ HOST ── page in ──▶ LOADING ──▶ RESIDENT
                                 │                                 │
                                 └────────── close ──▶ LEAVING ◀───┘ ──▶ DISK
"""

from enum import Enum
from typing import Literal, NamedTuple

from serai_gpu_pool.scheduling.model import Model


class Place(Enum):
    DISK = "disk"
    LOADING = "loading"
    RESIDENT = "resident"
    LEAVING = "leaving"  # told to go; its bytes count until the device says that they are free
    HOST = "host"


#: How long a model that was loaded for calls is kept for the first of them. Longer than any batch that is on time.
_FIRST_RUN_S = 1.0

#: Where a load comes from.
Tier = Literal["disk", "host"]


class WorkerId(NamedTuple):
    """A process that runs models: which device and framework, and whose models where the format can run code."""

    device: str
    framework: str
    owner: str = ""  # empty: shared

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class Residence(NamedTuple):
    """What a worker says of a model that it has loaded. Bytes as measured."""

    num_bytes: int  # of the device's memory
    kept_bytes: int  # of host memory, when it is paged out
    can_page: bool  # or does it have to be closed to leave the device
    can_improve: bool  # there is a faster form of it


class Copy:
    __slots__ = ("began_at", "can_improve", "can_page", "condemned", "improving", "is_unused", "kept_bytes",
                 "key", "last_used", "loaded_at", "model", "place", "reason", "runs", "source", "target",
                 "worker")  # fmt: skip

    def __init__(self, model: Model, worker: WorkerId) -> None:
        self.model = model
        self.key = model.key
        self.worker = worker
        self.place = Place.DISK
        self.source: Tier = "disk"  # of the load that goes on, or was the last
        self.target: Tier = "disk"  # where it goes when it leaves
        self.can_page = False
        self.can_improve = False
        self.improving = False  # a faster form is being opened beside it
        self.kept_bytes = 0
        self.began_at = 0.0  # of the load or departure that goes on
        self.loaded_at = 0.0
        self.last_used = 0.0
        self.runs = 0  # batches since it was opened
        self.is_unused = True  # no batch since it was loaded
        self.condemned = False  # goes as soon as it is not leased; gets no new batch
        self.reason = ""  # why it goes, or last went

    @property
    def improved(self) -> bool:
        """Does it run in its fastest form?"""
        return self.worker.device in self.model.improved_on

    @property
    def takes_batches(self) -> bool:
        return self.place is Place.RESIDENT and not self.condemned

    def resident_until(self, loads: float) -> float:
        """End of its minimum residence. What was loaded for calls is to run at least one batch of them."""
        if self.is_unused and len(self.model.queue):
            return self.loaded_at + max(loads * self.model.load_s.get(self.source, 0.0), _FIRST_RUN_S)
        return self.loaded_at + loads * self.model.load_s.get(self.source, 0.0)

    def gone(self) -> None:
        """Its process has ended, or it was closed."""
        self.place = Place.DISK
        self.condemned = self.improving = self.can_improve = self.can_page = False
        self.model.improved_on.discard(self.worker.device)
        self.kept_bytes = self.runs = 0
