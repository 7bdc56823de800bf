"""Who asks, for routes outside the call path."""

from starlette.requests import Request

from serai_gateway.api.call_request import find_header, parse_key
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Caller
from serai_gateway.errors import Forbidden, Unauthenticated


async def caller_of(request: Request) -> Caller:
    """Raises Unauthenticated."""
    cache: CatalogueCache = request.app.state.cache
    caller = await cache.caller_of_key(parse_key(request.scope["headers"]))
    if caller is None:
        raise Unauthenticated("unknown or invalid API key")
    return caller


async def caller_or_nobody(request: Request) -> Caller | None:
    """None without a key; a key that is none of ours still raises Unauthenticated."""
    if find_header(request.scope["headers"], b"authorization") is None:
        return None
    return await caller_of(request)


async def manager_of(request: Request) -> Caller:
    caller = await caller_of(request)
    if not caller.key.permissions.manage:
        raise Forbidden("this key may not manage algorithms; use one that may")
    return caller
