"""The pool's figures as Prometheus text. Counted as plain integers, turned into metrics when somebody asks."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from serai_gpu_pool.scheduling.copies import Place
from serai_gpu_pool.scheduling.history import AGE_BUCKETS

if TYPE_CHECKING:
    from serai_gpu_pool.scheduling.scheduler import Scheduler

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
        self.queue_wait = Histogram(WAIT_BUCKETS)
        self.batch_size = Histogram(SIZE_BUCKETS)
        self._age = Histogram(AGE_BUCKETS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._totals()
        yield self.queue_wait.family("serai_pool_queue_wait_seconds", "From a call's arrival to its batch.")
        yield self.batch_size.family("serai_pool_batch_size", "Calls in a batch.")
        for device in self._scheduler.devices.values():
            for age_s in device.history.take_ages():
                self._age.observe(age_s)
        yield self._age.family("serai_pool_eviction_age_seconds", "From a model's load to its eviction.")
        yield from self._devices()
        yield from self._models()

    def _totals(self) -> Iterator[Metric]:
        counts = self._scheduler.counts
        plain = {
            "loads": (counts.loads, "Models brought into device memory, from disk or from the host tier."),
            "page_ins": (counts.page_ins, "Those that came from the host tier."),
            "prefetches": (counts.prefetches, "Loads begun while the device was busy."),
            "foreseen": (counts.foreseen, "Those that were begun because a call was expected by the clock."),
            "improvements": (counts.improvements, "Hot models that were opened again in their fastest form."),
            "load_seconds": (counts.load_seconds, "Time spent loading, in seconds."),
            "load_failures": (counts.load_failures, "Loads that failed."),
            "hits": (counts.hits, "Calls whose model was loaded when they came."),
            "misses": (counts.misses, "Calls whose model was not loaded when they came."),
            "batches": (counts.batches, "Batches sent to the devices."),
            "items": (counts.items, "Calls in those batches."),
            "late_batches": (counts.late_batches, "Batches that others did not wait for any more."),
            "retried": (counts.retried, "Calls that were run again because their worker ended."),
            "leaks": (counts.leaks, "Workers replaced because they did not give memory back."),
            "worker_starts": (counts.worker_starts, "Device workers that became ready."),
            "worker_losses": (counts.worker_losses, "Device workers that ended."),
            "protocol_errors": (counts.protocol_errors, "Connections cut for what they sent."),
            "ignored_messages": (counts.ignored_messages, "Answers of workers that nobody waited for."),
        }
        for name, (value, text) in plain.items():
            yield CounterMetricFamily(f"serai_pool_{name}", text, value=value)
        yield _by("serai_pool_outcomes", "Calls that ended, by how.", "outcome", counts.outcomes)
        yield _by("serai_pool_refusals", "Calls that were refused, by why.", "reason", counts.refusals)
        yield _by("serai_pool_evictions", "Models that were evicted, by why.", "reason", counts.evictions)
        yield _by("serai_pool_out_of_memory", "Loads and runs that had too little.", "when", counts.out_of_memory)
        yield GaugeMetricFamily("serai_pool_live_calls", "Calls that wait or run.", value=self._scheduler.num_live)
        yield GaugeMetricFamily("serai_pool_queued_bytes", "Input that waits.", value=self._scheduler.queued_bytes)

    def _devices(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "serai_pool_memory_bytes", "Device memory: budget = the rest.", labels=["device", "tier"]
        )
        workers = GaugeMetricFamily("serai_pool_worker_bytes", "What workers have in RAM.", labels=["worker"])
        for device in self._scheduler.devices.values():
            ledger = device.ledger
            for tier, value in (
                ("budget", ledger.budget),
                ("free", ledger.free),
                ("reserved", ledger.reserved_bytes),
                ("resident", ledger.resident_bytes),
            ):
                memory.add_metric([device.id, tier], value)
            for worker in device.workers.values():
                workers.add_metric([str(worker.id)], worker.process_bytes)
        host = self._scheduler.host
        memory.add_metric(["host", "budget"], host.budget)
        memory.add_metric(["host", "resident"], host.used)
        yield memory
        yield workers

    def _models(self) -> Iterator[Metric]:
        """Of each model that is or was in memory; one that nobody ever called has no figures."""
        names = ("queued", "resident_bytes", "loads", "evictions", "hits", "succeeded", "failed", "refused")
        texts = ("Calls that wait.", "Device memory.", "Loads.", "Evictions.", "Calls that found it loaded.",
                 "Calls answered.", "Calls that failed.", "Calls refused.")  # fmt: skip
        families = [
            (GaugeMetricFamily if name in names[:2] else CounterMetricFamily)(
                f"serai_pool_model_{name}", text, labels=["model", "key"]
            )
            for name, text in zip(names, texts, strict=True)
        ]
        states = dict.fromkeys((place.value for place in Place), 0)
        for model in self._scheduler.models.values():
            stats = model.stats
            states[_place_of(self._scheduler, model.key)] += 1
            held = sum(device.ledger.resident.get(model.key, 0) for device in self._scheduler.devices.values())
            values = (len(model.queue), held, stats.loads, stats.evictions, stats.hits, stats.succeeded, stats.failed,
                      stats.refused)  # fmt: skip
            labels = [f"{model.spec.owner}/{model.spec.name}".strip("/"), model.spec.sha256[:12]]
            for family, value in zip(families, values, strict=True):
                family.add_metric(labels, value)
        yield from families
        by_state = GaugeMetricFamily("serai_pool_models", "Models known, by where they are.", labels=["state"])
        for state, number in states.items():
            by_state.add_metric([state], number)
        yield by_state


def _place_of(scheduler: "Scheduler", key: str) -> str:
    places = [device.copies[key].place for device in scheduler.devices.values() if key in device.copies]
    return next((place.value for place in Place if place is not Place.DISK and place in places), Place.DISK.value)


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in sorted(counts.items()):
        family.add_metric([key], value)
    return family
