"""Who belongs to an organization.

    GET       /v1/organizations/{organization}/members               who belongs to it
    PUT       /v1/organizations/{organization}/members/{username}    its owners; {"role": "owner" | "member"}
    DELETE    /v1/organizations/{organization}/members/{username}    its owners, and whoever leaves

A member works on what the organization has: sees it, pushes, builds, publishes privately. An owner decides: publishes
for all, divides calls among versions, deletes, says who belongs to it, makes its keys.
"""

import asyncio
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import done
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.pages import page_answer
from serai_gateway.api.management.profiles import member_object
from serai_gateway.api.management.requests import page_of, read_json
from serai_gateway.api.management.rights import check_right, find_account, organization_of
from serai_gateway.catalogue import Account, Catalogue, LastOwner, NotFound, TooMany


class _MemberBody(msgspec.Struct):
    role: Literal["owner", "member"] | None = None  # None: as it is, and a member if it is new


async def list_members(request: Request) -> Response:
    _, organization = await organization_of(request, "read members")
    limit, marker = page_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.members_of, organization, limit=limit, marker=marker)
    base = request.app.state.settings.public_url
    return page_answer(request, [member_object(member, base) for member in found.results], found.marker, limit)


async def set_member(request: Request) -> Response:
    """200 and nothing, as clients expect. It counts at once: nobody is asked whether they want to belong to it."""
    _, organization = await organization_of(request, "set member")
    body = await read_json(request, _MemberBody)
    user = await _user(request)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.set_member, organization, user, body.role)
    except LastOwner as error:
        raise ManagementError(Codes.LAST_OWNER, str(error)) from error
    except TooMany as error:
        raise ManagementError(Codes.LIMIT_REACHED, str(error)) from error
    except NotFound as error:
        raise ManagementError(Codes.USER_NOT_FOUND) from error
    request.app.state.cache.forget()
    return Response()


async def remove_member(request: Request) -> Response:
    caller, organization = await organization_of(request, None)
    if request.path_params["username"].lower() != caller.account.name.lower():
        check_right(caller, organization, "remove member")
    user = await _user(request)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.remove_member, organization, user)
    except LastOwner as error:
        raise ManagementError(Codes.LAST_OWNER, str(error)) from error
    except NotFound as error:
        raise ManagementError(Codes.USER_NOT_FOUND) from error
    request.app.state.cache.forget()
    return done()


async def _user(request: Request) -> Account:
    user = await find_account(request, request.path_params["username"])
    if user is None or user.kind == "organization":
        raise ManagementError(Codes.USER_NOT_FOUND)
    return user


ROUTES = [
    Route("/v1/organizations/{organization}/members", list_members, methods=["GET"]),
    Route("/v1/organizations/{organization}/members/{username}", set_member, methods=["PUT"]),
    Route("/v1/organizations/{organization}/members/{username}", remove_member, methods=["DELETE"]),
]
