"""Algorithms: created with a repository that builds, read, changed, deleted, listed and searched.

GET    /v1/algorithms              ?q= words of owner, name, tagline or label, ?owner=, limit, marker
POST   /v1/algorithms/OWNER        create
GET    /v1/algorithms/OWNER/NAME   PUT, DELETE; also with the algorithm's id
"""

import asyncio
import uuid
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management import algorithm_bodies as bodies
from serai_gateway.api.management.answers import done, json_answer
from serai_gateway.api.management.errors import Codes, ManagementError, no_such_algorithm, of_cannot_make
from serai_gateway.api.management.requests import page_of, read_json
from serai_gateway.api.management.shapes import hash_response, page
from serai_gateway.api.management.shown import show
from serai_gateway.api.management.targets import (
    administered_algorithm,
    both_ways,
    check_opens,
    managed_algorithm,
    managed_owner,
    visible_algorithm,
)
from serai_gateway.api.who import caller_or_nobody
from serai_gateway.build.runtimes import language_of
from serai_gateway.build.templates import CannotMake, template_files
from serai_gateway.catalogue import Account, Algorithm, Catalogue, NotFound, Taken, check_name
from serai_gateway.git import Author, GitError, Repository
from serai_gateway.logs import get_logger

_log = get_logger("gateway")

Texts = tuple[str | None, dict[str, Any]]  # the tagline, and what else people read

#: Longest search text.
_MAX_QUERY_CHARS = 200


async def list_algorithms(request: Request) -> Response:
    """One page of what the caller may see."""
    limit, marker = page_of(request)
    query, owner = request.query_params.get("q", ""), request.query_params.get("owner") or None
    if max(len(query), len(owner or "")) > _MAX_QUERY_CHARS or "\x00" in query + (owner or ""):
        raise ManagementError(Codes.INVALID_INPUT, f"q and owner are text of at most {_MAX_QUERY_CHARS} characters")
    caller = await caller_or_nobody(request)
    catalogue: Catalogue = request.app.state.catalogue
    found = await asyncio.to_thread(
        lambda: catalogue.list_algorithms(
            caller.lists_as if caller else None, owner=owner, query=query, limit=limit, marker=marker
        )
    )
    results = [
        {
            "owner": listing.algorithm.owner,
            "name": listing.algorithm.name,
            "version": listing.semver,
            "tagline": listing.algorithm.tagline,
            "visibility": listing.algorithm.visibility,
            "state": listing.state,
        }
        for listing in found.results
    ]
    following = None
    if found.marker:
        asked = {"limit": limit, "marker": found.marker, "q": query, "owner": owner}
        given = urlencode({key: value for key, value in asked.items() if value})
        following = f"{request.app.state.settings.public_url}/v1/algorithms?{given}"
    return json_answer(page(results, found.marker, following))


async def create_algorithm(request: Request) -> Response:
    owner = await managed_owner(request)
    body = await read_json(request, bodies.CreateBody)
    settings = bodies.settings_of_new(body)
    texts = bodies.texts_of(body.details, body.version_info)
    source = body.source or bodies.Source()
    if source.scm not in (None, "", "internal"):
        raise ManagementError(Codes.SCM_NOT_FOUND, "repositories are kept here: the only source-code host is internal")
    message = source.initial_commit_message or "Initial commit"
    name = check_name(body.name, "algorithm name")
    algorithm = await asyncio.to_thread(_create, request, owner, name, texts, settings, message)
    request.app.state.cache.forget()
    _log.info("created", action="create", algorithm=f"{algorithm.owner}/{algorithm.name}")
    return json_answer(hash_response(algorithm, request.app.state.settings.public_url), 201)


