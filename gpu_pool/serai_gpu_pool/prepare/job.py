"""What the box is asked to do, and what it answers: JSON in, one file out. The answer is as hostile as the model."""

from typing import Literal

import msgspec

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.frameworks.registry import FrameworkName
from serai_gpu_pool.profile import Profile

RESULT = "result.json"


class Job(msgspec.Struct, frozen=True):
    spec: ModelSpec
    framework: FrameworkName
    runtime: str  # as the profile shall say
    model: str  # where the file is
    folder: str  # where results go: the files are there, empty
    threads: int
    measure_s: float  # time that measuring may take
    give_up_s: float  # after opening, before all figures are given up: a run cannot be broken off
    memory_bytes: int  # limits that the box sets on itself
    file_bytes: int
    cpu_s: int
    processes: int  # 0: no limit
    parent: int  # who this dies with


class Failed(msgspec.Struct, frozen=True, tag="failed", forbid_unknown_fields=True):
    kind: Literal["broken", "damaged", "memory"]
    message: str

    @classmethod
    def of(cls, failure: LoadFailure) -> "Failed":
        return cls(failure.kind, failure.message)


class Measured(msgspec.Struct, frozen=True, tag="measured", forbid_unknown_fields=True):
    profile: Profile


Answer = Failed | Measured
