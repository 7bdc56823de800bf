"""/healthz: this worker runs. /readyz: and what it needs is there."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.catalogue import Catalogue
from serai_gateway.dispatch import Dispatcher

#: How long a daemon that is just coming up is waited for before the answer is "not ready".
_LINK_WAIT_S = 0.2


def _json(value: object, status: int = 200) -> Response:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers=headers)


async def healthz(request: Request) -> Response:
    return _json({"status": "ok"})


async def readyz(request: Request) -> Response:
    dispatcher: Dispatcher = request.app.state.dispatcher
    catalogue: Catalogue = request.app.state.catalogue
    runner, pool, database = await asyncio.gather(
        dispatcher.runner.wait_open(_LINK_WAIT_S),
        dispatcher.pool.wait_open(_LINK_WAIT_S),
        asyncio.to_thread(_database_answers, catalogue),
    )
    parts = {"runner": runner, "pool": pool, "database": database}
    is_ready = all(parts.values())
    return _json({"status": "ready" if is_ready else "not ready", "parts": parts}, 200 if is_ready else 503)


def _database_answers(catalogue: Catalogue) -> bool:
    try:
        catalogue.generation()
    except Exception:  # whatever the driver raises: the database does not answer
        return False
    return True
