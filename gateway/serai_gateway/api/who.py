"""Who asks: the holder of a key, or a running call in the name of who pays for it."""

from starlette.requests import Request

from serai_gateway.api.call_request import find_header, parse_key
from serai_gateway.api.inside import Scope, bound_of, owner_of
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Caller
from serai_gateway.errors import Forbidden, Unauthenticated


async def caller_in(scope: Scope, cache: CatalogueCache) -> Caller:
    """Raises Unauthenticated."""
    bound = bound_of(scope)
    if bound is None:
        caller = await cache.caller_of_key(parse_key(scope["headers"]))
        if caller is None:
            raise Unauthenticated("unknown or invalid API key")
    else:  # whatever key it sends along: the rights are those of the call that runs
        caller = await cache.caller_of_call(bound.payer, owner_of(bound))
        if caller is None:
            raise Unauthenticated("the account for which this call runs is not there any more")
    return caller


async def caller_of(request: Request) -> Caller:
    """Raises Unauthenticated."""
    return await caller_in(request.scope, request.app.state.cache)


async def caller_or_nobody(request: Request) -> Caller | None:
    """None without a key; a key that is none of ours still raises Unauthenticated."""
    if bound_of(request.scope) is None and find_header(request.scope["headers"], b"authorization") is None:
        return None
    return await caller_of(request)


async def manager_of(request: Request) -> Caller:
    caller = await caller_of(request)
    if not caller.key.permissions.manage:
        raise Forbidden("this key may not manage algorithms; use one that may")
    return caller
