"""Removes what no version refers to any more: its code, its environment, its model files.

What builds make is named by its content and shared by versions, so nobody who goes can take it away. It is looked for
while nothing is built, and goes a day after it was first seen to be in nobody's use: calls of a version that has just
been deleted still run in it.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from serai_gateway.build import builder
from serai_gateway.build.command import Log
from serai_gateway.build.tree import remove_tree
from serai_gateway.catalogue import Catalogue
from serai_gateway.files import DirectoryStore, open_store

UNUSED_S = 24 * 3600.0
#: Held by everybody who builds, together; by whoever collects, alone.
_LOCK = "builds.lock"
#: What is in nobody's use, and since when that is known.
_UNUSED = "unused.json"
_KEY = re.compile(r"[0-9a-f]{64}\Z")


@contextlib.contextmanager
def building(home: Path) -> Iterator[None]:
    """Nothing is removed meanwhile: what a build finds there is there until a version refers to it."""
    with _locked(home, fcntl.LOCK_SH):
        yield


def collect(home: Path, catalogue: Catalogue, now: float, log: Log) -> None:
    """Remove what has not been in use for a day. Does nothing while there are builds. `now`: seconds since 1970."""
    store = open_store(home)
    try:
        with _locked(home, fcntl.LOCK_EX | fcntl.LOCK_NB):
            doomed = _doomed(home, catalogue, store, now)
            parts = [_take_away(home, place, store) for place in doomed]
    except BlockingIOError:
        return
    for part in parts:
        remove_tree(part)  # which may take long, and whose rest `sweep` removes if we are killed
    if doomed:
        log(f"removed what no version uses any more: {len(doomed)} folders and files")
    _empty_tmp(home / "tmp", now)


def _doomed(home: Path, catalogue: Catalogue, store: DirectoryStore, now: float) -> list[str]:
    """What is to go now, as "code/<key>", "environments/<key>", "files/<sha256>"; all that is unused is noted."""
    used = catalogue.content_in_use()
    unused = {f"code/{key}" for key in _keys(home / "code") - used.code}
    unused |= {f"environments/{key}" for key in _keys(home / "environments") - used.environments}
    unused |= {f"files/{sha256}" for sha256 in set(store.names()) - used.files}
    known = _read(home / _UNUSED)
    since = {place: min(known.get(place, now), now) for place in unused}
    _write(home / _UNUSED, since)
    return sorted(place for place, at in since.items() if at <= now - UNUSED_S)


def _take_away(home: Path, place: str, store: DirectoryStore) -> Path:
    """Out of everybody's sight; where it lies now."""
    folder, _, key = place.partition("/")
    part = home / folder / builder.part_name(uuid.uuid4().hex)
    if folder == "files":
        store.remove(key)
        return part
    os.rename(home / place, part)
    if folder == "environments":
        (home / folder / f".lock-{key}").unlink(missing_ok=True)  # nobody waits for it: nothing is built
    return part


def _keys(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if _KEY.match(name)} if folder.is_dir() else set()


def _read(path: Path) -> dict[str, float]:
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {place: at for place, at in known.items() if isinstance(at, float)} if isinstance(known, dict) else {}


def _write(path: Path, since: dict[str, float]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(since, indent=1))
    os.replace(part, path)


def _empty_tmp(folder: Path, now: float) -> None:
    """Of what is there for one request or one build, what was left by those that died."""
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime > now - UNUSED_S:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


@contextlib.contextmanager
def _locked(home: Path, how: int) -> Iterator[None]:
    """Raises BlockingIOError with LOCK_NB. The kernel frees it when its holder dies."""
    descriptor = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
