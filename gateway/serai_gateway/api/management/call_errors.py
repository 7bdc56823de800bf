"""Errors of calls: what went wrong with an algorithm in the last seven days, 200 of them at most, newest first.

For who manages the algorithm: an error may tell what its code was given by other callers, and by other algorithms.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id
from serai_gateway.api.management.targets import both_ways, managed_algorithm
from serai_gateway.api.who import manager_of
from serai_gateway.catalogue import Account, Catalogue, ListedError, NotFound, may_manage

_UNKNOWN = b'{"error":{"message":"No such algorithm"}}'


async def errors_of_algorithm(request: Request) -> Response:
    try:
        _, algorithm = await managed_algorithm(request)
    except ManagementError as error:
        if error.number != Codes.ALGORITHM_NOT_FOUND.number:
            raise
        headers = {"content-type": "application/json", "x-error-message": "No such algorithm"}
        return Response(_UNKNOWN, 404, headers=headers)
    catalogue: Catalogue = request.app.state.catalogue
    return _answer(await asyncio.to_thread(catalogue.errors_of_algorithm, algorithm.id))


async def errors_of_owner(request: Request) -> Response:
    """Of all algorithms of a user or an organization; of one that is unknown, or somebody else's, none."""
    caller = await manager_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    owner = await asyncio.to_thread(_account, catalogue, request.path_params["owner"])
    if owner is None or not may_manage(caller.account, owner):
        return _answer(())
    return _answer(await asyncio.to_thread(catalogue.errors_of_owner, owner.id))


def _account(catalogue: Catalogue, name_or_id: str) -> Account | None:
    try:
        id = internal_id(name_or_id)
        return catalogue.account_by_id(id) if id else catalogue.account_named(name_or_id)
    except NotFound:
        return None


def _answer(errors: Sequence[ListedError]) -> Response:
    return json_answer([_shown(listed) for listed in errors])


def _shown(listed: ListedError) -> dict[str, Any]:
    error = listed.error
    stacktrace = f"\nstacktrace:\n{error.stacktrace}" if error.stacktrace else ""
    return {
        "created_at": int(error.created_at * 1000),
        "request_id": error.id,
        "username": listed.owner,
        "algoname": listed.name,
        "algoversion": error.version,
        "input": error.input,
        "error": f"error:\n{error.message}{stacktrace}",
        "error_type": error.error_type,
        "billable_to": error.caller,
        "worker": "",  # which of our machines it was is nobody else's business
    }


ROUTES = [
    *both_ways("/errors", errors_of_algorithm, ["GET"]),
    Route("/v1/users/{owner}/errors", errors_of_owner, methods=["GET"]),
    Route("/v1/organizations/{owner}/errors", errors_of_owner, methods=["GET"]),
]
