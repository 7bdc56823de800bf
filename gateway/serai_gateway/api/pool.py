"""GET /v1/pool: what the pool holds. POST /v1/pool/models/OWNER/NAME[/MODEL]/VERB: load, unload, pin or unpin a model.

Both are the operator's alone.

`PoolView` is the gateway's one way to look at the pool and to steer it; the Open Inference Protocol uses it too.
"""

import asyncio
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai.ipc.messages import Failure, Refusal
from serai_gateway.api.v2.models import FoundModel, find_model
from serai_gateway.api.v2.names import ModelPath
from serai_gateway.api.who import caller_of
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Caller
from serai_gateway.errors import Forbidden, NotFound, Unavailable, Unprocessable, of_refusal
from serai_gateway.route import Route, Verb
from serai_gpu_pool.snapshot import ModelView, Snapshot

#: Longest a command may take. A load of gigabytes from a cold disk takes minutes.
COMMAND_TIMEOUT_S = 300.0

#: How old a look at the pool may be where many ask again and again: whether a model is ready, and its statistics.
MAX_AGE_S = 0.2

_VERBS: tuple[Verb, ...] = ("load", "unload", "pin", "unpin")

_decode = msgspec.json.Decoder(Snapshot).decode


class PoolView:
    """The pool as this worker last saw it."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._models: dict[str, ModelView] = {}
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def raw(self) -> bytes:
        """A `Snapshot` as JSON, taken now. Raises Unavailable."""
        answer = await self._route.inspect()
        if not answer:
            raise Unavailable("the pool does not answer; it may be starting", retry_after_s=1.0)
        return answer

    async def models(self) -> dict[str, ModelView]:
        """What the pool has seen, by `ModelSpec.key`, at most `MAX_AGE_S` old. Raises Unavailable."""
        async with self._looking:  # those who come while one looks take what that one saw
            if time.monotonic() - self._looked_at > MAX_AGE_S:
                snapshot = _decode(await self.raw())
                self._models = {view.key: view for view in snapshot.models}
                self._looked_at = time.monotonic()
            return self._models

    async def command(self, verb: Verb, found: FoundModel, caller: Caller) -> None:
        """Make it so, as far as this caller may. Raises a PlatformError that says why not.

        A file that others published too is one model: only an operator takes it out of memory whoever uses it.
        """
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        asked: Verb = "release" if verb == "unload" and not _is_operator(caller) else verb
        message = await self._route.command(found.spec, asked, found.model.name, deadline)
        self._looked_at = float("-inf")
        if isinstance(message, Refusal):
            raise of_refusal(message)
        if isinstance(message, Failure):
            raise Unprocessable(message.message)


async def get_pool(request: Request) -> Response:
    await _operator_of(request)
    pool: PoolView = request.app.state.pool
    return Response(await pool.raw(), headers={"content-type": "application/json", "cache-control": "no-store"})


async def steer_model(request: Request) -> Response:
    """`version` may be given as an option; without one it is what a call would run."""
    caller = await _operator_of(request)
    given = request.path_params
    verb: Verb = given["verb"]
    if verb not in _VERBS:
        raise NotFound(f"no such command; there are {', '.join(_VERBS)}")
    version = request.query_params.get("version") or None
    path = ModelPath("metadata", given["owner"], given["name"], given.get("model"), version)
    cache: CatalogueCache = request.app.state.cache
    pool: PoolView = request.app.state.pool
    found = await find_model(cache, path, caller.account)
    await pool.command(verb, found, caller)
    done = {"model": found.name, "version": found.version_name, "done": verb}
    return Response(msgspec.json.encode(done), headers={"content-type": "application/json"})


async def _operator_of(request: Request) -> Caller:
    caller = await caller_of(request)
    if not _is_operator(caller):
        raise Forbidden("the pool is the operator's to see and to steer; use the key in HOME/operator.key")
    return caller


def _is_operator(caller: Caller) -> bool:
    return caller.account.kind == "operator" and caller.key.permissions.manage