def _create(
    request: Request, owner: Account, name: str, texts: Texts, settings: dict[str, Any], message: str
) -> Algorithm:
    """The repository first, under an id that nobody knows yet: whoever sees the algorithm can push and compile."""
    state = request.app.state
    catalogue: Catalogue = state.catalogue
    tagline, details = texts
    try:
        catalogue.find_algorithm(owner.name, name, owner)
    except NotFound:
        pass
    else:
        raise Taken(f"there is an algorithm {owner.name}/{name} already; choose another name")
    try:
        files = template_files(language_of(settings), owner.name, name)
    except CannotMake as error:
        raise of_cannot_make(error) from None
    id = uuid.uuid4().hex
    repository = Repository(state.settings.home, id)
    try:
        repository.create(files, message, Author(owner.name))
        return catalogue.create_algorithm(
            owner, name, tagline=tagline or "", details=details, settings=settings, algorithm_id=id
        )
    except GitError as error:
        repository.remove()
        _log.error("no repository", action="create", why=str(error))
        raise ManagementError(Codes.SCM_FAILED) from error
    except BaseException:
        repository.remove()
        raise


async def get_algorithm(request: Request) -> Response:
    """With the version that a call without a version would get."""
    try:
        caller, algorithm = await visible_algorithm(request)
    except ManagementError as error:
        if error.number == Codes.ALGORITHM_NOT_FOUND.number:
            return no_such_algorithm()
        raise
    catalogue: Catalogue = request.app.state.catalogue
    account = caller.seen_as(algorithm.owner) if caller else None
    try:
        version = await asyncio.to_thread(catalogue.find_version, algorithm.owner, algorithm.name, None, account)
    except NotFound:
        version = None
    return json_answer(await show(request, caller, algorithm, version))


async def update_algorithm(request: Request) -> Response:
    """What the body says is changed. Python's client sends a form without values: then nothing is."""
    if "owner" in request.path_params and "name" not in request.path_params:
        body = await _read_change(request)
        request.path_params["name"] = body.name or ""
        caller, algorithm = await managed_algorithm(request)
    else:
        caller, algorithm = await managed_algorithm(request)
        body = await _read_change(request)
    await check_opens(request, caller, algorithm, body.settings and body.settings.source_visibility)
    settings = bodies.settings_of_change(body.settings, algorithm.settings, algorithm.visibility)
    tagline, details = bodies.texts_of(body.details, body.version_info)
    catalogue: Catalogue = request.app.state.catalogue
    algorithm = await asyncio.to_thread(
        lambda: catalogue.set_algorithm(algorithm, tagline=tagline, details=details, settings=settings)
    )
    request.app.state.cache.forget()
    return json_answer(hash_response(algorithm, request.app.state.settings.public_url))


async def _read_change(request: Request) -> bodies.ChangeBody:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        return await read_json(request, bodies.ChangeBody)
    except ManagementError as error:
        if kind == "application/x-www-form-urlencoded" and error.number == Codes.MALFORMED_JSON.number:
            return bodies.ChangeBody()
        raise


async def delete_algorithm(request: Request) -> Response:
    caller, algorithm = await administered_algorithm(request)
    await asyncio.to_thread(_delete, request, algorithm, caller.account.kind == "operator")
    request.app.state.cache.forget()
    name = f"{algorithm.owner}/{algorithm.name}"
    _log.info("deleted", action="delete", algorithm=name, account=caller.account.name)
    return done()


def _delete(request: Request, algorithm: Algorithm, even_if_public: bool) -> None:
    request.app.state.catalogue.delete_algorithm(algorithm, even_if_public=even_if_public)
    Repository(request.app.state.settings.home, algorithm.id).remove()


ROUTES = [
    Route("/v1/algorithms", list_algorithms, methods=["GET"]),
    *both_ways("", get_algorithm, ["GET"]),
    *both_ways("", update_algorithm, ["PUT"]),
    *both_ways("", delete_algorithm, ["DELETE"]),
    Route("/v1/algorithms/{owner}", create_algorithm, methods=["POST"]),
    Route("/v1/algorithms/{owner}", update_algorithm, methods=["PUT"]),
]
