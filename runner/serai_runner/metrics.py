"""The host's figures as Prometheus text."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from serai_runner.replicas.starts import Starts
from serai_runner.scheduling.figures import WAIT_BUCKETS_S
from serai_runner.scheduling.scheduler import Scheduler

#: Shown from the start, at zero, so that rates over them exist before the first one happens.
_OUTCOMES = ("succeeded", "failed", "busy", "deadline", "crashed", "draining", "unavailable", "cancelled")
_PHASES = ("starting", "busy", "idle", "doomed")


class Metrics:
    """Reads the scheduler's figures when asked; nothing is counted twice."""

    def __init__(self, scheduler: Scheduler, starts: Starts) -> None:
        self._scheduler = scheduler
        self._starts = starts
        self._registry = CollectorRegistry()
        self._registry.register(self)  # pyright: ignore[reportArgumentType]

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        figures = self._scheduler.figures
        calls = CounterMetricFamily("serai_runner_calls", "Calls by how they ended.", labels=["outcome"])
        for outcome in sorted({*_OUTCOMES, *figures.calls}):
            calls.add_metric([outcome], figures.calls[outcome])
        yield calls
        yield self._waits()
        yield CounterMetricFamily("serai_runner_replica_starts", "Replica processes started.", value=figures.starts)
        ends = CounterMetricFamily("serai_runner_replica_ends", "Replica processes ended.", labels=["reason"])
        for reason, count in sorted(figures.ends.items()):
            ends.add_metric([reason], count)
        yield ends
        yield CounterMetricFamily("serai_runner_strays", "Replies of replicas to no call.", value=figures.strays)
        yield from self._gauges()

    def _waits(self) -> Metric:
        figures = self._scheduler.figures
        total, buckets = 0, []
        for bound, count in zip([*map(str, WAIT_BUCKETS_S), "+Inf"], figures.wait_counts, strict=True):
            total += count
            buckets.append((bound, total))
        name = "serai_runner_queue_wait_seconds"
        return HistogramMetricFamily(
            name, "From arrival until sent to a replica.", buckets=buckets, sum_value=figures.wait_sum_s
        )

    def _gauges(self) -> Iterator[Metric]:
        phases: Counter[str] = Counter()
        for replica in self._scheduler.replicas.values():
            phase = replica.phase if replica.phase != "ready" else "busy" if replica.in_flight else "idle"
            phases[phase] += 1
        replicas = GaugeMetricFamily("serai_runner_replicas", "Replica processes by state.", labels=["state"])
        for phase in _PHASES:
            replicas.add_metric([phase], phases[phase])
        yield replicas
        templates, spares = len(self._starts.templates), self._starts.spares
        yield GaugeMetricFamily("serai_runner_templates", "Processes that replicas are forked from.", value=templates)
        yield GaugeMetricFamily("serai_runner_spares", "Boxes ready for any version.", value=len(spares))
        yield CounterMetricFamily("serai_runner_spares_used", "Starts that found such a box.", value=spares.num_used)
        waiting = sum(len(version.queue) for version in self._scheduler.versions.values())
        yield GaugeMetricFamily("serai_runner_waiting_calls", "Calls in queues.", value=waiting)
