"""Every kind of catalogue, empty, for the behaviour suite: a new kind adds itself here and runs it."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from serai_gateway.catalogue.protocol import Catalogue
from serai_gateway.catalogue.records import Account, Algorithm, NewVersion, Version
from serai_gateway.catalogue.sql import open_catalogue

#: Name to a function that opens the catalogue of a folder; opening again gives the same content.
KINDS: dict[str, Callable[[Path], Catalogue]] = {"sqlite": open_catalogue}


def new_version(number: int, kind: str = "python") -> NewVersion:
    return NewVersion(hash=f"{number:040x}", kind=kind, manifest={"n": number}, code_sha=f"{number:064x}")  # pyright: ignore


def published(
    catalogue: Catalogue, owner: Account, name: str, semver: str = "1.0.0", *, public: bool = True, number: int = 1
) -> tuple[Algorithm, Version]:
    algorithm = catalogue.ensure_algorithm(owner, name)
    version = catalogue.add_version(algorithm, new_version(number))
    return algorithm, catalogue.publish_version(version, semver, public=public)


def built(catalogue: Catalogue, algorithm: Algorithm, number: int, **permissions: bool) -> Version:
    """What the builder leaves behind: a build that has succeeded, and its version."""
    manifest = {"owner": algorithm.owner, "name": algorithm.name, "kind": "python", "permissions": permissions}
    new = msgspec.structs.replace(new_version(number), manifest=manifest)
    build = catalogue.start_build(algorithm, new.hash, "a test")
    version = catalogue.add_version(algorithm, new)
    catalogue.finish_build(build.id, "succeeded", f"built {number}")
    return version
