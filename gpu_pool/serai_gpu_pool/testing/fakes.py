"""A device without a process, and a recorder for what a scheduler causes."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.arena import Slab
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.device.base import DeviceEvents
from serai_gpu_pool.device.items import run_items
from serai_gpu_pool.device.messages import Item
from serai_gpu_pool.device.stacking import Stacker
from serai_gpu_pool.tensors import Array, Signature, Slot


class FakeDevice:
    """Runs every model as "add one to x", in this process. Does what `Device` promises, in the same order."""

    signature = Signature((Slot("x", "float32", (None, 3)),), (Slot("y", "float32", (None, 3)),))

    def __init__(self, resident_bytes: int | None = None) -> None:
        self._events: DeviceEvents | None = None
        self._resident_bytes = resident_bytes  # what every model is measured as; None: as its file
        self._models: dict[str, Stacker] = {}
        self._life = 0  # work that was begun in an earlier one is never answered

    def start(self, events: DeviceEvents) -> None:
        self._events = events
        self._soon(events.on_worker_ready)

    def load(self, model: ModelSpec) -> None:
        assert self._events
        data = Path(model.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != model.sha256:
            self._soon(self._events.on_load_failed, model.sha256, LoadFailure("damaged", "checksum is wrong"))
        elif data[:1] != b"\x08":  # where an ONNX file says its version
            self._soon(self._events.on_load_failed, model.sha256, LoadFailure("broken", "not an ONNX model"))
        else:
            self._models[model.sha256] = Stacker(self.signature, _add_one)
            self._soon(self._events.on_loaded, model.sha256, self._resident_bytes or model.num_bytes, 0.001)

    def drop(self, model: str) -> None:
        assert self._events
        self._models.pop(model, None)
        self._soon(self._events.on_dropped, model)

    def run(self, batch: Batch) -> None:
        assert self._events
        items = [Item(len(one.payload), one.form, -1, one.tensors, one.outputs) for one in batch.tickets]
        bodies = [
            one.payload.view() if isinstance(one.payload, Slab) else memoryview(one.payload) for one in batch.tickets
        ]
        outcomes, parts = run_items(self._models[batch.model], items, bodies)
        left = iter(parts)
        results = [(outcome, next(left) if outcome.kind == "ok" else b"") for outcome in outcomes]
        self._soon(self._events.on_batch_done, batch.id, results, 0.001)

    def kill(self, reason: str) -> None:
        assert self._events
        self._life += 1
        self._models.clear()
        self._soon(self._events.on_worker_lost, reason)
        self._soon(self._events.on_worker_ready)

    async def stop(self) -> None:
        self._life += 1

    def _soon(self, event: Any, *arguments: Any) -> None:
        life = self._life

        def tell() -> None:
            if life == self._life:
                event(*arguments)

        asyncio.get_running_loop().call_soon(tell)


def _add_one(inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
    return [inputs["x"] + 1]


class RecordedEffects:
    """What a scheduler caused, in lists that a test reads and empties. Raises when a ticket ends twice."""

    def __init__(self) -> None:
        self.loads: list[ModelSpec] = []
        self.drops: list[str] = []
        self.batches: list[Batch] = []
        self.kills: list[str] = []
        self.ends: dict[Ticket, Outcome | End] = {}

    def load(self, model: ModelSpec) -> None:
        self.loads.append(model)

    def drop(self, model: str) -> None:
        self.drops.append(model)

    def run(self, batch: Batch) -> None:
        self.batches.append(batch)

    def kill_worker(self, reason: str) -> None:
        self.kills.append(reason)

    def finish(self, ticket: Ticket, outcome: Outcome, payload: bytes | memoryview, duration_s: float) -> None:
        assert ticket not in self.ends, "a second end"
        self.ends[ticket] = outcome

    def refuse(self, ticket: Ticket, end: End) -> None:
        assert ticket not in self.ends, "a second end"
        self.ends[ticket] = end
