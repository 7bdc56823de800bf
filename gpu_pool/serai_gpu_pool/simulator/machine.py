"""A machine that is only arithmetic: it does what `Effects` asks for after the time that it would take.

disk ── one read at a time, for all devices ──▶ device ── page out ──▶ host tier ── copies ──▶ device
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Batch, End, Outcome, Ticket
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.simulator.traces import SimModel

_OK = (Outcome(0), b"")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Rates in bytes a second, times in seconds. The defaults are those of a small CPU machine."""

    devices: int = 1
    budget_bytes: int = 1 << 30  # of each device
    host_bytes: int = 0  # of the tier below all devices; 0: what leaves a device goes to disk
    disk_bytes_per_s: float = 1.5e9
    copy_bytes_per_s: float = 20e9  # from the host tier to a device, each
    page_in_s: float = 0.0003  # beside the copy
    leave_s: float = 0.0001  # to drop pages, or to close
    start_s: float = 1.0  # of a worker
    hop_s: float = 0.00005  # from owner to worker, or back
    noise: float = 0.0  # standard deviation of the logarithm of each time


class Ends(Protocol):
    """Whoever wants to know how calls ended."""

    def finish(self, ticket: Ticket, now: float) -> None: ...
    def refuse(self, ticket: Ticket, end: End, now: float) -> None: ...


class Machine:
    """Implements `Effects`. `connect` it to a scheduler, then run what is `due`."""

    def __init__(self, hardware: Hardware, models: dict[str, SimModel], ends: Ends, seed: int = 1) -> None:
        self.now = 0.0
        self.busy_s = 0.0  # of all devices together
        self._hardware = hardware
        self._models = models
        self._ends = ends
        self._random = np.random.default_rng(seed)
        self._scheduler: Scheduler | None = None
        self._heap: list[tuple[float, int, WorkerId, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._lives: dict[WorkerId, int] = {}  # what was begun in an earlier life is never answered
        self._disk_free_at = 0.0
        self._lanes: dict[tuple[WorkerId, int], float] = {}  # when each is free again

    def connect(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def run_due(self, now: float) -> bool:
        """Tell the scheduler what has happened by now. Whether anything has."""
        told = False
        while self._heap and self._heap[0][0] <= now:
            _, _, worker, life, event, arguments = heapq.heappop(self._heap)
            if life == self._lives.get(worker, 0):
                event(*arguments, now)
                told = True
        return told

    # ── Effects ──────────────────────────────────────────────────────────────────────────────────────────────

    def start_worker(self, worker: WorkerId) -> None:
        self._after(self._hardware.start_s, worker, self._to().on_worker_ready, worker, 0, 0)

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        self._lives[worker] = self._lives.get(worker, 0) + 1
        for lane in [one for one in self._lanes if one[0] == worker]:
            del self._lanes[lane]
        self._after(self._hardware.hop_s, worker, self._to().on_worker_lost, worker, reason)

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        known = self._models[model.key]
        begin = max(self.now, self._disk_free_at)
        self._disk_free_at = begin + self._vary(known.num_bytes / self._hardware.disk_bytes_per_s)
        took_s = self._disk_free_at - self.now + self._vary(known.open_s)
        self._loaded(worker, known, took_s)

    def page_in(self, worker: WorkerId, key: str) -> None:
        known = self._models[key]
        copy_s = known.num_bytes / self._hardware.copy_bytes_per_s
        self._loaded(worker, known, self._vary(copy_s + self._hardware.page_in_s))

    def _loaded(self, worker: WorkerId, known: SimModel, took_s: float) -> None:
        kept = known.num_bytes if self._hardware.host_bytes else 0
        residence = Residence(known.num_bytes, kept, can_page=bool(kept), can_improve=False)
        after_s = took_s + 2 * self._hardware.hop_s
        self._after(after_s, worker, self._to().on_loaded, worker, known.name, residence, took_s)

    def page_out(self, worker: WorkerId, key: str) -> None:
        self._leave(worker, key, self._models[key].num_bytes)

    def close(self, worker: WorkerId, key: str) -> None:
        self._leave(worker, key, 0)

    def _leave(self, worker: WorkerId, key: str, kept_bytes: int) -> None:
        took_s = self._vary(self._hardware.leave_s) + 2 * self._hardware.hop_s
        self._after(took_s, worker, self._to().on_left, worker, key, kept_bytes, 0)

    def improve(self, worker: WorkerId, key: str) -> None:
        self._after(self._hardware.hop_s, worker, self._to().on_improved, worker, key, None)

    def run(self, batch: Batch) -> None:
        model, number = self._models[batch.model], len(batch.tickets)
        took_s = self._vary(model.item_s * number + model.batch_s)
        lane = batch.worker, batch.lane
        ends = max(self.now + self._hardware.hop_s, self._lanes.get(lane, 0.0)) + took_s
        self._lanes[lane] = ends
        self.busy_s += took_s
        done = self._to().on_batch_done
        self._at(ends + self._hardware.hop_s, batch.worker, done, batch.worker, batch.id, [_OK] * number, took_s, 0)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        self._ends.finish(ticket, self.now)

    def refuse(self, ticket: Ticket, end: End) -> None:
        self._ends.refuse(ticket, end, self.now)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _to(self) -> Scheduler:
        assert self._scheduler is not None, "connect the machine first"
        return self._scheduler

    def _after(self, seconds: float, worker: WorkerId, event: Callable[..., None], *arguments: Any) -> None:
        self._at(self.now + seconds, worker, event, *arguments)

    def _at(self, at: float, worker: WorkerId, event: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, worker, self._lives.get(worker, 0), event, arguments))

    def _vary(self, seconds: float) -> float:
        noise = self._hardware.noise
        return seconds * float(np.exp(self._random.normal(0.0, noise))) if noise else seconds
