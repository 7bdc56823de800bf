"""A version as one caller may see it: its build's log is for those who manage the algorithm."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from serai_gateway.api.management.shapes import version_response
from serai_gateway.catalogue import Algorithm, Build, Caller, Catalogue, Version, belongs_to


async def show(request: Request, caller: Caller | None, algorithm: Algorithm, version: Version | None) -> Any:
    """One version with the build that made it; without a version the algorithm, and its newest build for its owner."""
    catalogue: Catalogue = request.app.state.catalogue
    # A key that may only call does not read logs elsewhere, either; nor does code that runs for whoever pays.
    manages = caller is not None and caller.key.permissions.manage and belongs_to(caller.account, algorithm.owner_id)
    build: Build | None = None
    if version is not None:
        found = await asyncio.to_thread(
            lambda: catalogue.builds_of_commits(algorithm, [version.git_hash], with_logs=manages)
        )
        build = found.get(version.git_hash)
    elif manages:
        builds = await asyncio.to_thread(catalogue.builds_of, algorithm, 1)
        build = builds[0] if builds else None
    return version_response(algorithm, version, build, request.app.state.settings.public_url)


async def show_all(request: Request, algorithm: Algorithm, versions: Sequence[Version]) -> list[Any]:
    """Versions in a list, without logs."""
    catalogue: Catalogue = request.app.state.catalogue
    commits = {version.git_hash for version in versions}
    builds = await asyncio.to_thread(catalogue.builds_of_commits, algorithm, commits) if commits else {}
    base_url = request.app.state.settings.public_url
    return [version_response(algorithm, version, builds.get(version.git_hash), base_url) for version in versions]
