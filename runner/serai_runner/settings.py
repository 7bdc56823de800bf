"""All settings of a runner host, read once at the edge."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serai_runner.memory import total_bytes
from serai_runner.sandbox.docker.options import DockerOptions

SandboxChoice = Literal["auto", "docker", "bubblewrap", "none"]


_CHOSEN = "sandbox.json"


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Settings:
    """What the command line of `python -m serai_runner` sets."""

    home: Path
    sandbox: SandboxChoice = "auto"
    docker: DockerOptions = field(default_factory=DockerOptions)
    #: Replicas of a version whose author names no number. More than there are CPUs only take turns.
    replicas: int = field(default_factory=_cpu_count)
    #: The most that an author may name: calls that wait for something else than a CPU profit from more.
    max_replicas: int = 16
    #: Replicas that one owner's versions may keep without calls (scaling.min), all together.
    max_kept_per_owner: int = 4
    #: Replica processes of the whole host; past it the longest idle one makes room.
    max_processes: int = 32
    #: Of those, the most that versions of one owner may have: a quarter, so that nobody's long calls shut out the rest.
    max_processes_per_owner: int = 8
    #: An idle replica ends after this, if its author names nothing. Long enough for a person who tries it a few times.
    idle_s: float = 300.0
    #: The longest that an author may name.
    max_idle_s: float = 3600.0
    #: Boxes that stand without a version yet, so that a first call need not wait for one; about 10 MB each. 0: none.
    spares: int = 2
    #: Templates (processes that have loaded a version's code, to fork replicas from), all versions together; 0: none.
    max_templates: int = 8
    #: A template nobody forked from ends after this: it spares the next caller the loading that it cost.
    template_idle_s: float = 900.0
    #: Importing the code and `load()` together. A large framework takes 20 s from a cold disk.
    load_s: float = 60.0
    #: Waiting calls per slot (concurrency x replicas): ten service times is about what a caller still waits for.
    queue_per_slot: int = 10
    #: Waiting calls a version may always have: a burst on a cold algorithm, whose calls' length nobody knows yet.
    queue_min: int = 1024
    #: Inputs waiting in memory, all versions together.
    max_queued_bytes: int = 512 << 20
    #: After SIGTERM, calls that still run are given this long.
    drain_s: float = 30.0
    #: While this machine has less memory left than this, idle replicas and templates make room for what starts.
    memory_reserve_bytes: int = field(default_factory=lambda: total_bytes() // 8)
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
    def calls_path(self) -> Path:
        """Where the gateway takes what running calls ask for."""
        return self.run_directory / "calls.sock"

    @property
    def logs_path(self) -> Path:
        return self.home / "logs" / "versions"

    @property
    def pool_path(self) -> Path:
        return self.run_directory / "pool.sock"

    @classmethod
    def of(cls, home: Path) -> "Settings":
        """With the sandbox that this home's service was started with; "auto" where it never was."""
        try:
            told = json.loads((home / "run" / _CHOSEN).read_text())
            return cls(home, sandbox=told["sandbox"], docker=DockerOptions(**told["docker"]))
        except FileNotFoundError:
            return cls(home)

    def remember(self) -> None:
        """For `of`: builds run in the same sandbox as replicas."""
        told = {"sandbox": self.sandbox, "docker": dataclasses.asdict(self.docker)}
        (self.run_directory / _CHOSEN).write_text(json.dumps(told))
