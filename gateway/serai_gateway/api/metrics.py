"""GET /metrics: Prometheus text of all gateway workers and of both daemons.

For this machine, or for the operator's key: who calls how much is nobody else's business. A request that a proxy passed
on is not of this machine.
"""

import asyncio
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.who import caller_or_nobody
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import NotFound

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _is_local(request: Request) -> bool:
    is_passed_on = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    return not is_passed_on and request.client is not None and ip_address(request.client.host).is_loopback


async def metrics(request: Request) -> Response:
    if not _is_local(request):
        caller = await caller_or_nobody(request)
        if caller is None or caller.account.kind != "operator":
            raise NotFound("no such path; GET /openapi.json lists them")
    from serai_gateway.api.metrics_text import gateway_text

    dispatcher: Dispatcher = request.app.state.dispatcher
    own, runner, pool = await asyncio.gather(
        asyncio.to_thread(gateway_text, request.app.state.settings.metrics_dir),
        dispatcher.runner.stats(),
        dispatcher.pool.stats(),
    )
    return Response(own + runner + pool, headers={"content-type": _CONTENT_TYPE})
