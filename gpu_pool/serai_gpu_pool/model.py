"""What the pool knows about one model file: where it is, who waits for it, what it costs. Pure."""

from serai_gpu_pool.batching import ServiceTime
from serai_gpu_pool.core import ModelSpec, State, Verdict
from serai_gpu_pool.queues import FairQueue

#: A session takes about its file twice while it is made: the file's bytes and the unpacked weights.
_GUESS_FACTOR = 2
#: And something for the graph, whatever the size of the weights.
_GUESS_BYTES = 4 << 20


class Model:
    """One model file, by content: versions that carry the same file share it."""

    __slots__ = (
        "condemned",
        "last_used",
        "load_s",
        "loaded_at",
        "measured_bytes",
        "queue",
        "spec",
        "state",
        "time",
        "verdict",
        "waiting_since",
    )

    def __init__(self, spec: ModelSpec, max_queued: int) -> None:
        self.spec = spec
        self.state = State.COLD
        self.queue = FairQueue(max_queued)
        self.time = ServiceTime()
        self.measured_bytes = 0  # resident size when it was last loaded; 0: never was
        self.load_s = 0.0
        self.loaded_at = 0.0
        self.last_used = 0.0
        self.waiting_since = 0.0  # since when it wants to be loaded
        self.condemned = False  # goes as soon as it is not leased; gets no new batch
        self.verdict: Verdict | None = None

    @property
    def key(self) -> str:
        return self.spec.sha256

    @property
    def least_bytes(self) -> int:
        """A model that needs more than the whole budget can never be loaded."""
        return self.measured_bytes or self.spec.num_bytes

    def bytes_to_reserve(self, budget: int) -> int:
        """For the load: what was measured and the file beside it, else a guess from the file."""
        if self.measured_bytes:
            wanted = self.measured_bytes + self.spec.num_bytes
        else:
            wanted = _GUESS_FACTOR * self.spec.num_bytes + _GUESS_BYTES
        return min(wanted, budget)

    @property
    def takes_batches(self) -> bool:
        return self.state is State.RESIDENT and not self.condemned

    def resident_until(self, loads: float) -> float:
        """End of its minimum residence."""
        return self.loaded_at + loads * self.load_s

    def wait_estimate_s(self) -> float:
        """How long a ticket that comes now would wait, as far as this model alone is concerned."""
        wait = len(self.queue) * self.time.per_item_s
        return wait + self.load_s if self.state is not State.RESIDENT else wait
