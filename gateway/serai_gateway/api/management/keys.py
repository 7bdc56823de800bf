"""API keys. Their text is in the answer that makes them, and nowhere else.

GET, POST   /v1/users/{username}/keys                                    the user itself and the operator
DELETE      /v1/users/{username}/keys/{id}                               revokes it
POST        /v1/admin/users/{username}/keys                              the operator
GET, POST   /v1/organizations/{organization}/keys                        its owners
DELETE      /v1/organizations/{organization}/keys/{id}
POST        /v1/organizations/{organization}/members/{username}/keys     that member itself and the operator
"""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id, public_id
from serai_gateway.api.management.key_permissions import (
    AuthPermissions,
    KeyType,
    auth_permissions,
    check_covers,
    wanted_permissions,
)
from serai_gateway.api.management.profiles import check_text
from serai_gateway.api.management.requests import read_json
from serai_gateway.api.management.rights import check_right, find_account, organization_of, user_of
from serai_gateway.api.management.times import iso_time
from serai_gateway.catalogue import Account, Caller, Catalogue, Key, NotFound, TooMany, belongs_to
from serai_gateway.catalogue.callers import MAX_LABEL_CHARS


class _KeyBody(msgspec.Struct):
    key_label: str = ""
    key_type: KeyType | None = None
    permissions: AuthPermissions | None = None


async def list_user_keys(request: Request) -> Response:
    _, user = await user_of(request, "keys of user")
    return await _list(request, user)


async def create_user_key(request: Request) -> Response:
    return await _create(request, *await user_of(request, "keys of user"))


async def revoke_user_key(request: Request) -> Response:
    _, user = await user_of(request, "keys of user")
    return await _revoke(request, user)


async def create_key_as_admin(request: Request) -> Response:
    return await _create(request, *await user_of(request, "admin keys of user"))


async def list_organization_keys(request: Request) -> Response:
    _, organization = await organization_of(request, "keys of organization")
    return await _list(request, organization)


async def create_organization_key(request: Request) -> Response:
    return await _create(request, *await organization_of(request, "keys of organization"))


async def revoke_organization_key(request: Request) -> Response:
    _, organization = await organization_of(request, "keys of organization")
    return await _revoke(request, organization)


async def create_member_key(request: Request) -> Response:
    """A key of the member's own. An owner of the organization cannot make one: it would open all that the member has
    elsewhere."""
    caller, organization = await organization_of(request, "read members")
    user = await find_account(request, request.path_params["username"])
    if user is None or user.kind == "organization" or not belongs_to(user, organization.id):
        raise ManagementError(Codes.USER_NOT_FOUND)
    check_right(caller, user, "keys of user")
    return await _create(request, caller, user)


async def _create(request: Request, caller: Caller, account: Account) -> Response:
    body = await read_json(request, _KeyBody)
    label = check_text(body.key_label, "key_label", MAX_LABEL_CHARS)
    if body.key_type == "PlatformAdminKey" and account.kind != "operator":
        raise ManagementError(Codes.NOT_AUTHORIZED, "only the operator's account has keys of type PlatformAdminKey")
    own = caller.key.permissions
    permissions = wanted_permissions(body.permissions, body.key_type, own)
    check_covers(own, permissions)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        new = await asyncio.to_thread(catalogue.create_key, account, label, permissions)
    except TooMany as error:
        raise ManagementError(Codes.LIMIT_REACHED, str(error)) from error
    except NotFound as error:
        raise ManagementError(Codes.USER_NOT_FOUND) from error
    answer = json_answer(_key_object(new.key, account) | {"api_key": new.text})
    answer.headers["cache-control"] = "no-store"
    return answer


async def _list(request: Request, account: Account) -> Response:
    """Those that are not revoked."""
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.keys_of, account)
    return json_answer([_key_object(key, account) for key in found if key.revoked_at is None])


async def _revoke(request: Request, account: Account) -> Response:
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.revoke_key, account, internal_id(request.path_params["key_id"]) or "")
    except NotFound as error:
        raise ManagementError(Codes.KEY_NOT_FOUND) from error
    request.app.state.cache.forget()
    return done()


def _key_object(key: Key, account: Account) -> dict[str, Any]:
    kind: KeyType = "ManagementKey" if key.permissions.manage else "AlgorithmKey"
    return {
        "id": public_id(key.id),
        "username": account.name,
        "owner_name": account.name,
        "key_label": key.label,
        "key_type": "PlatformAdminKey" if account.kind == "operator" and key.permissions.manage else kind,
        "created_at": iso_time(key.created_at),
        "api_key_mask": key.mask,
        "permissions": auth_permissions(key.permissions),
    }


ROUTES = [
    Route("/v1/users/{username}/keys", list_user_keys, methods=["GET"]),
    Route("/v1/users/{username}/keys", create_user_key, methods=["POST"]),
    Route("/v1/users/{username}/keys/{key_id}", revoke_user_key, methods=["DELETE"]),
    Route("/v1/admin/users/{username}/keys", create_key_as_admin, methods=["POST"]),
    Route("/v1/organizations/{organization}/keys", list_organization_keys, methods=["GET"]),
    Route("/v1/organizations/{organization}/keys", create_organization_key, methods=["POST"]),
    Route("/v1/organizations/{organization}/keys/{key_id}", revoke_organization_key, methods=["DELETE"]),
    Route("/v1/organizations/{organization}/members/{username}/keys", create_member_key, methods=["POST"]),
]
