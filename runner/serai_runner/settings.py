"""All settings of a runner host, read once at the edge."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SandboxChoice = Literal["auto", "bubblewrap", "none"]


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Settings:
    """What the command line of `python -m serai_runner` sets."""

    home: Path
    sandbox: SandboxChoice = "auto"
    #: Replicas of one version. More than there are CPUs only take turns.
    max_replicas: int = field(default_factory=_cpu_count)
    #: Replica processes of the whole host; past it the longest idle one makes room.
    max_processes: int = 32
    #: Of those, the most that versions of one owner may have: a quarter, so that nobody's long calls shut out the rest.
    max_processes_per_owner: int = 8
    #: An idle replica ends after this. Long enough for a person who tries an algorithm a few times.
    idle_s: float = 300.0
    #: Importing the code and `load()` together. A large framework takes 20 s from a cold disk.
    load_s: float = 60.0
    #: Waiting calls per slot (concurrency x replicas): ten service times is about what a caller still waits for.
    queue_per_slot: int = 10
    #: Waiting calls a version may always have.
    queue_min: int = 64
    #: Inputs waiting in memory, all versions together.
    max_queued_bytes: int = 512 << 20
    #: After SIGTERM, calls that still run are given this long.
    drain_s: float = 30.0
    #: Processes and threads of one replica.
    max_pids: int = 256
    #: A replica's private /tmp.
    tmp_bytes: int = 512 << 20

    @property
    def run_directory(self) -> Path:
        return self.home / "run"

    @property
    def socket_path(self) -> Path:
        return self.run_directory / "runner.sock"

    @property
    def pool_path(self) -> Path:
        return self.run_directory / "pool.sock"
