"""What the pool's owner asks of the processes that run models, and what they report.

`processes.py` is the real one; `serai_gpu_pool.testing.FakeWorkers` passes the same behaviour suite.
"""

from typing import Protocol

from serai_gpu_pool.core import LoadFailure, Outcome
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.effects import Requests


class WorkerEvents(Protocol):
    """Called on the owner's loop, never from inside a call of one of the methods of `Workers`."""

    def on_worker_ready(self, id: WorkerId, base_bytes: int, process_bytes: int) -> None: ...
    def on_start_failed(self, id: WorkerId, reason: str) -> None: ...
    def on_loaded(self, id: WorkerId, key: str, residence: Residence, load_s: float) -> None: ...
    def on_load_failed(self, id: WorkerId, key: str, failure: LoadFailure) -> None: ...

    def on_improved(self, id: WorkerId, key: str, residence: Residence | None) -> None:
        """None: there is no faster form."""
        ...

    def on_left(self, id: WorkerId, key: str, kept_bytes: int, process_bytes: int) -> None:
        """Paged out or closed: the bytes are free again."""
        ...

    def on_batch_done(
        self,
        id: WorkerId,
        batch_id: int,
        results: list[tuple[Outcome, bytes | memoryview]],
        duration_s: float,
        peak_bytes: int,
    ) -> None: ...

    def on_worker_lost(self, id: WorkerId, reason: str) -> None:
        """Whatever was loaded or running in it is gone."""
        ...


class Workers(Requests, Protocol):
    """All workers of all devices. Work is answered by exactly one event, or by `on_worker_lost` of its worker.

    A worker is given work between its `on_worker_ready` and its `on_worker_lost`; it is started again only when that is
    asked for. The batches of one lane are run in the order in which they are given; lanes and loads go on side by side.
    """

    def begin(self, events: WorkerEvents) -> None: ...
    def pid(self, worker: WorkerId) -> int | None: ...
    async def stop(self) -> None: ...
