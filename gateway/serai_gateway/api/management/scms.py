"""Where source code lies: in this server's own repositories, and nowhere else.

Clients list the source-code hosts that they could choose among; there is exactly one, `internal`, and nobody has to
log in to it.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.shapes import INTERNAL
from serai_gateway.api.who import caller_of


async def list_scms(request: Request) -> Response:
    await caller_of(request)
    return json_answer({"results": [INTERNAL]})


async def get_scm(request: Request) -> Response:
    await _known(request)
    return json_answer(INTERNAL)


async def get_status(request: Request) -> Response:
    """Nobody is ever authorized with another host, as there is none."""
    await _known(request)
    return json_answer({"authorization_status": "unauthorized"})


async def refuse_webhook(request: Request) -> Response:
    """Without a key, as hosts of code send none: and nothing is told about the algorithm."""
    raise ManagementError(Codes.NO_SCM_WEBHOOKS, f"{Codes.NO_SCM_WEBHOOKS.message} A git push builds by itself.")


async def _known(request: Request) -> None:
    """Raises Unauthenticated, ManagementError."""
    await caller_of(request)
    if request.path_params["id"] != INTERNAL["id"]:
        raise ManagementError(Codes.SCM_NOT_FOUND, f'{Codes.SCM_NOT_FOUND.message} There is one, "internal".')


ROUTES = [
    Route("/v1/scms", list_scms, methods=["GET"]),
    Route("/v1/scms/{id}", get_scm, methods=["GET"]),
    Route("/v1/scms/{id}/oauth/status", get_status, methods=["GET"]),
    Route("/v1/scms/{id}/token/status", get_status, methods=["GET"]),
    Route("/v1/algorithms/{id}/scm/webhook", refuse_webhook, methods=["POST"]),
    Route("/v1/algorithms/{owner}/{name}/scm/webhook", refuse_webhook, methods=["POST"]),
]
