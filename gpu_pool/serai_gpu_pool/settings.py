"""What can be set, read once at the start and passed in. A wrong value stops the start and names itself."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
#: Below this not even a small model fits beside its own run.
_MIN_BUDGET_BYTES = 1 << 20


class SettingError(ValueError):
    """A setting has a value that cannot be used."""


def parse_bytes(text: str) -> int:
    """`2GiB`, `512 MB`, `1048576` to bytes. Raises SettingError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise SettingError(f'"{text}" is not a size; write 512MiB or 2GiB')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def default_cpu_budget() -> int:
    """A quarter of this machine's memory: the rest is for replicas, the page cache and what models need to run."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def default_host_budget() -> int:
    """Another quarter: weights that left a device. On the CPU they are pages of files, which the kernel may take."""
    return default_cpu_budget()


@dataclass(frozen=True, slots=True)
class BatchLimits:
    #: From here on, stacking a small model saves next to nothing more (measured flat from 32 to 128).
    max_items: int = 64
    #: Input of one batch: it has to fit into a frame to the worker, and its arrays into memory beside the weights.
    max_bytes: int = 64 * 1024 * 1024
    #: No other model should wait longer than this for one batch, where it can be avoided.
    max_seconds: float = 0.025


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler decides by. Times in seconds."""

    #: Calls that may wait for one model; the next one is told to come back later.
    max_queued: int = 256
    #: Bytes of input that may wait in the whole pool.
    max_queued_bytes: int = 512 * 1024 * 1024
    #: A batch that takes longer than this is taken for hung, and its worker is killed.
    run_timeout_s: float = 30.0
    #: The same for a load: reading 1 GiB from a slow disk takes ten seconds.
    load_timeout_s: float = 60.0
    #: A batch or load that takes so much longer than it should, and longer than this, does not hold up others any more.
    late_factor: float = 8.0
    late_s: float = 0.25
    #: A batch has the device to itself for no longer than this, even when it was expected to take long: the others go
    #: on beside it. Long enough that what most models do is never shared, short enough to wait for.
    longest_alone_s: float = 0.5
    #: The next batch is sent to a worker while the last one still runs: this long before it is thought to end, so that
    #: the device does not idle for a round trip and who comes meanwhile is not behind two of them.
    lead_s: float = 0.002
    #: Whether models that are called by the clock are loaded shortly before they are called.
    foresees: bool = True
    #: Batches after which a model counts as hot, and is opened again in the form that runs fastest.
    improve_after: int = 4
    #: Seconds of work that wait for a model before another device gets a copy of it.
    replicate_s: float = 0.25
    #: A worker of one owner that has done nothing for so long is ended: a bare runtime takes hundreds of megabytes.
    worker_idle_s: float = 60.0
    #: Workers of single owners on one device.
    max_owner_workers: int = 16
    #: Where a new copy goes when several devices have room: "best_fit" keeps large gaps, "spread" evens out.
    placement: str = "spread"
    #: How long a model that waits for room lets others be served before their queues stop protecting them: so many
    #: times what its load takes, or devices would only load; and within these bounds, the upper one while nobody knows.
    patience_loads: float = 10.0
    min_patience_s: float = 0.005
    patience_s: float = 0.1
    #: A model stays at least this many times its own load time, so that a device does not only load.
    min_residence_loads: float = 1.0
    #: First and longest wait before a model that could not be loaded is tried again; doubled each time.
    retry_load_s: float = 1.0
    max_retry_load_s: float = 300.0
    batch: BatchLimits = field(default_factory=BatchLimits)


@dataclass(frozen=True, slots=True)
class Settings:
    home: Path
    cpu_budget_bytes: int
    #: For evicted weights.
    host_bytes: int = field(default_factory=default_host_budget)
    #: Who is evicted: see eviction.py.
    policy: str = DEFAULT_POLICY
    #: Which devices are used: "auto" (every GPU that is found, and the CPU), "cpu", or such as "cuda:0,cuda:1,cpu".
    devices: str = "auto"
    #: "auto" runs workers in a box where bubblewrap works, "bubblewrap" insists on it, "none" does without.
    sandbox: str = "auto"
    #: Threads that one run uses.
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    #: Shared memory for large inputs that wait or run. Only what was used once takes real memory.
    arena_bytes: int = 256 * 1024 * 1024
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.cpu_budget_bytes < _MIN_BUDGET_BYTES:
            raise SettingError(f"--cpu-budget {self.cpu_budget_bytes} is too small; at least {_MIN_BUDGET_BYTES} bytes")
        if self.policy not in POLICIES:
            raise SettingError(f"--eviction {self.policy} is not one of {', '.join(POLICIES)}")
        if self.limits.placement not in ("best_fit", "spread"):
            raise SettingError(f"--placement {self.limits.placement} is not best_fit or spread")
        if not 1 <= self.threads <= 1024:
            raise SettingError(f"--threads {self.threads} is not between 1 and 1024")

    @property
    def run(self) -> Path:
        """Sockets live here."""
        return self.home / "run"
