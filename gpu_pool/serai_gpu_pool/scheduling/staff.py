"""The workers of one device: which are up, which has to be started, and which ends so that another can be. Pure."""

from collections.abc import Container

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.scheduling import believable
from serai_gpu_pool.scheduling.copies import WorkerId
from serai_gpu_pool.scheduling.effects import Effects
from serai_gpu_pool.scheduling.ledger import Ledger
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.workers import MIN_TURN_S, Worker, WorkerState


class Staff:
    __slots__ = ("_device", "_effects", "_ledger", "workers")

    def __init__(self, device: str, ledger: Ledger, effects: Effects) -> None:
        self.workers: dict[WorkerId, Worker] = {}
        self._device = device
        self._ledger = ledger
        self._effects = effects

    def worker(self, id: WorkerId) -> Worker:
        worker = self.workers.get(id)
        if worker is None:
            worker = self.workers[id] = Worker(id)
        return worker

    def worker_for(self, model: Model) -> Worker:
        return self.worker(WorkerId(self._device, model.framework, worker_owner(model.spec)))

    def base_of(self, worker: Worker) -> int:
        """What its runtime takes before anything is loaded. A guess is not enough to say that it never fits."""
        return worker.base_bytes if worker.is_measured else min(worker.base_bytes, self._ledger.budget // 2)

    @property
    def num_of_owners(self) -> int:
        """Workers of single owners that are there, come or go."""
        return sum(bool(one.id.owner) and one.state is not WorkerState.DOWN for one in self.workers.values())

    # ── lives ────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, worker: Worker) -> None:
        """There must be room for it."""
        self._ledger.reserve(worker.name, self.base_of(worker))
        worker.state = WorkerState.STARTING
        self._effects.start_worker(worker.id)

    def started(self, worker: Worker, base_bytes: int, process_bytes: int, now: float) -> None:
        """`base_bytes` of the device are the runtime's own."""
        base_bytes = believable.base(base_bytes, worker.most_base_bytes)
        worker.started()
        worker.base_bytes, worker.process_bytes, worker.is_measured = base_bytes, process_bytes, True
        worker.idle_since = worker.up_since = now
        self._ledger.commit(worker.name, base_bytes)

    def start_failed(self, worker: Worker, reason: str, now: float) -> bool:
        """Whether those who wait should be told."""
        self._ledger.lost(worker.name)
        return worker.start_failed(reason, now)

    def end(self, worker: Worker, reason: str) -> None:
        worker.state = WorkerState.ENDING
        self._effects.kill_worker(worker.id, reason)

    def tidy(self, wanted: Container[str]) -> None:
        """End those that are to be replaced, and keep none free for a model that nobody wants any more."""
        for worker in self.workers.values():
            if worker.doomed and worker.is_up and worker.is_quiet:
                self.end(worker, worker.doomed)
            if worker.kept_for is not None and worker.kept_for.key not in wanted:
                worker.kept_for = None

    # ── for the sake of others ───────────────────────────────────────────────────────────────────────────────

    def expects_end(self) -> bool:
        """Does the worker of an owner go, or will it as soon as nothing runs in it?"""
        return any(
            bool(one.id.owner) and (one.state is WorkerState.ENDING or (one.is_up and bool(one.doomed)))
            for one in self.workers.values()
        )

    def end_another(self, model: Model, now: float, even_busy: bool) -> float | None:
        """A worker of another owner ends for the sake of `model`: the one that has been idle for longest, or else the
        one that has had its turn for longest. When one does, which may be now; None: never, as it looks."""
        if self.expects_end():
            return now  # wait for what that brings
        own = self.worker_for(model)
        others = [one for one in self.workers.values() if one.id.owner and one.is_up and one is not own]
        others = [one for one in others if not one.is_pinned]
        idle = [one for one in others if one.is_idle]
        if idle:
            self.end(min(idle, key=lambda one: one.idle_since), "idle, and its memory is wanted")
            return now
        longest = min(others, key=lambda one: one.up_since, default=None)
        if longest is None or not even_busy:
            return None
        if now >= longest.up_since + MIN_TURN_S:
            longest.doomed = "it had its turn, and others wait"
            return now
        return longest.up_since + MIN_TURN_S


def worker_owner(model: ModelSpec) -> str:
    """Whose worker runs it: a file that can run code never shares one with others. Empty: a shared one."""
    return "" if model.format == "onnx" else model.owner
