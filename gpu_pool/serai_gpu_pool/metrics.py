"""The pool's figures as Prometheus text. Counted as plain integers, turned into metrics when somebody asks."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from serai_gpu_pool.core import State

if TYPE_CHECKING:
    from serai_gpu_pool.scheduler import Scheduler

#: Seconds a ticket waits before its batch is sent: from a free device to the longest deadline.
WAIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
#: Items of a batch.
SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(name, text)
        family.add_metric([], buckets, self._sum)
        return family


class Metrics:
    """Collects when asked; see https://prometheus.io/docs/instrumenting/exposition_formats/."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self.worker_bytes = 0
        self.queue_wait = Histogram(WAIT_BUCKETS)
        self.batch_size = Histogram(SIZE_BUCKETS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        counts, ledger = self._scheduler.counts, self._scheduler.residency.ledger
        plain = {
            "loads": (counts.loads, "Models loaded."),
            "load_seconds": (counts.load_seconds, "Time spent loading, in seconds."),
            "load_failures": (counts.load_failures, "Loads that failed."),
            "hits": (counts.hits, "Calls whose model was loaded when they came."),
            "misses": (counts.misses, "Calls whose model was not loaded when they came."),
            "batches": (counts.batches, "Batches sent to the device."),
            "items": (counts.items, "Calls in those batches."),
            "worker_starts": (counts.worker_starts, "Device workers that became ready."),
            "worker_losses": (counts.worker_losses, "Device workers that ended."),
            "protocol_errors": (counts.protocol_errors, "Connections cut for what they sent."),
            "ignored_messages": (counts.ignored_messages, "Answers of the worker that nobody waited for."),
        }
        for name, (value, text) in plain.items():
            yield CounterMetricFamily(f"serai_pool_{name}", text, value=value)
        yield _by("serai_pool_outcomes", "Calls that ended, by how.", "outcome", counts.outcomes)
        yield _by("serai_pool_refusals", "Calls that were refused, by why.", "reason", counts.refusals)
        yield _by("serai_pool_evictions", "Models that were dropped, by why.", "reason", counts.evictions)
        yield self.queue_wait.family("serai_pool_queue_wait_seconds", "From a call's arrival to its batch.")
        yield self.batch_size.family("serai_pool_batch_size", "Calls in a batch.")
        memory = GaugeMetricFamily("serai_pool_memory_bytes", "Device memory: budget = the rest.", labels=["tier"])
        for tier, value in {
            "budget": ledger.budget,
            "free": ledger.free,
            "reserved": ledger.reserved_bytes,
            "resident": ledger.resident_bytes,
        }.items():
            memory.add_metric([tier], value)
        yield memory
        yield GaugeMetricFamily(
            "serai_pool_worker_bytes", "Resident set of the device's worker.", value=self.worker_bytes
        )
        yield GaugeMetricFamily("serai_pool_live_calls", "Calls that wait or run.", value=self._scheduler.num_live)
        yield GaugeMetricFamily("serai_pool_queued_bytes", "Input that waits.", value=self._scheduler.queued_bytes)
        states = dict.fromkeys((state.value for state in State), 0)
        for model in self._scheduler.residency.models.values():
            states[model.state.value] += 1
        models = GaugeMetricFamily("serai_pool_models", "Models known, by state.", labels=["state"])
        for state, number in states.items():
            models.add_metric([state], number)
        yield models


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in sorted(counts.items()):
        family.add_metric([key], value)
    return family
