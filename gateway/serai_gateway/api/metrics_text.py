"""What the gateway's workers have counted, as Prometheus text. Apart, because only who scrapes needs the library."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serai_gateway.api.tally import BUCKETS_S, Totals


class _Calls(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        totals = Totals(self._folder)
        calls = CounterMetricFamily("serai_calls", "Calls answered, by outcome", labels=["outcome"])
        for outcome, count in totals.outcomes.items():
            calls.add_metric([outcome], count)
        yield calls
        bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
        duration = HistogramMetricFamily("serai_call_duration_seconds", "From a request's headers to its answer")
        duration.add_metric([], list(zip(bounds, accumulate(totals.buckets), strict=True)), totals.sum_s)
        yield duration


def gateway_text(folder: Path) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Calls(folder))
    return generate_latest(registry)
