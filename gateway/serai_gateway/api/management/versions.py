"""Versions: published, listed, looked at, deprecated. Every path also with the algorithm's id.

POST /v1/algorithms/OWNER/NAME/versions          publish the last build; also …/version
GET  /v1/algorithms/OWNER/NAME/versions          ?published=, ?callable=, limit, marker
GET  …/versions/HASH                             or a number, as in a call
PUT, DELETE …/versions/NUMBER/deprecation        {"message": "…"}: callers are told; partial numbers avoid it
"""

import asyncio
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway import versions as numbers
from serai_gateway.api.management import algorithm_bodies as bodies
from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id, public_id
from serai_gateway.api.management.requests import flag_of, page_of, read_json
from serai_gateway.api.management.shapes import page
from serai_gateway.api.management.shown import show, show_all
from serai_gateway.api.management.targets import (
    administered_algorithm,
    both_ways,
    check_administers,
    check_opens,
    managed_algorithm,
    visible_algorithm,
)
from serai_gateway.catalogue import Account, Algorithm, Catalogue, NotFound, Version, belongs_to
from serai_gateway.logs import get_logger

_log = get_logger("gateway")


class _Deprecation(msgspec.Struct):
    message: Annotated[str, Meta(min_length=1, max_length=500)]


async def publish(request: Request) -> Response:
    caller, algorithm = await managed_algorithm(request)
    body = await read_json(request, bodies.ChangeBody)
    callability = body.settings.algorithm_callability if body.settings else None
    public = (callability or algorithm.visibility) == "public"
    if public:
        await check_administers(request, caller, algorithm)
    await check_opens(request, caller, algorithm, body.settings and body.settings.source_visibility)
    info = body.version_info or bodies.VersionInfo()
    settings = bodies.publish_settings(body)
    bodies.check_settings(algorithm.settings | settings)
    tagline, texts = bodies.texts_of(body.details)
    details = bodies.notes_of(info) | {"settings": settings}
    catalogue: Catalogue = request.app.state.catalogue
    number = info.version_type or "revision"
    try:
        version = await asyncio.to_thread(
            lambda: catalogue.publish_latest(
                algorithm, number, public=public, details=details, tagline=tagline, texts=texts
            )
        )
    except numbers.InvalidVersion as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)) from None
    except NotFound as error:
        raise ManagementError(Codes.BUILD_NOT_FOUND, str(error)) from None
    request.app.state.cache.forget()
    algorithm = await asyncio.to_thread(catalogue.algorithm_by_id, algorithm.id, caller.account)
    name = f"{version.owner}/{version.name}/{version.semver}"
    _log.info("published", action="publish", version=name, public=public, routed=bool(algorithm.routing))
    answer = await show(request, caller, algorithm, version)
    if algorithm.routing and public:
        answer["alerts"] = [_still_routed(algorithm)]
    return json_answer(answer)


def _still_routed(algorithm: Algorithm) -> str:
    parts = ", ".join(f"{percent} % to {number}" for number, percent in algorithm.routing)
    return f"calls without a version still go {parts}; change or delete the routing to send them here"


async def list_versions(request: Request) -> Response:
    caller, algorithm = await visible_algorithm(request)
    account = caller.seen_as(algorithm.owner) if caller else None
    limit, marker = page_of(request)
    published = flag_of(request, "published")
    flag_of(request, "callable")  # clients send both values; what is listed here, its reader may call
    after = internal_id(marker) if marker else None
    if marker and after is None:
        raise ManagementError(Codes.INVALID_MARKER)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        found = await asyncio.to_thread(
            lambda: catalogue.list_versions(
                algorithm,
                public_only=not _is_theirs(account, algorithm),
                published=published,
                limit=limit,
                marker=after,
            )
        )
    except NotFound:
        raise ManagementError(Codes.INVALID_MARKER) from None
    following = public_id(found.marker) if found.marker else None
    link = None
    if following:
        asked = dict(request.query_params) | {"limit": str(limit), "marker": following}
        link = f"{request.app.state.settings.public_url}{request.url.path}?{urlencode(asked)}"
    return json_answer(page(await show_all(request, algorithm, found.results), following, link))


async def get_version(request: Request) -> Response:
    caller, algorithm = await visible_algorithm(request)
    account = caller.seen_as(algorithm.owner) if caller else None
    version = await _find(request, account, algorithm)
    return json_answer(await show(request, caller, algorithm, version))


async def deprecate(request: Request) -> Response:
    body = None
    caller, algorithm = await administered_algorithm(request)
    if request.method == "PUT":
        body = await read_json(request, _Deprecation)
        if not body.message.isprintable():
            raise ManagementError(Codes.INVALID_INPUT, "message is one line of text")
    try:
        numbers.parse_semver(request.path_params["version"])
    except numbers.InvalidVersion as error:
        raise ManagementError(Codes.VERSION_NOT_FOUND, str(error)) from None
    version = await _find(request, caller.account, algorithm)
    catalogue: Catalogue = request.app.state.catalogue
    version = await asyncio.to_thread(catalogue.deprecate_version, version, body.message if body else None)
    request.app.state.cache.forget()
    name = f"{version.owner}/{version.name}/{version.semver}"
    _log.info("deprecated" if body else "no longer deprecated", action="deprecate", version=name)
    return json_answer(await show(request, caller, algorithm, version)) if body else done()


async def _find(request: Request, account: Account | None, algorithm: Algorithm) -> Version:
    """The version of the path, if `account` may call it, or see what it is: a public one by its hash, too."""
    catalogue: Catalogue = request.app.state.catalogue
    text = request.path_params["version"]
    try:
        wanted = numbers.parse(text)
        if not isinstance(wanted, numbers.Commit):
            return await asyncio.to_thread(catalogue.find_version, algorithm.owner, algorithm.name, text, account)
        version = await asyncio.to_thread(catalogue.find_build_version, algorithm, wanted.hash)
    except (numbers.InvalidVersion, NotFound) as error:
        raise ManagementError(Codes.VERSION_NOT_FOUND, str(error)) from None
    if not version.public and not _is_theirs(account, algorithm):
        raise ManagementError(Codes.VERSION_NOT_FOUND, f"{algorithm.owner}/{algorithm.name} has no build {wanted.hash}")
    return version


def _is_theirs(account: Account | None, algorithm: Algorithm) -> bool:
    return account is not None and belongs_to(account, algorithm.owner_id)


ROUTES = [
    *both_ways("/versions", publish, ["POST"]),
    *both_ways("/version", publish, ["POST"]),
    *both_ways("/versions", list_versions, ["GET"]),
    *both_ways("/versions/{version}", get_version, ["GET"]),
    *both_ways("/versions/{version}/deprecation", deprecate, ["PUT", "DELETE"]),
]
