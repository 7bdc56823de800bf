"""The algorithms of a user or an organization, as a plain list.

    GET   /v1/users/{username}/algorithms
    GET   /v1/organizations/{organization}/utility-algorithms

Everybody gets what they may see: nothing, for somebody who does not exist.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.ids import public_id
from serai_gateway.api.who import caller_of
from serai_gateway.catalogue import Account, Algorithm, Catalogue, InvalidName, check_name
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE


async def list_owned(request: Request) -> Response:
    caller = await caller_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        owner = check_name(request.path_params["owner"])
    except InvalidName:
        return json_answer([])
    found = await asyncio.to_thread(_all_of, catalogue, caller.lists_as, owner)
    return json_answer([{"id": public_id(one.id), "algoname": one.name, "username": one.owner} for one in found])


def _all_of(catalogue: Catalogue, account: Account, owner: str) -> list[Algorithm]:
    found: list[Algorithm] = []
    marker: str | None = None
    while True:
        page = catalogue.list_algorithms(account, owner=owner, limit=MAX_PAGE_SIZE, marker=marker)
        found += [listing.algorithm for listing in page.results]
        marker = page.marker
        if marker is None:
            return found


ROUTES = [
    Route("/v1/users/{owner}/algorithms", list_owned, methods=["GET"]),
    Route("/v1/organizations/{owner}/utility-algorithms", list_owned, methods=["GET"]),
]
