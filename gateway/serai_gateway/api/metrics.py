"""GET /metrics: Prometheus text of all gateway workers and of both daemons.

For this machine, or for the operator's key: who calls how much is nobody else's business. A request that a proxy passed
on is not of this machine.
"""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.tally import BUCKETS_S, Totals
from serai_gateway.api.who import caller_or_nobody
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import NotFound

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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


def _is_local(request: Request) -> bool:
    is_passed_on = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    return not is_passed_on and request.client is not None and ip_address(request.client.host).is_loopback


def _gateway_text(folder: Path) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Calls(folder))
    return generate_latest(registry)


async def metrics(request: Request) -> Response:
    if not _is_local(request):
        caller = await caller_or_nobody(request)
        if caller is None or caller.account.kind != "operator":
            raise NotFound("no such path; GET /openapi.json lists them")
    dispatcher: Dispatcher = request.app.state.dispatcher
    own, runner, pool = await asyncio.gather(
        asyncio.to_thread(_gateway_text, request.app.state.settings.metrics_dir),
        dispatcher.runner.stats(),
        dispatcher.pool.stats(),
    )
    return Response(own + runner + pool, headers={"content-type": _CONTENT_TYPE})
