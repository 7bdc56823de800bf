"""The algorithms that come with Serai: built and published like anybody's, when they are new or have changed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError
from serai_gateway.build.paths import SKIPPED
from serai_gateway.catalogue import Account, Catalogue, CatalogueError, Version, ensure_operator
from serai_gateway.files import FileStoreError
from serai_gateway.git import GitError
from serai_gateway.places import first_party_folder

_STATE = "first_party.json"


class Report(NamedTuple):
    published: tuple[str, ...]  # "owner/name/1.0.0"
    unchanged: tuple[str, ...]  # "owner/name"
    failed: dict[str, str]  # "owner/name" to why; tried again at the next start


#: Publishes a folder in the name of an account, and returns what came out. Raises like `build_folder`.
PublishFolder = Callable[[Path, Account], Version]


def publish_first_party(
    home: Path, catalogue: Catalogue, publish: PublishFolder, log: Log, *, folder: Path | None = None
) -> Report:
    """Publish every algorithm under `folder` that is not published as it is now: first as 1.0.0, then as the next
    revision. Their owners are accounts that the operator manages.

    One that fails stops neither the others nor the start. Milliseconds when nothing has changed.
    """
    folder = folder or first_party_folder()
    operator = ensure_operator(home, catalogue).account
    published: list[str] = []
    unchanged: list[str] = []
    failed: dict[str, str] = {}
    seen = _read_state(home)
    started = time.time()
    for place in _places(folder) if folder else ():
        name = f"{place.parent.name}/{place.name}"
        print_now = fingerprint(place)
        if _is_published(catalogue, operator, name, seen.get(name), print_now):
            unchanged.append(name)
            continue
        try:
            catalogue.ensure_account(place.parent.name, "organization", operator)
            version = publish(place, operator)
        except (BuildError, CatalogueError, FileStoreError, GitError, OSError) as error:
            failed[name] = str(error)
            log(f"{name} could not be published and is tried again at the next start: {error}")
            continue
        if (version.published_at or 0.0) >= started:
            published.append(f"{name}/{version.semver}")
        else:
            unchanged.append(name)
        seen[name] = [print_now, version.hash]
        _write_state(home, seen)
    return Report(tuple(published), tuple(unchanged), failed)


def _places(folder: Path) -> list[Path]:
    return sorted(manifest.parent for manifest in folder.glob("*/*/algorithm.toml"))


def _is_published(catalogue: Catalogue, operator: Account, name: str, seen: Any, print_now: str) -> bool:
    """Whether the folder is as it was when it was built last, and the catalogue still has what came out."""
    owner, _, algorithm = name.partition("/")
    try:
        known, hash = seen
        return known == print_now and catalogue.find_version(owner, algorithm, hash, operator).public
    except (TypeError, ValueError, AttributeError, CatalogueError):
        return False  # a damaged state file: build it, which changes nothing that has not changed


def fingerprint(folder: Path) -> str:
    """Changes whenever a file below changes: what the file system knows of each, without reading any."""
    found: list[tuple[str, int, int, int, int]] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in names:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            found.append(
                (os.path.relpath(path, folder), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            )
    return json.dumps(sorted(found))


def _read_state(home: Path) -> dict[str, Any]:
    """ "owner/name" to the fingerprint that was built, and the version's hash."""
    try:
        state = json.loads((home / _STATE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(home: Path, state: dict[str, Any]) -> None:
    staged = home / f".{_STATE}.{os.getpid()}"
    staged.write_text(json.dumps(state))
    os.replace(staged, home / _STATE)
