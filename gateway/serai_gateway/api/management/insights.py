"""Insights: figures that a running algorithm reports of its call, and their reading.

POST /v1/insights                              from inside a call, without a key: [{"insight_key", "insight_value"}, …]
GET  /v1/algorithms/OWNER/NAME/insights        newest first, with what the platform knows; also by id

They are kept for versions that were published with `insights_enabled`; of others they are taken and forgotten.
"""

import asyncio
import re
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai.ipc.messages import Bound
from serai_gateway.api.inside import bound_of
from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.pages import page_answer
from serai_gateway.api.management.requests import page_of, read_json
from serai_gateway.api.management.targets import both_ways, managed_algorithm
from serai_gateway.api.management.times import iso_time
from serai_gateway.api.who import caller_of
from serai_gateway.catalogue import Algorithm, Catalogue, Insight, Reported
from serai_gateway.errors import Forbidden
from serai_gateway.write_behind import WriteBehind

#: Of one report. Algorithmia's figures.
MAX_METRICS = 25
MAX_REPORT_BYTES = 25 * 1024
MAX_KEY_CHARS = 128
#: What the platform adds.
RESERVED = (
    "request_id", "timestamp", "duration_milliseconds", "algorithm_owner", "algorithm_name", "algorithm_version",
)  # fmt: skip

_MARKER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?-[0-9a-f]{32}")


class _Metric(msgspec.Struct):
    insight_key: str
    insight_value: Any


async def report(request: Request) -> Response:
    bound = bound_of(request.scope)
    if bound is None:
        await caller_of(request)
        raise Forbidden("insights are reported by a running algorithm, from inside its call")
    metrics = _checked(await read_json(request, list[_Metric], MAX_REPORT_BYTES))
    reports: WriteBehind[Reported] = request.app.state.reports
    if metrics:
        reports.add(bound.version, _reported(bound, metrics))
    return json_answer({"num_metrics": len(metrics)})


async def list_insights(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    limit, marker = page_of(request)
    if marker and not _MARKER.fullmatch(marker):
        raise ManagementError(Codes.INVALID_MARKER)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.insights_of, algorithm.id, limit=limit, marker=marker)
    results = [_shown(insight, algorithm) for insight in found.results]
    return page_answer(request, results, found.marker, limit)


def _checked(metrics: list[_Metric]) -> dict[str, Any]:
    """By key, the last one of each. Raises ManagementError."""
    if len(metrics) > MAX_METRICS:
        raise ManagementError(
            Codes.INVALID_INPUT, f"{len(metrics)} metrics in one report, and {MAX_METRICS} is the limit"
        )
    for metric in metrics:
        key = metric.insight_key
        if not key or len(key) > MAX_KEY_CHARS:
            raise ManagementError(Codes.INVALID_INPUT, f"an insight_key has 1 to {MAX_KEY_CHARS} characters")
        if key in RESERVED:
            raise ManagementError(
                Codes.INVALID_INPUT, f"insight_key {key!r} is reserved: the platform adds {', '.join(RESERVED)}"
            )
    return {metric.insight_key: metric.insight_value for metric in metrics}


def _reported(bound: Bound, metrics: dict[str, Any]) -> Reported:
    algorithm, _, hash = bound.version.partition("@")
    owner, _, name = algorithm.partition("/")
    duration_s = max(0.0, time.monotonic() - bound.sent_at) if bound.sent_at else 0.0
    return Reported(owner, name, hash, bound.call_id, metrics, duration_s, time.time())


def _shown(insight: Insight, algorithm: Algorithm) -> dict[str, Any]:
    return {
        **insight.metrics,
        "request_id": insight.call_id,
        "timestamp": iso_time(insight.created_at),
        "duration_milliseconds": round(insight.duration_s * 1000, 3),
        "algorithm_owner": algorithm.owner,
        "algorithm_name": algorithm.name,
        "algorithm_version": insight.version,
    }


ROUTES = [
    Route("/v1/insights", report, methods=["POST"]),
    *both_ways("/insights", list_insights, ["GET"]),
]
