"""How the calls of an algorithm that name no version are divided: to roll back, or to try a new version on some.

    GET, PUT, DELETE /v1/algorithms/OWNER/NAME/routing    also with the algorithm's id

    {"routing": [{"semantic_version": "1.5.0", "percent": 10}, {"semantic_version": "1.4.0", "percent": 90}]}

Without a routing they go to the newest public version, and while there is one they do not: publishing changes nothing.
"""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.requests import read_json
from serai_gateway.api.management.targets import administered_algorithm, both_ways, managed_algorithm
from serai_gateway.catalogue import Algorithm, Catalogue
from serai_gateway.logs import get_logger
from serai_gateway.traffic import InvalidRouting, Routing
from serai_gateway.versions import InvalidVersion

_log = get_logger("gateway")


class _Share(msgspec.Struct):
    semantic_version: str
    percent: int


class _Body(msgspec.Struct):
    routing: list[_Share]


async def get_routing(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    return json_answer(_shown(algorithm))


async def set_routing(request: Request) -> Response:
    _, algorithm = await administered_algorithm(request)
    body = await read_json(request, _Body)
    if not body.routing:
        raise ManagementError(Codes.INVALID_INPUT, "the routing names no version; DELETE it to go back to the newest")
    return json_answer(_shown(await _store(request, algorithm, body.routing)))


async def clear_routing(request: Request) -> Response:
    _, algorithm = await administered_algorithm(request)
    await _store(request, algorithm, [])
    return done()


async def _store(request: Request, algorithm: Algorithm, shares: list[_Share]) -> Algorithm:
    catalogue: Catalogue = request.app.state.catalogue
    routing: Routing = tuple((share.semantic_version, share.percent) for share in shares)
    try:
        algorithm = await asyncio.to_thread(catalogue.set_routing, algorithm, routing)
    except (InvalidRouting, InvalidVersion) as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)) from None
    request.app.state.cache.forget()
    name = f"{algorithm.owner}/{algorithm.name}"
    _log.info("routed", action="route", algorithm=name, routing=[list(share) for share in algorithm.routing])
    return algorithm


def _shown(algorithm: Algorithm) -> dict[str, object]:
    return {
        "routing": [{"semantic_version": number, "percent": percent} for number, percent in algorithm.routing],
        "resource_type": "routing",
    }


ROUTES = [
    *both_ways("/routing", get_routing, ["GET"]),
    *both_ways("/routing", set_routing, ["PUT"]),
    *both_ways("/routing", clear_routing, ["DELETE"]),
]
