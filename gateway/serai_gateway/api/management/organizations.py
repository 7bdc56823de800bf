"""Organizations.

GET                /v1/organization/types                 everybody
GET                /v1/organizations                      the operator
POST               /v1/organizations                      any person, who then is its first owner
GET                /v1/organizations/{organization}       who belongs to it
PUT, DELETE        /v1/organizations/{organization}       its owners
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.names import is_reserved
from serai_gateway.api.management.pages import page_answer
from serai_gateway.api.management.profiles import (
    TYPES,
    OrganizationBody,
    check_present,
    organization_object,
    organization_profile,
)
from serai_gateway.api.management.requests import page_of, read_json
from serai_gateway.api.management.rights import operator_of, organization_of
from serai_gateway.api.who import manager_of
from serai_gateway.catalogue import Account, Catalogue, InUse, InvalidName, NotFound, Taken, TooMany

_REQUIRED = ("org_name", "org_label", "org_contact_name", "org_email", "type_id")


async def list_types(request: Request) -> Response:
    return json_answer([{"id": id, "name": name} for name, id in TYPES.items()])


async def list_organizations(request: Request) -> Response:
    await operator_of(request, "list organizations")
    limit, marker = page_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.list_accounts, "organization", limit=limit, marker=marker)
    results = await asyncio.to_thread(lambda: [_describe(request, one) for one in found.results])
    return page_answer(request, results, found.marker, limit)


async def create_organization(request: Request) -> Response:
    caller = await manager_of(request)
    if caller.account.kind == "organization":
        raise ManagementError(Codes.NOT_AUTHORIZED, "an organization cannot own another one; use a person's key")
    body = await read_json(request, OrganizationBody)
    check_present(body, *_REQUIRED)
    profile = organization_profile(body)
    name = body.org_name or ""
    if is_reserved(name):
        raise ManagementError(Codes.ORGANIZATION_EXISTS)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        organization = await asyncio.to_thread(catalogue.create_organization, name, caller.account, profile)
    except InvalidName as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)) from error
    except Taken as error:
        raise ManagementError(Codes.ORGANIZATION_EXISTS) from error
    except TooMany as error:
        raise ManagementError(Codes.LIMIT_REACHED, str(error)) from error
    except NotFound as error:
        raise ManagementError(Codes.NOT_AUTHENTICATED) from error
    request.app.state.cache.forget()
    return json_answer(await asyncio.to_thread(_describe, request, organization))


async def get_organization(request: Request) -> Response:
    _, organization = await organization_of(request, "read organization")
    return json_answer(await asyncio.to_thread(_describe, request, organization))


async def update_organization(request: Request) -> Response:
    """What is given is changed, what is left out stays."""
    _, organization = await organization_of(request, "update organization")
    body = await read_json(request, OrganizationBody)
    if body.org_name and body.org_name.lower() != organization.name.lower():
        raise ManagementError(Codes.INVALID_INPUT, f"{organization.name} keeps its name; leave org_name out")
    profile = organization_profile(body)
    empty = [field for field in _REQUIRED if profile.get(field) == ""]
    if empty:
        raise ManagementError(
            Codes.MISSING_FIELDS, f"these cannot be empty, leave them out to keep them: {', '.join(empty)}"
        )
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.set_profile, organization, profile)
    except NotFound as error:
        raise ManagementError(Codes.ORGANIZATION_NOT_FOUND) from error
    return done()


async def delete_organization(request: Request) -> Response:
    _, organization = await organization_of(request, "delete organization")
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.delete_account, organization)
    except NotFound as error:
        raise ManagementError(Codes.ORGANIZATION_NOT_FOUND) from error
    except InUse as error:
        raise ManagementError(Codes.IN_USE, str(error)) from error
    request.app.state.cache.forget()
    return done()


def _describe(request: Request, organization: Account) -> dict[str, object]:
    state = request.app.state
    return organization_object(organization, state.catalogue.owners_of(organization), state.settings.public_url)


ROUTES = [
    Route("/v1/organization/types", list_types, methods=["GET"]),
    Route("/v1/organizations", list_organizations, methods=["GET"]),
    Route("/v1/organizations", create_organization, methods=["POST"]),
    Route("/v1/organizations/{organization}", get_organization, methods=["GET"]),
    Route("/v1/organizations/{organization}", update_organization, methods=["PUT"]),
    Route("/v1/organizations/{organization}", delete_organization, methods=["DELETE"]),
]
