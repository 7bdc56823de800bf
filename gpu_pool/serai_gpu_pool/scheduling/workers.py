"""The processes that run models on one device, as far as decisions need to know them. Pure.

DOWN ── start ──▶ STARTING ──▶ UP ── kill ──▶ ENDING ──▶ DOWN
"""

from enum import Enum

from serai_gpu_pool.core import Batch
from serai_gpu_pool.scheduling.copies import Copy, WorkerId
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.settings import Limits


class WorkerState(Enum):
    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"  # told to end: nothing is sent to it any more


#: What a runtime takes before anything is loaded, until one has said so.
_BASE_BYTES = {"onnx": 0, "torch": 300 << 20, "tensorflow": 500 << 20}
#: How much more it may say. On a GPU there is a context beside it.
_MOST_BASE = 4
#: First wait before a worker that did not come up is started again; doubled each time, up to the last.
_RETRY_S, _MAX_RETRY_S = 0.1, 5.0
#: Starts that fail in a row before those who wait are told.
_MAX_FAILED_STARTS = 3
#: Batches, each in a lane of its own, that one worker may be stuck in while it still serves others.
MAX_LANES = 4
#: A worker of one owner keeps its place at least so long while others wait for it: its runtime took seconds to come up.
MIN_TURN_S = 10.0


class Worker:
    __slots__ = ("base_bytes", "batches", "copies", "doomed", "error", "failed_starts", "hung", "id", "idle_since",
                 "improving", "is_measured", "kept_for", "leaving", "loading", "most_base_bytes", "process_bytes",
                 "retry_at", "state", "up_since", "waiting")  # fmt: skip

    def __init__(self, id: WorkerId) -> None:
        self.id = id
        self.state = WorkerState.DOWN
        self.base_bytes = _BASE_BYTES.get(id.framework, 0) if id.owner else 0
        self.most_base_bytes = _MOST_BASE * self.base_bytes if id.owner else 1 << 50
        self.is_measured = False  # base_bytes is what it said itself
        self.up_since = 0.0
        self.process_bytes = 0  # of the whole process, as it last said
        self.batches: dict[int, Batch] = {}  # that it has, in the order in which it was given them
        self.loading: dict[str, Copy] = {}  # the oldest first
        self.improving: Copy | None = None  # being opened in its fastest form
        self.leaving: dict[str, Copy] = {}  # told to page it out or to close it
        self.copies: dict[str, Copy] = {}
        self.waiting: dict[str, Model] = {}  # models that wait until it is up, or may be tried again
        self.idle_since = 0.0
        self.failed_starts = 0
        self.retry_at = 0.0
        self.error = ""  # why it cannot be started; empty: it can, as far as we know
        self.kept_for: Copy | None = None  # a suspect: nothing is begun until it can be loaded with nothing beside it
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
        return not (self.batches or self.loading or self.improving or self.leaving)

    @property
    def is_idle(self) -> bool:
        """Quiet, and nobody waits for a model in it."""
        return self.is_quiet and not any(copy.model.is_asked_for for copy in self.copies.values())

    @property
    def is_pinned(self) -> bool:
        return any(copy.model.pinned for copy in self.copies.values())

    @property
    def moving(self) -> list[Copy]:
        """All that it was told to bring in, to improve or to bring out, and has not answered."""
        return [*self.loading.values(), *self.leaving.values(), *([self.improving] if self.improving else ())]

    def has_to_wait(self, now: float) -> bool:
        """Can it not even be started now?"""
        return self.state in (WorkerState.STARTING, WorkerState.ENDING) or (
            self.state is WorkerState.DOWN and now < self.retry_at
        )

    def may_load(self, copy: Copy, limits: Limits, now: float) -> bool:
        """One load at a time, since loads compete for disk and memory; but one that takes much longer than it should
        does not hold up the others. A suspect is loaded with nothing beside it, to know who it was: the worker is kept
        free for it."""
        if not self.takes_work or self.kept_for not in (None, copy):
            return False
        late = sum(now >= self.load_is_late_at(other, limits) for other in self.loading.values())
        if len(self.loading) > late or late >= MAX_LANES:
            return False
        if copy.model.suspect and not all(batch.is_late for batch in self.batches.values()):
            self.kept_for = copy
            return False
        return True

    def may_run(self, limits: Limits, now: float) -> bool:
        """Whether it takes batches beside what it loads. A suspect that takes long has others run beside it again."""
        return self.takes_work and self.kept_for is None and not any(
            other.model.suspect and now < self.load_is_late_at(other, limits) for other in self.loading.values()
        )  # fmt: skip

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
        self.leaving.clear()
        self.improving = self.kept_for = None
        for copy in self.copies.values():
            copy.gone()
        return batches
