"""Users.

    GET, POST          /v1/users                        the operator
    GET, PUT, DELETE   /v1/users/{username}             the operator; the user itself reads and changes

A user who is made can do nothing before it has a key: POST /v1/users/{username}/keys.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.names import is_reserved
from serai_gateway.api.management.pages import page_answer
from serai_gateway.api.management.profiles import UserBody, check_present, user_object, user_profile
from serai_gateway.api.management.requests import page_of, read_json
from serai_gateway.api.management.rights import operator_of, user_of
from serai_gateway.catalogue import Catalogue, InUse, InvalidName, LastOwner, NotFound, Taken


async def list_users(request: Request) -> Response:
    await operator_of(request, "list users")
    limit, marker = page_of(request)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.list_accounts, "user", "operator", limit=limit, marker=marker)
    base = request.app.state.settings.public_url
    return page_answer(request, [user_object(user, base) for user in found.results], found.marker, limit)


async def create_user(request: Request) -> Response:
    await operator_of(request, "create user")
    body = await read_json(request, UserBody)
    check_present(body, "username", "email")
    profile = user_profile(body)
    name = body.username or ""
    if is_reserved(name):
        raise ManagementError(Codes.USERNAME_TAKEN)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        user = await asyncio.to_thread(catalogue.create_account, name, profile)
    except InvalidName as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)) from error
    except Taken as error:
        raise ManagementError(Codes.USERNAME_TAKEN) from error
    return json_answer(user_object(user, request.app.state.settings.public_url))


async def get_user(request: Request) -> Response:
    _, user = await user_of(request, "read user")
    return json_answer(user_object(user, request.app.state.settings.public_url))


async def update_user(request: Request) -> Response:
    """What is given is changed, what is left out stays."""
    _, user = await user_of(request, "update user")
    body = await read_json(request, UserBody)
    if body.username and body.username.lower() != user.name.lower():
        raise ManagementError(Codes.INCONSISTENT_USERNAME)
    profile = user_profile(body)
    if profile.get("email") == "":
        raise ManagementError(Codes.MISSING_FIELDS, "email cannot be empty; leave it out to keep it")
    catalogue: Catalogue = request.app.state.catalogue
    try:
        changed = await asyncio.to_thread(catalogue.set_profile, user, profile)
    except NotFound as error:
        raise ManagementError(Codes.USER_NOT_FOUND) from error
    return json_answer(user_object(changed, request.app.state.settings.public_url))


async def delete_user(request: Request) -> Response:
    _, user = await user_of(request, "delete user")
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.delete_account, user)
    except NotFound as error:
        raise ManagementError(Codes.USER_NOT_FOUND) from error
    except InUse as error:
        raise ManagementError(Codes.IN_USE, str(error)) from error
    except LastOwner as error:
        raise ManagementError(Codes.LAST_OWNER, str(error)) from error
    request.app.state.cache.forget()
    return done()


ROUTES = [
    Route("/v1/users", list_users, methods=["GET"]),
    Route("/v1/users", create_user, methods=["POST"]),
    Route("/v1/users/{username}", get_user, methods=["GET"]),
    Route("/v1/users/{username}", update_user, methods=["PUT"]),
    Route("/v1/users/{username}", delete_user, methods=["DELETE"]),
]
