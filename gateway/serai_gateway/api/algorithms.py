"""GET /v1/algorithms and /v1/algorithms/OWNER/NAME: what there is."""

import asyncio
import re
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.who import caller_or_nobody
from serai_gateway.catalogue import Algorithm, Catalogue, NotFound, Version
from serai_gateway.catalogue.base import MAX_PAGE_SIZE, PAGE_SIZE
from serai_gateway.errors import InvalidRequest

#: Longest search text and marker.
_MAX_TEXT = 200

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

#: What existing clients look for, word for word.
_NO_SUCH = Response(
    b'{"error":"No such algorithm"}',
    404,
    headers={"content-type": "application/json", "x-error-message": "No such algorithm"},
)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), headers={"content-type": "application/json"})


async def list_algorithms(request: Request) -> Response:
    """One page, in the list form of the management API."""
    query, limit, marker = _parse(request)
    caller = await caller_or_nobody(request)
    catalogue: Catalogue = request.app.state.catalogue
    page = await asyncio.to_thread(
        lambda: catalogue.list_algorithms(
            caller.lists_as if caller else None, query=query, limit=limit, marker=marker or None
        )
    )
    results = [
        {
            "owner": listing.algorithm.owner,
            "name": listing.algorithm.name,
            "version": listing.semver,
            "tagline": listing.algorithm.tagline,
            "visibility": listing.algorithm.visibility,
        }
        for listing in page.results
    ]
    following = None
    if page.marker:
        asked = {"limit": limit, "marker": page.marker, **({"q": query} if query else {})}
        following = f"{request.app.state.settings.public_url}/v1/algorithms?{urlencode(asked)}"
    return _json({"results": results, "marker": page.marker, "next_link": following})


def _parse(request: Request) -> tuple[str, int, str]:
    given = request.query_params
    limit = given.get("limit", str(PAGE_SIZE))
    if not re.fullmatch(r"[0-9]{1,6}", limit) or not 1 <= int(limit) <= MAX_PAGE_SIZE:
        raise InvalidRequest(f"limit must be a number between 1 and {MAX_PAGE_SIZE}")
    query, marker = given.get("q", ""), given.get("marker", "")
    if max(len(query), len(marker)) > _MAX_TEXT or "\x00" in query + marker:
        raise InvalidRequest(f"q and marker are text of at most {_MAX_TEXT} characters")
    return query, int(limit), marker


async def get_algorithm(request: Request) -> Response:
    """One algorithm with the version that a call without a version would get."""
    owner, name = request.path_params["owner"], request.path_params["name"]
    caller = await caller_or_nobody(request)
    if not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        return _NO_SUCH
    account = caller.seen_as(owner) if caller else None
    catalogue: Catalogue = request.app.state.catalogue
    try:
        algorithm = await asyncio.to_thread(catalogue.find_algorithm, owner, name, account)
    except NotFound:
        return _NO_SUCH
    try:
        version = await asyncio.to_thread(catalogue.find_version, owner, name, None, account)
    except NotFound:
        version = None
    return _json(_describe(algorithm, version))


def _describe(algorithm: Algorithm, version: Version | None) -> dict[str, object]:
    described: dict[str, object] = {
        "id": algorithm.id,
        "name": algorithm.name,
        "details": {"label": algorithm.name, "tagline": algorithm.tagline},
        "settings": {"algorithm_callability": algorithm.visibility},
        "resource_type": "algorithm",
    }
    if version is not None:
        info = {"git_hash": version.hash, "version_uuid": version.id}
        if version.semver is not None:
            info["semantic_version"] = version.semver
        described["version_info"] = info
    return described
