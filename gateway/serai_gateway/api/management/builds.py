"""Builds: started, listed, read; and what was pushed. Every path also with the algorithm's id.

POST /v1/algorithms/OWNER/NAME/compile         build the head of the default branch; answers when that has ended
GET  …/builds  …/builds/ID  …/builds/ID/logs   the log is there when the build has ended
GET  …/log                                     commits, ?since=, ?until=
GET  …/scm/status
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import internal_id, public_id
from serai_gateway.api.management.pages import page_answer
from serai_gateway.api.management.requests import page_of
from serai_gateway.api.management.shapes import build_object, version_response
from serai_gateway.api.management.targets import both_ways, managed_algorithm
from serai_gateway.api.publish import error_of
from serai_gateway.catalogue import Algorithm, Build, Catalogue, NotFound, Version
from serai_gateway.git import GitError, Repository
from serai_gateway.git.threads import in_git_thread


async def compile_head(request: Request) -> Response:
    """A build that failed is an answer, too: `build.status` says so."""
    caller, algorithm = await managed_algorithm(request)
    catalogue: Catalogue = request.app.state.catalogue
    ended = await request.app.state.builder.compile(algorithm, caller.account)
    if ended.outcome not in ("built", "failed") or not ended.build_id:
        raise error_of(ended)
    request.app.state.cache.forget()
    build = await asyncio.to_thread(catalogue.find_build, ended.build_id)
    version = await asyncio.to_thread(_version_of, catalogue, algorithm, build) if ended.made else None
    return json_answer(version_response(algorithm, version, build, request.app.state.settings.public_url))


async def list_builds(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    limit, marker = page_of(request)
    after = internal_id(marker) if marker else None
    if marker and after is None:
        raise ManagementError(Codes.INVALID_MARKER)
    catalogue: Catalogue = request.app.state.catalogue
    try:
        found = await asyncio.to_thread(catalogue.builds_of, algorithm, limit + 1, after)
    except NotFound:
        raise ManagementError(Codes.INVALID_MARKER) from None
    builds = found[:limit]
    results = await asyncio.to_thread(
        lambda: [build_object(build, _version_of(catalogue, algorithm, build)) for build in builds]
    )
    following = public_id(builds[-1].id) if len(found) > limit else None
    return page_answer(request, results, following, limit)


async def get_build(request: Request) -> Response:
    algorithm, build = await _build(request)
    catalogue: Catalogue = request.app.state.catalogue
    return json_answer(build_object(build, await asyncio.to_thread(_version_of, catalogue, algorithm, build)))


async def get_log(request: Request) -> Response:
    _, build = await _build(request)
    if build.status == "running":
        raise ManagementError(Codes.BUILD_LOGS_NOT_FOUND)
    return json_answer({"logs": build.log})


async def list_commits(request: Request) -> Response:
    _, algorithm = await managed_algorithm(request)
    since, until = request.query_params.get("since") or None, request.query_params.get("until") or None
    repository = Repository(request.app.state.settings.home, algorithm.id)
    try:
        found = await in_git_thread(repository.history, since, until) if repository.exists else []
    except GitError as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)) from None
    commits = [
        {"id": one.hash, "short_message": one.message.partition("\n")[0], "message": one.message, "author": one.author}
        for one in found
    ]
    return json_answer({"commits": commits})


async def get_scm_status(request: Request) -> Response:
    await managed_algorithm(request)
    return json_answer({"scm_connection_status": "active"})


async def _build(request: Request) -> tuple[Algorithm, Build]:
    """The build of the path. Raises ManagementError, alike for none and for another algorithm's."""
    _, algorithm = await managed_algorithm(request)
    id = internal_id(request.path_params["build_id"])
    catalogue: Catalogue = request.app.state.catalogue
    try:
        build = await asyncio.to_thread(catalogue.find_build, id or "")
    except NotFound:
        raise ManagementError(Codes.BUILD_NOT_FOUND) from None
    if build.algorithm_id != algorithm.id:
        raise ManagementError(Codes.BUILD_NOT_FOUND)
    return algorithm, build


def _version_of(catalogue: Catalogue, algorithm: Algorithm, build: Build) -> Version | None:
    if build.status != "succeeded":
        return None
    try:
        return catalogue.find_build_version(algorithm, build.hash)
    except NotFound:
        return None


ROUTES = [
    *both_ways("/compile", compile_head, ["POST"]),
    *both_ways("/builds", list_builds, ["GET"]),
    *both_ways("/builds/{build_id}", get_build, ["GET"]),
    *both_ways("/builds/{build_id}/logs", get_log, ["GET"]),
    *both_ways("/log", list_commits, ["GET"]),
    *both_ways("/scm/status", get_scm_status, ["GET"]),
]
