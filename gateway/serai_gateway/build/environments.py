"""Installed packages in HOME/environments/<key>/: made once for each key, whole or not there, and never changed."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serai_gateway.build import builder
from serai_gateway.build.command import Log
from serai_gateway.build.tree import flush_to_disk, make_read_only, remove_tree

#: Fills the folder it is given, which is not there yet; raises BuildError.
Fill = Callable[[Path], None]


def ensure(key: str, home: Path, log: Log, fill: Fill) -> None:
    """Have the environment `key` in `home`, made by `fill` if it is not there.

    Several processes may ask at once: one makes it, the others wait for it.
    """
    folder = home / "environments"
    if (folder / key).is_dir():
        log(f"environment {key[:12]} is there already")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".lock-{key}"):
        if not (folder / key).is_dir():
            part = folder / builder.part_name(key)
            remove_tree(part)
            try:
                if not _take_from_cache(key, part, log):
                    fill(part)
                _complete(part, folder / key)
            finally:
                remove_tree(part)


def environment_cache() -> Path:
    """Holds environments made ahead of time (`prefetch`), as a home does: any home on this machine takes them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "serai"


def _take_from_cache(key: str, part: Path, log: Log) -> bool:
    """Whether it was there. Its files are read-only for good, so they are linked, or copied across file systems."""
    ready = environment_cache() / "environments" / key
    if not ready.is_dir():
        return False
    try:
        shutil.copytree(ready, part, copy_function=_link_or_copy, symlinks=True)
    except (OSError, shutil.Error):
        remove_tree(part)
        return False
    log(f"environment {key[:12]} taken from {ready.parent}")
    return True


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or too many links
        shutil.copy2(source, target, follow_symlinks=False)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process; the kernel frees it when that dies. The wait ends with the other one's own time limit."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _complete(part: Path, place: Path) -> None:
    make_read_only(part)
    flush_to_disk(part)
    os.rename(part, place)
    flush_to_disk(place.parent)
