"""Everything under /v2, as raw ASGI.

__call__ ──▶ parse_path ──▶ _answer (who, which) ──▶ Inference, or what the model and the server say of themselves
"""

import asyncio
import time
from contextlib import ExitStack
from typing import Any

from serai_gateway.api.calls import CallerGone, Receive, Scope, Send
from serai_gateway.api.pool import PoolView
from serai_gateway.api.tally import Tally
from serai_gateway.api.v2.answers import Answer, error_answer, json_answer, send_answer
from serai_gateway.api.v2.bodies import HeldBytes, check_types, read_body
from serai_gateway.api.v2.infer import Inference
from serai_gateway.api.v2.infer_request import MAX_INFER_BYTES
from serai_gateway.api.v2.metadata import SERVER, config, metadata
from serai_gateway.api.v2.models import FoundModel, check_manages, find_model
from serai_gateway.api.v2.names import METHODS, ModelPath, ServerAction, is_infer, parse_path
from serai_gateway.api.v2.repository import check_load, index_entry, read_index, visible_models
from serai_gateway.api.v2.statistics import model_stats
from serai_gateway.api.who import caller_in
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Caller, Catalogue, belongs_to
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import (
    Forbidden,
    Internal,
    MethodNotAllowed,
    PlatformError,
    Unavailable,
)
from serai_gateway.logs import get_logger
from serai_gateway.request_id import new_request_id

_log = get_logger("gateway")

#: How long a pool that is just coming up is waited for before the answer is "not ready".
_LINK_WAIT_S = 0.2

#: Longest body of what takes no tensors.
_MAX_SMALL_BODY_BYTES = 64 * 1024


class InferenceProtocol:
    """ASGI application for /v2."""

    def __init__(
        self, catalogue: Catalogue, cache: CatalogueCache, dispatcher: Dispatcher, pool: PoolView, tally: Tally
    ) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._dispatcher = dispatcher
        self._pool = pool
        self._tally = tally
        self._inference = Inference(cache, dispatcher)

    def serves(self, path: str) -> bool:
        return path.startswith("/v2/") or path == "/v2"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as until_sent:
            await self._serve(scope, receive, send, until_sent)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, until_sent: ExitStack) -> None:
        started = time.monotonic()
        request_id = new_request_id()
        outcome = "ok"
        try:
            answer = await self._answer(scope, receive, request_id, started, until_sent)
        except CallerGone:
            answer, outcome = None, "caller_gone"
        except PlatformError as error:
            answer, outcome = error_answer(error, request_id), error.code
        except Exception:
            _log.exception("inference request failed", action="infer", request_id=request_id)
            error = Internal("internal error; quote the request id to the operator")
            answer, outcome = error_answer(error, request_id), error.code
        if is_infer(scope["path"]):
            self._tally.count(outcome, time.monotonic() - started)
        if answer is not None:
            await send_answer(send, answer, request_id)

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, started: float, until_sent: ExitStack
    ) -> Answer:
        path = parse_path(scope["path"])
        _check_method(scope["method"], METHODS[path.action if isinstance(path, ModelPath) else path], scope["path"])
        if path == "server":
            return json_answer(SERVER)
        if path == "live":
            return json_answer({"live": True})
        if path == "health":
            return await self._health()
        caller = await caller_in(scope, self._cache)
        if not isinstance(path, ModelPath):
            return await self._answer_of_all(path, caller, scope, receive)
        if path.action == "infer":
            return await self._inference.run(path, caller, scope, receive, request_id, started, until_sent)
        found = await find_model(self._cache, path, caller.seen_as(path.owner))
        if path.action == "metadata":
            return json_answer(metadata(found))
        if path.action == "config":
            return json_answer(config(found))
        if path.action == "ready":
            return await self._ready(found)
        if path.action == "stats":
            check_manages(caller, found, "see the statistics of")
            return json_answer({"model_stats": await self._stats([found])})
        check_manages(caller, found, path.action)
        check_load(await _read_small(scope, receive))
        await self._pool.command(path.action, found, caller)
        return json_answer({})

    async def _answer_of_all(self, action: ServerAction, caller: Caller, scope: Scope, receive: Receive) -> Answer:
        wanted = read_index(await _read_small(scope, receive)) if action == "index" else None
        models = await visible_models(self._catalogue, self._cache, caller.lists_as)
        if wanted is None:
            if not caller.key.permissions.manage:
                raise Forbidden("this key may not see statistics; use one that may manage")
            mine = [found for found in models if belongs_to(caller.account, found.version.owner_id)]
            return json_answer({"model_stats": await self._stats(mine)})
        views = await self._pool.models()
        entries = [index_entry(found, views.get(found.model_spec.key)) for found in models]
        return json_answer([entry for entry in entries if entry["state"] == "READY" or not wanted.ready])

    async def _health(self) -> Answer:
        is_ready = await self._dispatcher.pool.wait_open(_LINK_WAIT_S)
        try:
            await asyncio.to_thread(self._catalogue.generation)
        except Exception:  # whatever the driver raises: the database does not answer
            is_ready = False
        return json_answer({"ready": is_ready}, 200 if is_ready else 503)

    async def _ready(self, found: FoundModel) -> Answer:
        """A model that is on disk is ready: its first call loads it."""
        view = (await self._pool.models()).get(found.model_spec.key)
        verdict = view.verdict if view is not None else ""
        if verdict:
            raise Unavailable(f"{found.name} is not ready: {verdict}")
        return json_answer({"name": found.name, "ready": True})

    async def _stats(self, models: list[FoundModel]) -> list[dict[str, Any]]:
        views = await self._pool.models()
        now = time.time()
        return [model_stats(found.name, found.version_name, views.get(found.model_spec.key), now) for found in models]


def body_limit(path: bytes) -> int:
    """How large a body this path may have beyond the usual; 0: no more than usual."""
    return MAX_INFER_BYTES if is_infer(path.decode("utf-8", "replace")) else 0


def _check_method(method: str, wanted: str, path: str) -> None:
    """Raises MethodNotAllowed. What is POSTed where only GET goes was often meant for another path."""
    if method == wanted or (method == "HEAD" and wanted == "GET"):
        return
    text = f"use {wanted} here"
    if method == "POST" and path.startswith("/v2/models/"):
        verb = path.rstrip("/").rpartition("/")[2]
        if verb in ("load", "unload"):
            text += f"; to {verb} a model: POST /v2/repository/models/OWNER/NAME/{verb}"
        else:
            text += "; a model is named OWNER/NAME, to run it: POST /v2/models/OWNER/NAME/infer"
    raise MethodNotAllowed(text, headers=((b"allow", wanted.encode()),))


async def _read_small(scope: Scope, receive: Receive) -> bytes:
    check_types(scope["headers"])
    with HeldBytes().account() as account:
        return await read_body(receive, _MAX_SMALL_BODY_BYTES, account)
