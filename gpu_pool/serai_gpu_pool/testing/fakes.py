"""Workers without processes, and a recorder for what a scheduler causes."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.arena import Slab
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.device.base import WorkerEvents
from serai_gpu_pool.device.items import run_items
from serai_gpu_pool.device.messages import Item
from serai_gpu_pool.device.stacking import Stacker
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.tensors.signature import Array, Signature, Slot


class FakeWorkers:
    """Runs every model as "add one to x", in this process. Does what `Workers` promises, in the same order."""

    signature = Signature((Slot("x", "float32", (None, 3)),), (Slot("y", "float32", (None, 3)),))

    def __init__(self, resident_bytes: int | None = None) -> None:
        self._events: WorkerEvents | None = None
        self._resident_bytes = resident_bytes  # what every model is measured as; None: as its file
        self._models: dict[WorkerId, dict[str, tuple[Stacker, int]]] = {}
        self._lives: dict[WorkerId, int] = {}  # work that was begun in an earlier one is never answered

    def begin(self, events: WorkerEvents) -> None:
        self._events = events

    def start_worker(self, worker: WorkerId) -> None:
        assert self._events
        self._lives[worker] = self._lives.get(worker, 0) + 1
        self._models[worker] = {}
        self._soon(worker, self._events.on_worker_ready, worker, 0, 1)

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        assert self._events
        self._lives[worker] += 1
        self._models[worker] = {}
        self._soon(worker, self._events.on_worker_lost, worker, reason)

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        assert self._events
        data = Path(model.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != model.sha256:
            failure = LoadFailure("damaged", "checksum is wrong")
        elif data[:1] != b"\x08":  # where an ONNX file says its version
            failure = LoadFailure("broken", "not an ONNX model")
        else:
            self._models[worker][model.key] = (Stacker(self.signature, _add_one), model.num_bytes)
            self._soon(worker, self._events.on_loaded, worker, model.key, self._residence(model.num_bytes), 0.001)
            return
        self._soon(worker, self._events.on_load_failed, worker, model.key, failure)

    def page_in(self, worker: WorkerId, key: str) -> None:
        assert self._events
        residence = self._residence(self._models[worker][key][1])
        self._soon(worker, self._events.on_loaded, worker, key, residence, 0.0001)

    def page_out(self, worker: WorkerId, key: str) -> None:
        assert self._events
        self._soon(worker, self._events.on_left, worker, key, self._models[worker][key][1], 0)

    def close(self, worker: WorkerId, key: str) -> None:
        assert self._events
        del self._models[worker][key]
        self._soon(worker, self._events.on_left, worker, key, 0, 0)

    def improve(self, worker: WorkerId, key: str) -> None:
        assert self._events
        self._soon(worker, self._events.on_improved, worker, key, None)

    def run(self, batch: Batch) -> None:
        assert self._events
        items = [Item(len(one.payload), one.form, -1, one.tensors, one.outputs, one.as_json) for one in batch.tickets]
        bodies = [
            one.payload.view() if isinstance(one.payload, Slab) else memoryview(one.payload) for one in batch.tickets
        ]
        outcomes, parts = run_items(self._models[batch.worker][batch.model][0], items, bodies)
        left = iter(parts)
        results = [(outcome, next(left) if outcome.kind == "ok" else b"") for outcome in outcomes]
        self._soon(batch.worker, self._events.on_batch_done, batch.worker, batch.id, results, 0.001, 4096)

    def pid(self, worker: WorkerId) -> int | None:
        return None

    async def stop(self) -> None:
        for worker in self._lives:
            self._lives[worker] += 1

    def _residence(self, num_bytes: int) -> Residence:
        return Residence(self._resident_bytes or num_bytes, num_bytes, can_page=True, can_improve=False)

    def _soon(self, worker: WorkerId, event: Any, *arguments: Any) -> None:
        life = self._lives[worker]

        def tell() -> None:
            if life == self._lives[worker]:
                event(*arguments)

        asyncio.get_running_loop().call_soon(tell)


def _add_one(inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
    return [inputs["x"] + 1]


class RecordedEffects:
    """What a scheduler caused, in lists that a test reads and empties. Raises when a ticket ends twice."""

    def __init__(self) -> None:
        self.starts: list[WorkerId] = []
        self.kills: list[tuple[WorkerId, str]] = []
        self.loads: list[tuple[WorkerId, str]] = []
        self.page_ins: list[tuple[WorkerId, str]] = []
        self.page_outs: list[tuple[WorkerId, str]] = []
        self.closes: list[tuple[WorkerId, str]] = []
        self.improvements: list[tuple[WorkerId, str]] = []
        self.batches: list[Batch] = []
        self.ends: dict[Ticket, Outcome | End] = {}

    def start_worker(self, worker: WorkerId) -> None:
        self.starts.append(worker)

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        self.kills.append((worker, reason))

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        self.loads.append((worker, model.key))

    def page_in(self, worker: WorkerId, key: str) -> None:
        self.page_ins.append((worker, key))

    def page_out(self, worker: WorkerId, key: str) -> None:
        self.page_outs.append((worker, key))

    def close(self, worker: WorkerId, key: str) -> None:
        self.closes.append((worker, key))

    def improve(self, worker: WorkerId, key: str) -> None:
        self.improvements.append((worker, key))

    def run(self, batch: Batch) -> None:
        self.batches.append(batch)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        assert ticket not in self.ends, "a second end"
        self.ends[ticket] = outcome

    def refuse(self, ticket: Ticket, end: End) -> None:
        assert ticket not in self.ends, "a second end"
        self.ends[ticket] = end
