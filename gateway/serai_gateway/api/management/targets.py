"""Which algorithm a path is about: every path below an algorithm exists with its name and with its id.

/v1/algorithms/OWNER/NAME/versions
/v1/algorithms/123e4567-e89b-12d3-a456-426614174000/versions
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id
from serai_gateway.api.who import caller_or_nobody, manager_of
from serai_gateway.catalogue import (
    Account,
    Algorithm,
    Caller,
    Catalogue,
    InvalidName,
    NotFound,
    check_name,
    may_administer,
    may_manage,
)

Endpoint = Callable[[Request], Awaitable[Response]]


def both_ways(suffix: str, endpoint: Endpoint, methods: Sequence[str]) -> list[Route]:
    """Routes to `endpoint` for an algorithm's id and for its name. By id first: an id is no name."""
    return [
        Route(f"/v1/algorithms/{{algorithm_id:uuid}}{suffix}", endpoint, methods=list(methods)),
        Route(f"/v1/algorithms/{{owner}}/{{name}}{suffix}", endpoint, methods=list(methods)),
    ]


async def visible_algorithm(request: Request) -> tuple[Caller | None, Algorithm]:
    """Who asks, perhaps nobody known, and the algorithm of the path. Raises ManagementError."""
    caller = await caller_or_nobody(request)
    return caller, await _algorithm(request, caller)


async def managed_algorithm(request: Request) -> tuple[Caller, Algorithm]:
    """Who asks, and the algorithm, which is theirs to push, build and look into. Raises ManagementError."""
    caller = await manager_of(request)
    algorithm = await _algorithm(request, caller)
    await _check(request, caller, algorithm, may_manage)
    return caller, algorithm


async def administered_algorithm(request: Request) -> tuple[Caller, Algorithm]:
    """Who asks, and the algorithm, which is theirs to publish, route and delete. Raises ManagementError."""
    caller = await manager_of(request)
    algorithm = await _algorithm(request, caller)
    await _check(request, caller, algorithm, may_administer)
    return caller, algorithm


async def check_administers(request: Request, caller: Caller, algorithm: Algorithm) -> None:
    """Raises ManagementError; members are told whose affair it is."""
    await _check(
        request, caller, algorithm, may_administer, f"only owners of {algorithm.owner} may do this, not its members"
    )


async def check_opens(request: Request, caller: Caller, algorithm: Algorithm, wanted: str | None) -> None:
    """Whether the caller may set this `source_visibility`: who reads the source of what is public is decided like who
    calls it. Raises ManagementError."""
    now = algorithm.settings.get("source_visibility", "closed")
    if algorithm.visibility == "public" and (wanted or now) != now:
        await check_administers(request, caller, algorithm)


async def managed_owner(request: Request) -> Account:
    """The account of the path, for which the caller may make something. Raises ManagementError.

    One that does not exist is refused in the same words as one that is somebody else's.
    """
    caller = await manager_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        owner = await asyncio.to_thread(catalogue.account_named, check_name(request.path_params["owner"]))
    except (NotFound, InvalidName) as error:
        raise ManagementError(Codes.NOT_AUTHORIZED) from error
    if not may_manage(caller.account, owner):
        raise ManagementError(Codes.NOT_AUTHORIZED)
    return owner


async def _algorithm(request: Request, caller: Caller | None) -> Algorithm:
    catalogue: Catalogue = request.app.state.catalogue
    parameters = request.path_params
    try:
        if "algorithm_id" in parameters:
            id = internal_id(str(parameters["algorithm_id"])) or ""
            owner, name = await asyncio.to_thread(catalogue.name_of_algorithm, id) or ("", "")
        else:
            owner, name = check_name(parameters["owner"]), check_name(parameters["name"])
        account = caller.seen_as(owner) if caller else None
        return await asyncio.to_thread(catalogue.find_algorithm, owner, name, account)
    except (NotFound, InvalidName) as error:
        raise ManagementError(Codes.ALGORITHM_NOT_FOUND) from error


async def _check(
    request: Request,
    caller: Caller,
    algorithm: Algorithm,
    may: Callable[[Account | None, Account], bool],
    to_members: str = "",
) -> None:
    catalogue: Catalogue = request.app.state.catalogue
    owner = await asyncio.to_thread(catalogue.account_named, algorithm.owner)
    if not may(caller.account, owner):
        raise ManagementError(Codes.NOT_AUTHORIZED, to_members if may_manage(caller.account, owner) else "")
