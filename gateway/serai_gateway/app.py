"""The gateway's ASGI application: calls and the inference protocol in raw ASGI, everything else in Starlette."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from serai_gateway.api import health, logs, metrics, pool, publish
from serai_gateway.api.calls import Calls, Receive, Scope, Send
from serai_gateway.api.failures import Failures
from serai_gateway.api.git.http import GitHttp
from serai_gateway.api.git.http import body_limit as git_body_limit
from serai_gateway.api.inside import Inside, bound_of, root_of
from serai_gateway.api.management import (
    algorithms,
    builds,
    call_errors,
    environments,
    insights,
    keys,
    members,
    not_here,
    organizations,
    owned,
    routing,
    scms,
    secrets,
    users,
    versions,
)
from serai_gateway.api.management.errors import error_response, is_management, of_catalogue
from serai_gateway.api.openapi import document
from serai_gateway.api.tally import Tally
from serai_gateway.api.v2 import routes as v2
from serai_gateway.builder.client import BuilderClient
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import CatalogueError, Reported, open_catalogue
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import (
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PlatformError,
    error_body,
    error_headers,
)
from serai_gateway.keeper import Keeper
from serai_gateway.logs import get_logger
from serai_gateway.request_id import new_request_id
from serai_gateway.settings import Settings
from serai_gateway.vault import open_vault
from serai_gateway.write_behind import WriteBehind

_log = get_logger("gateway")

#: Threads of a worker for what blocks: the catalogue, mostly.
_MAX_THREADS = 32

_ROUTES = [
    Route("/", document.welcome, methods=["GET"]),
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/metrics", metrics.metrics, methods=["GET"]),
    Route("/openapi.json", document.document, methods=["GET"]),
    Route("/v1/openapispec", document.document, methods=["GET"]),
    *users.ROUTES,
    *organizations.ROUTES,
    *members.ROUTES,
    *keys.ROUTES,
    *owned.ROUTES,
    *secrets.ROUTES,
    *call_errors.ROUTES,
    *insights.ROUTES,
    *builds.ROUTES,
    *versions.ROUTES,
    *routing.ROUTES,
    Route("/v1/algorithms/{owner}/{name}/logs", logs.get_logs, methods=["GET"]),
    *algorithms.ROUTES,  # after whatever lies below an algorithm
    Route("/v1/publish", publish.publish, methods=["POST"]),
    Route("/v1/pool", pool.get_pool, methods=["GET"]),
    Route("/v1/pool/models/{owner}/{name}/{verb}", pool.steer_model, methods=["POST"]),
    Route("/v1/pool/models/{owner}/{name}/{model}/{verb}", pool.steer_model, methods=["POST"]),
    *environments.ROUTES,
    *scms.ROUTES,
    *not_here.ROUTES,
]


class App:
    """Calls go straight to their handler; what is not a call takes Starlette's way."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.catalogue = open_catalogue(settings.home)
        self._dispatcher = Dispatcher(settings.run_dir)
        self._builder = BuilderClient(settings.home)
        self._vault = open_vault(settings.home)
        self._cache = CatalogueCache(self.catalogue, self._vault, settings)
        self._pool = pool.PoolView(self._dispatcher.pool)
        tally = Tally(settings.metrics_dir)
        self._failures = Failures(self.catalogue)
        self._reports: WriteBehind[Reported] = WriteBehind(self.catalogue.add_insights, "insights")
        self._calls = Calls(self._cache, self._dispatcher, tally, self._failures)
        self._v2 = v2.InferenceProtocol(self.catalogue, self._cache, self._dispatcher, self._pool, tally)
        self._git = GitHttp(settings, self.catalogue, self._cache, self._builder)
        self._rest = self._build_rest()
        self._inside = Inside(self._serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if bound_of(scope) is None:
            await self._serve(scope, receive, send)
        else:
            await self._inside(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._calls.serves(scope["path"]):
            try:
                await self._calls(scope, receive, send)
            except Exception:
                bound = bound_of(scope)
                _log.exception("call failed", action="call", root=root_of(bound) if bound else "")
                await _send_internal_error(send)
        elif scope["type"] == "http" and self._v2.serves(scope["path"]):
            await self._v2(scope, receive, send)
        elif scope["type"] == "http" and self._git.serves(scope["path"]) and bound_of(scope) is None:
            await self._git(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    def body_limit(self, path: bytes) -> int:
        """How large a body this path may have beyond the usual, for the server; 0: no more than usual."""
        return publish.body_limit(path) or v2.body_limit(path) or git_body_limit(path)

    def _build_rest(self) -> Starlette:
        rest = Starlette(
            routes=_ROUTES,
            lifespan=self._lifespan,
            exception_handlers={
                PlatformError: _on_platform_error,
                CatalogueError: _on_catalogue_error,
                HTTPException: _on_http_exception,
                Exception: _on_bug,
            },
        )
        rest.router.redirect_slashes = False
        rest.state.settings = self._settings
        rest.state.catalogue = self.catalogue
        rest.state.cache = self._cache
        rest.state.vault = self._vault
        rest.state.reports = self._reports
        rest.state.dispatcher = self._dispatcher
        rest.state.pool = self._pool
        rest.state.builder = self._builder
        return rest

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # Far above the writers that may wait for the database (`catalogue.database`): look-ups find a thread.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_MAX_THREADS, "worker"))
        self._dispatcher.start()
        self._builder.start()
        keeping = asyncio.create_task(
            Keeper(self.catalogue, self._vault, self._settings, self._dispatcher.runner).run()
        )
        yield
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await self._builder.close()
        await self._failures.close()
        await self._reports.close()
        await self._dispatcher.close()


def create_app(settings: Settings) -> App:
    return App(settings)


def _respond(error: PlatformError, path: str = "") -> Response:
    if is_management(path):
        return error_response(error)
    request_id = new_request_id()
    response = Response(error_body(error, request_id), error.status)
    response.raw_headers.extend(error_headers(error, request_id))
    return response


async def _on_platform_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError), "registered for this class alone"
    return _respond(error, request.url.path)


async def _on_catalogue_error(request: Request, error: Exception) -> Response:
    """What the catalogue refuses, where nobody on the way has said it in better words."""
    assert isinstance(error, CatalogueError), "registered for this class alone"
    return _respond(of_catalogue(error), request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or the wrong method for one."""
    assert isinstance(error, HTTPException), "registered for this class alone"
    path = request.url.path
    if error.status_code == 405:
        allow = ", ".join(_methods_of(request)).encode()
        return _respond(MethodNotAllowed("method not allowed here", headers=((b"allow", allow),)), path)
    if error.status_code == 404:
        return _respond(NotFound("no such path; GET /openapi.json lists them"), path)
    return _respond(InvalidRequest(str(error.detail)), path)


def _methods_of(request: Request) -> list[str]:
    """All that this path serves; several routes may share it, and each names its own methods only."""
    served = [one for one in _ROUTES if one not in not_here.ROUTES]
    fitting = [one for one in served if one.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for one in fitting for method in one.methods or ()})


async def _on_bug(request: Request, error: Exception) -> Response:
    _log.error("request failed", action="request", path=request.url.path, exc_info=error)
    return _respond(Internal("internal error; quote the request id to the operator"), request.url.path)


async def _send_internal_error(send: Send) -> None:
    """Best effort: if the answer had begun, the server cuts the connection instead."""
    response = _respond(Internal("internal error; quote the request id to the operator"))
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
