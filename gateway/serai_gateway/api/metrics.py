"""GET /metrics: Prometheus text of all gateway workers and of both daemons.

Workers share their counts through files (prometheus-client's multiprocess mode, PROMETHEUS_MULTIPROC_DIR).
"""

import asyncio
import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.dispatch import Dispatcher

_CALLS = Counter("serai_calls", "Calls answered, by outcome", ["outcome"])
_DURATION = Histogram(
    "serai_call_duration_seconds",
    "From the request's headers to its answer",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_outcomes: dict[str, Counter] = {}


def count_call(outcome: str, duration_s: float) -> None:
    """Count one call. `outcome`: ok, algorithm_error, caller_gone, or a platform error's code."""
    counter = _outcomes.get(outcome)
    if counter is None:
        counter = _outcomes[outcome] = _CALLS.labels(outcome)
    counter.inc()
    _DURATION.observe(duration_s)


def gateway_text() -> bytes:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


async def metrics(request: Request) -> Response:
    dispatcher: Dispatcher = request.app.state.dispatcher
    own, runner, pool = await asyncio.gather(
        asyncio.to_thread(gateway_text), dispatcher.runner.stats(), dispatcher.pool.stats()
    )
    return Response(own + runner + pool, headers={"content-type": _CONTENT_TYPE})
