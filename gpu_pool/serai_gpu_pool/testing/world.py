"""The other side of a scheduler, for tests that drive it through random histories: workers that answer when they are
told to, and a watch over all that is asked of them. Breaking a promise is an AssertionError at the moment of
breaking it."""

from dataclasses import dataclass, field
from typing import Literal

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.scheduler import Scheduler

#: What a model's weights do in a worker. "out": told to leave, not gone yet.
At = Literal["coming", "resident", "out", "paged"]


@dataclass(slots=True)
class WorkerSide:
    """One worker, as its process would know it."""

    state: Literal["down", "starting", "up", "ending"] = "down"
    models: dict[str, At] = field(default_factory=dict)
    leaving_to: dict[str, At | None] = field(default_factory=dict)  # None: closed
    improving: set[str] = field(default_factory=set)
    batches: dict[int, Batch] = field(default_factory=dict)

    def pending(self) -> list[tuple[str, str | int]]:
        """What it has been asked for and not answered."""
        coming: list[tuple[str, str | int]] = [("load", key) for key, at in self.models.items() if at == "coming"]
        first: dict[int, Batch] = {}
        for batch in self.batches.values():
            first.setdefault(batch.lane, batch)
        return [
            *coming,
            *(("leave", key) for key in self.leaving_to),
            *(("improve", key) for key in self.improving),
            *(("batch", batch.id) for batch in first.values()),
        ]


class World:
    """Implements `Effects`. Its methods that begin with `answer` report to the scheduler, as workers would."""

    def __init__(self, max_items: int) -> None:
        self.workers: dict[WorkerId, WorkerSide] = {}
        self.ends: dict[Ticket, Outcome | End] = {}
        self.cancelled: set[Ticket] = set()
        self.settled: list[object] = []
        self.condemned_before_pin: set[str] = set()  # these go, and come back
        self._max_items = max_items
        self._scheduler: Scheduler | None = None

    def connect(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def scheduler(self) -> Scheduler:
        assert self._scheduler is not None, "connect comes first"
        return self._scheduler

    def side(self, id: WorkerId) -> WorkerSide:
        return self.workers.setdefault(id, WorkerSide())

    # ── Effects ──────────────────────────────────────────────────────────────────────────────────────────────

    def start_worker(self, worker: WorkerId) -> None:
        side = self.side(worker)
        assert side.state == "down", f"{worker} is {side.state} and was started"
        self.workers[worker] = WorkerSide("starting")

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        self._up(worker).state = "ending"

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        side = self._up(worker)
        assert model.key not in side.models, f"{model.key} is {side.models.get(model.key)} and was loaded"
        assert not worker.owner or worker.owner == model.owner, "a worker of somebody else"
        side.models[model.key] = "coming"

    def page_in(self, worker: WorkerId, key: str) -> None:
        side = self._up(worker)
        assert side.models[key] == "paged"
        side.models[key] = "coming"

    def page_out(self, worker: WorkerId, key: str) -> None:
        self._leaves(worker, key, "paged")

    def close(self, worker: WorkerId, key: str) -> None:
        self._leaves(worker, key, None)

    def improve(self, worker: WorkerId, key: str) -> None:
        side = self._up(worker)
        assert side.models[key] == "resident" and key not in side.improving
        side.improving.add(key)

    def run(self, batch: Batch) -> None:
        side = self._up(batch.worker)
        assert side.models[batch.model] == "resident", "a batch for a model that is not there"
        assert 1 <= len(batch.tickets) <= self._max_items
        assert len(batch.tickets) == 1 or not any(ticket.alone for ticket in batch.tickets)
        assert all(ticket.model == batch.model and not ticket.done for ticket in batch.tickets)
        device = self.scheduler.devices[batch.device]
        assert device.ledger.leases(batch.model)
        on_time = [one for one in device.running.values() if not one.is_late]
        assert len(on_time) <= 2, "more than one batch and one behind it"
        assert len({(one.worker, one.lane) for one in on_time}) == 1, "two at once that are on time"
        side.batches[batch.id] = batch

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        self._ends(ticket, outcome)

    def refuse(self, ticket: Ticket, end: End) -> None:
        self._ends(ticket, end)

    def _ends(self, ticket: Ticket, end: Outcome | End) -> None:
        assert ticket not in self.ends and ticket not in self.cancelled, "a second end"
        self.ends[ticket] = end

    def _up(self, worker: WorkerId) -> WorkerSide:
        side = self.side(worker)
        assert side.state == "up", f"{worker} is {side.state} and was asked for something"
        return side

    def _leaves(self, worker: WorkerId, key: str, to: At | None) -> None:
        side = self._up(worker)
        assert side.models[key] in ("resident", "paged") and key not in side.improving
        assert not any(batch.model == key for batch in side.batches.values()), "it is leased"
        if side.models[key] == "resident" and key not in self.condemned_before_pin:
            assert not self.scheduler.models[key].pinned, "it is pinned"
        self.condemned_before_pin.discard(key)
        side.models[key], side.leaving_to[key] = "out", to

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────

    def answer_start(self, id: WorkerId, base_bytes: int, now: float, fails: bool = False) -> None:
        side = self.side(id)
        if fails:
            side.state = "down"
            self.scheduler.on_start_failed(id, "exit code 1", now)
        else:
            side.state = "up"
            self.scheduler.on_worker_ready(id, base_bytes, 1, now)

    def answer_lost(self, id: WorkerId, reason: str, now: float) -> None:
        self.workers[id] = WorkerSide()
        self.scheduler.on_worker_lost(id, reason, now)

    def answer_load(self, id: WorkerId, key: str, result: Residence | LoadFailure, load_s: float, now: float) -> None:
        side = self.side(id)
        if isinstance(result, LoadFailure):
            del side.models[key]
            self.scheduler.on_load_failed(id, key, result, now)
        else:
            side.models[key] = "resident"
            self.scheduler.on_loaded(id, key, result, load_s, now)

    def answer_leave(self, id: WorkerId, key: str, kept_bytes: int, process_bytes: int, now: float) -> None:
        side = self.side(id)
        to = side.leaving_to.pop(key)
        if to is None:
            del side.models[key]
        else:
            side.models[key] = to
        self.scheduler.on_left(id, key, kept_bytes if to else 0, process_bytes, now)

    def answer_improve(self, id: WorkerId, key: str, result: Residence | None, now: float) -> None:
        self.side(id).improving.discard(key)
        self.scheduler.on_improved(id, key, result, now)

    def answer_batch(
        self, id: WorkerId, number: int, outcomes: list[Outcome], seconds: float, peak_bytes: int, now: float
    ) -> None:
        side = self.side(id)
        if len(outcomes) == len(side.batches[number].tickets):  # else the scheduler must not take it for an answer
            del side.batches[number]
        self.scheduler.on_batch_done(id, number, [(one, b"") for one in outcomes], seconds, peak_bytes, now)
