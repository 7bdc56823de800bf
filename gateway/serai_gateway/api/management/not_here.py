"""Operations of Algorithmia's API that this server does not have: each answers 501, and says what to do instead.

They ask for a key first, as they did there; what everybody could read there tells everybody.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.who import caller_of


class NotHere(NamedTuple):
    methods: tuple[str, ...]
    path: str
    why: str
    is_open: bool = False  # answers without a key


_LISTENERS = "Nothing listens to queues here: let what reads the queue call POST /v1/algo/OWNER/NAME."
_HOSTS = "Code lies in this server's own repositories only: mirror another host with git push."
_INSIGHTS = "Insights are kept in this server and not sent on: read them at GET /v1/algorithms/OWNER/NAME/insights."
_INVITES = "Nobody is invited: the operator makes accounts with POST /v1/users."
_ORG_HOSTS = "Organizations have no addresses of their own: all share this server's."
_PROVIDERS = "Secrets are kept by this server alone: GET /v1/secret-provider lists its one provider."
_RESERVATIONS = (
    "Replicas are not reserved for callers: [scaling] min in algorithm.toml keeps some of a version running."
)
_TYPES = "The types of organizations are fixed: GET /v1/organization/types lists them."
_USAGE = "Usage is not added up per account: GET /metrics counts the server's calls."
_LOOKS = "There is no web page to dress: this server has an API and a command line."
_REGISTRIES = "Versions are not container images: git clone fetches what they are made of."
_DATA = "Data collections are not here: send data in the call, and put models into the repository."
_FEATURES = "There are no features to switch per account: `serai up --help` lists what the operator decides."

NOT_HERE = (
    NotHere(("GET",), "/v1/admin/features", _FEATURES),
    NotHere(("PUT",), "/v1/admin/features/{name}", _FEATURES),
    NotHere(("GET", "POST", "DELETE"), "/v1/admin/insights-connection", _INSIGHTS),
    NotHere(("GET", "POST"), "/v1/admin/invites", _INVITES),
    NotHere(("DELETE",), "/v1/admin/invites/{code}", _INVITES),
    NotHere(("GET",), "/v1/admin/legacy-algorithms", "All algorithms run in environments: none is a legacy one."),
    NotHere(("PUT",), "/v1/admin/organization_host_information", _ORG_HOSTS),
    NotHere(("GET", "POST", "DELETE"), "/v1/admin/organization_host_information/{organization}", _ORG_HOSTS),
    NotHere(("GET", "POST"), "/v1/admin/plugins/secret-provider/{id}", _PROVIDERS),
    NotHere(("POST",), "/v1/admin/plugins/secret-provider/{id}/default", _PROVIDERS),
    NotHere(("GET", "POST"), "/v1/admin/reservations", _RESERVATIONS),
    NotHere(("DELETE",), "/v1/admin/reservations/{id}", _RESERVATIONS),
    NotHere(("POST",), "/v1/admin/scms", _HOSTS),
    NotHere(("PATCH", "DELETE"), "/v1/admin/scms/{id}", _HOSTS),
    NotHere(("POST",), "/v1/admin/scms/{id}/default", _HOSTS),
    NotHere(("GET", "POST"), "/v1/admin/secret-provider", _PROVIDERS),
    NotHere(("GET", "POST", "DELETE"), "/v1/admin/secret-provider/{id}", _PROVIDERS),
    NotHere(("GET",), "/v1/admin/usage", _USAGE),
    NotHere(("GET",), "/v1/admin/usage/algorithms", _USAGE),
    NotHere(("GET",), "/v1/admin/usage/users", _USAGE),
    NotHere(("POST",), "/v1/algorithm-environments/edge/syncs", "Environments are what is installed on this server."),
    NotHere(
        ("DELETE",),
        "/v1/algorithm-environments/edge/environment-specifications/{id}",
        "Environments are what is installed on this server: remove the interpreter.",
    ),
    NotHere(("GET", "POST"), "/v1/algorithms/{id}/versions/{hash}/registry", _REGISTRIES),
    NotHere(("POST",), "/v1/algorithms/{id}/collections/{collection}", _DATA),
    NotHere(("GET",), "/v1/config/favicon", _LOOKS, is_open=True),
    NotHere(("POST", "DELETE"), "/v1/config/favicon", _LOOKS),
    NotHere(("GET",), "/v1/config/frontend", _LOOKS, is_open=True),
    NotHere(("GET",), "/v1/config/frontend/{key}", _LOOKS, is_open=True),
    NotHere(("PUT", "DELETE"), "/v1/config/frontend/{key}", _LOOKS),
    NotHere(("GET",), "/v1/config/logo", _LOOKS, is_open=True),
    NotHere(("POST", "DELETE"), "/v1/config/logo", _LOOKS),
    NotHere(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"), "/v1/connector/{path:path}", _DATA),
    NotHere(("POST",), "/v1/organization/types", _TYPES),
    NotHere(("DELETE",), "/v1/organization/types/{name}", _TYPES),
    NotHere(("GET", "PUT"), "/v1/organizations/{organization}/algorithms-host-usernames", _ORG_HOSTS),
    NotHere(("DELETE",), "/v1/organizations/{organization}/algorithms-host-usernames/{id}", _ORG_HOSTS),
    NotHere(("GET", "POST"), "/v1/registries", _REGISTRIES),
    NotHere(("PUT", "DELETE"), "/v1/registries/{id}", _REGISTRIES),
    NotHere(("GET",), "/v1/scms/{id}/oauth/finish", _HOSTS),
    NotHere(("GET",), "/v1/scms/{id}/oauth/start", _HOSTS),
    NotHere(("POST",), "/v1/scms/{id}/oauth/revoke", _HOSTS),
    NotHere(("POST",), "/v1/scms/{id}/token/connect", _HOSTS),
    NotHere(("POST",), "/v1/users/{id}/connectors", _DATA),
    NotHere(("GET", "POST"), "/v1/users/{id}/event-listeners", _LISTENERS),
    NotHere(("GET", "PUT", "DELETE"), "/v1/users/{id}/event-listeners/{listener}", _LISTENERS),
    NotHere(("GET",), "/v1/users/{id}/notifications", "Nobody is notified: follow GET /v1/algorithms/OWNER/NAME/logs."),
)


def _refuse(operation: NotHere) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if not operation.is_open:
            await caller_of(request)
        raise ManagementError(Codes.NOT_IMPLEMENTED, f"{Codes.NOT_IMPLEMENTED.message} {operation.why}")

    return endpoint


#: After all others: a path here is never one that something else serves.
ROUTES = [Route(one.path, _refuse(one), methods=list(one.methods)) for one in NOT_HERE]
