"""Secrets of an algorithm: variables that its own processes see, and nobody else, these answers included.

GET  /v1/secret-provider                       who keeps them: this server
GET  /v1/algorithms/OWNER/NAME/secrets         also /v1/algorithms/ID/secrets
POST …/secrets     PUT, DELETE …/secrets/ID
"""

import asyncio
import uuid
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway import secret_rules
from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id, public_id
from serai_gateway.api.management.requests import read_json
from serai_gateway.api.management.targets import both_ways, managed_algorithm
from serai_gateway.api.management.times import iso_time
from serai_gateway.api.who import caller_of
from serai_gateway.catalogue import Algorithm, Catalogue, NotFound, Secret, Taken, TooMany
from serai_gateway.vault import Vault

PROVIDER_ID = "dee00b6c-5e7a-4c1e-9d4b-2f0a6c1b8e55"
_SINCE = "2021-03-11T20:42:23.000Z"
_PROVIDER = {
    "id": PROVIDER_ID,
    "name": "algorithmia_internal_secret_provider",
    "description": "Internal Secret Provider",
    "moduleName": "module",
    "factoryClassName": "internal",
    "interfaceVersion": "1.0",
    "isEnabled": True,
    "isDefault": True,
    "created": _SINCE,
    "modified": _SINCE,
}


class _Body(msgspec.Struct):
    short_name: str | None = None
    description: str | None = None
    secret_key: str | None = None
    secret_value: str | None = None
    owner_type: str = "algorithm"
    owner_id: str | None = None
    provider_id: str | None = None


async def list_providers(request: Request) -> Response:
    await caller_of(request)
    return json_answer([_PROVIDER])


async def list_secrets(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.secrets_of, algorithm.id)
    listed = [_shown(secret) for secret in found.secrets]
    return json_answer({"results": listed, "secrets": listed})


async def create_secret(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    body = await _read(request, algorithm)
    if body.secret_value is None or body.secret_value == "":
        raise ManagementError(Codes.SECRET_NEEDS_VALUE)
    if body.secret_key is None or body.short_name is None:
        raise ManagementError(Codes.SECRET_MALFORMED, "short_name and secret_key are required")
    id = uuid.uuid4().hex
    sealed = _vault(request).seal(body.secret_value, algorithm.id, id)
    secret = Secret(id, algorithm.id, body.short_name, body.description or "", body.secret_key, sealed)
    return await _kept(request, "add_secret", secret)


async def change_secret(request: Request) -> Response:
    """What the body does not name stays as it is."""
    _, algorithm = await managed_algorithm(request)
    body = await _read(request, algorithm)
    old = await _find(request, algorithm)
    changes = {
        "short_name": body.short_name,
        "description": body.description,
        "key": body.secret_key,
        "sealed": body.secret_value and _vault(request).seal(body.secret_value, algorithm.id, old.id),
    }
    secret = msgspec.structs.replace(old, **{name: value for name, value in changes.items() if value is not None})
    return await _kept(request, "change_secret", secret)


async def remove_secret(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        await asyncio.to_thread(catalogue.remove_secret, algorithm.id, _id_of(request))
    except NotFound:
        raise ManagementError(Codes.SECRET_NOT_FOUND) from None
    request.app.state.cache.forget()
    return done()


async def _read(request: Request, algorithm: Algorithm) -> _Body:
    """The body, checked as far as it says something. Raises ManagementError."""
    try:
        body = await read_json(request, _Body)
    except ManagementError as error:
        raise ManagementError(Codes.SECRET_MALFORMED, str(error)) from None
    if body.owner_type != "algorithm" or (body.owner_id and internal_id(body.owner_id) != algorithm.id):
        raise ManagementError(Codes.SECRET_INVALID, "owner_type and owner_id must be those of this algorithm")
    if body.provider_id and body.provider_id != PROVIDER_ID:
        raise ManagementError(Codes.SECRET_PROVIDER_NOT_FOUND)
    checks = (
        (secret_rules.check_key, body.secret_key),
        (secret_rules.check_value, body.secret_value),
        (secret_rules.check_short_name, body.short_name),
        (secret_rules.check_description, body.description),
    )
    try:
        for check, value in checks:
            if value is not None and (value or check is not secret_rules.check_value):
                check(value)
    except secret_rules.BadSecret as error:
        raise ManagementError(Codes.SECRET_INVALID, str(error)) from None
    return body


async def _find(request: Request, algorithm: Algorithm) -> Secret:
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(catalogue.secrets_of, algorithm.id)
    for secret in found.secrets:
        if secret.id == _id_of(request):
            return secret
    raise ManagementError(Codes.SECRET_NOT_FOUND)


async def _kept(request: Request, how: str, secret: Secret) -> Response:
    try:
        kept = await asyncio.to_thread(getattr(request.app.state.catalogue, how), secret)
    except Taken as error:
        raise ManagementError(Codes.SECRET_CONSTRAINT, str(error)) from None
    except TooMany as error:
        raise ManagementError(Codes.SECRET_INVALID, str(error)) from None
    except NotFound:
        raise ManagementError(Codes.SECRET_NOT_FOUND) from None
    request.app.state.cache.forget()  # the next call through this worker has it, and through the others within 0.1 s
    return json_answer(_shown(kept))


def _id_of(request: Request) -> str:
    return internal_id(request.path_params["secret_id"]) or ""


def _vault(request: Request) -> Vault:
    return request.app.state.vault


def _shown(secret: Secret) -> dict[str, Any]:
    return {
        "id": public_id(secret.id),
        "short_name": secret.short_name,
        "description": secret.description,
        "secret_key": secret.key,
        "owner_type": "algorithm",
        "owner_id": public_id(secret.algorithm_id),
        "provider_id": PROVIDER_ID,
        "created": iso_time(secret.created_at),
        "modified": iso_time(secret.modified_at),
    }


ROUTES = [
    Route("/v1/secret-provider", list_providers, methods=["GET"]),
    *both_ways("/secrets", list_secrets, ["GET"]),
    *both_ways("/secrets", create_secret, ["POST"]),
    *both_ways("/secrets/{secret_id}", change_secret, ["PUT"]),
    *both_ways("/secrets/{secret_id}", remove_secret, ["DELETE"]),
]
