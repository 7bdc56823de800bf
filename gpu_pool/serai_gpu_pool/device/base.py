"""What the pool's owner asks of a device, and what a device reports.

`process.py` is the real one; `serai_gpu_pool.testing.FakeDevice` passes the same behaviour suite.
"""

from typing import Protocol

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Batch, LoadFailure, Outcome


class DeviceEvents(Protocol):
    """Called on the owner's loop, never from inside a call of the device's own methods."""

    def on_worker_ready(self) -> None: ...

    def on_start_failed(self, reason: str) -> None:
        """Several starts in a row have failed; the device goes on trying."""
        ...

    def on_loaded(self, model: str, resident_bytes: int, load_s: float) -> None: ...
    def on_load_failed(self, model: str, failure: LoadFailure) -> None: ...

    def on_dropped(self, model: str) -> None:
        """The bytes are free again."""
        ...

    def on_batch_done(
        self, batch_id: int, results: list[tuple[Outcome, bytes | memoryview]], duration_s: float
    ) -> None: ...

    def on_worker_lost(self, reason: str) -> None:
        """Whatever was loaded or running is gone. A new worker is started without being asked for."""
        ...


class Device(Protocol):
    """Something with memory and compute. Work is answered by exactly one event, or by `on_worker_lost`.

    Loads and drops happen in the order in which they are asked for, batches too; the two go on side by side.
    """

    def start(self, events: DeviceEvents) -> None: ...
    def load(self, model: ModelSpec) -> None: ...
    def drop(self, model: str) -> None: ...
    def run(self, batch: Batch) -> None: ...
    def kill(self, reason: str) -> None: ...
    async def stop(self) -> None: ...
