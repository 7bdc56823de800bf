"""The processes that run models on one device, as far as decisions need to know them. Pure.

DOWN ── start ──▶ STARTING ──▶ UP ── kill ──▶ ENDING ──▶ DOWN
"""

from enum import Enum

from serai_gpu_pool.core import Batch
from serai_gpu_pool.scheduling.copies import Copy, Place, WorkerId
from serai_gpu_pool.settings import Limits


class WorkerState(Enum):
    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"  # told to end: nothing is sent to it any more


#: What a runtime takes before anything is loaded, until one has said so.
_BASE_BYTES = {"onnx": 0, "torch": 300 << 20, "tensorflow": 500 << 20}
#: First wait before a worker that did not come up is started again; doubled each time, up to the last.
_RETRY_S, _MAX_RETRY_S = 0.1, 5.0
#: Starts that fail in a row before those who wait are told.
_MAX_FAILED_STARTS = 3
#: Batches, each in a lane of its own, that one worker may be stuck in while it still serves others.
MAX_LANES = 4


class Worker:
    __slots__ = ("base_bytes", "batches", "copies", "doomed", "error", "failed_starts", "hung", "id", "idle_since", "improving", "loading",
                 "process_bytes", "retry_at", "state")  # fmt: skip

    def __init__(self, id: WorkerId) -> None:
        self.id = id
        self.state = WorkerState.DOWN
        self.base_bytes = _BASE_BYTES.get(id.framework, 0) if id.owner else 0
        self.process_bytes = 0  # of the whole process, as it last said
        self.batches: dict[int, Batch] = {}  # that it has, in the order in which it was given them
        self.loading: dict[str, Copy] = {}  # the oldest first
        self.improving: Copy | None = None  # being opened in its fastest form
        self.copies: dict[str, Copy] = {}
        self.idle_since = 0.0
        self.failed_starts = 0
        self.retry_at = 0.0
        self.error = ""  # why it cannot be started; empty: it can, as far as we know
        self.hung: Copy | None = None  # for which it was killed
        self.doomed = ""  # why it is to be replaced as soon as nothing runs in it

    @property
    def name(self) -> str:
        """In the ledger."""
        return f"worker {self.id}"

    @property
    def is_up(self) -> bool:
        return self.state is WorkerState.UP

    @property
    def takes_work(self) -> bool:
        return self.state is WorkerState.UP and not self.doomed

    @property
    def is_quiet(self) -> bool:
        """Nothing runs, and nothing is on its way in or out."""
        return not (self.batches or self.loading or self.improving) and not any(
            copy.place is Place.LEAVING for copy in self.copies.values()
        )

    @property
    def is_idle(self) -> bool:
        """Quiet, and nobody waits for a model in it."""
        return self.is_quiet and not any(len(copy.model.queue) or copy.model.pinned for copy in self.copies.values())

    def may_load(self, copy: Copy, limits: Limits, now: float) -> bool:
        """One load at a time, since loads compete for disk and memory; but one that takes much longer than it should
        does not hold up the others. A suspect is loaded with nothing beside it, to know who it was."""
        if not self.takes_work or any(other.model.suspect for other in self.loading.values()):
            return False
        if copy.model.suspect:
            return not self.batches and not self.loading and not self.improving
        late = sum(now > self.load_is_late_at(other, limits) for other in self.loading.values())
        return len(self.loading) == late < MAX_LANES

    @staticmethod
    def load_is_late_at(copy: Copy, limits: Limits) -> float:
        expected = copy.model.load_s.get(copy.source, 0.0)
        return copy.began_at + max(limits.late_s, limits.late_factor * expected)

    def free_lane(self) -> int | None:
        """A lane in which nothing runs. None: it is stuck in all of them."""
        taken = {batch.lane for batch in self.batches.values()}
        return next((lane for lane in range(MAX_LANES) if lane not in taken), None)

    def start_failed(self, reason: str, now: float) -> bool:
        """Whether those who wait should be told."""
        self.state = WorkerState.DOWN
        self.failed_starts += 1
        self.retry_at = now + min(_RETRY_S * 2 ** min(self.failed_starts - 1, 30), _MAX_RETRY_S)
        if self.failed_starts < _MAX_FAILED_STARTS:
            return False
        self.error = reason
        return True

    def started(self) -> None:
        self.state = WorkerState.UP
        self.failed_starts, self.error, self.hung, self.doomed = 0, "", None, ""

    def ended(self) -> list[Batch]:
        """Its process is gone, and all that it held. The batches that it had, in order."""
        batches = list(self.batches.values())
        self.state = WorkerState.DOWN
        self.batches.clear()
        self.loading.clear()
        self.improving = None
        for copy in self.copies.values():
            copy.gone()
        return batches
