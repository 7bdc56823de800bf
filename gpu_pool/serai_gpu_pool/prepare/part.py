"""A folder that is being made: under a name of its own beside the finished ones, until it is whole.

Its maker holds a lock on it, which ends with the process however that ends: what is not locked was left by the dead.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from serai_gpu_pool.prepare.page_cache import settle

_PREFIX = ".part-"


@contextlib.contextmanager
def new_part(root: Path) -> Iterator[Path]:
    """An empty folder in `root`, removed in the end unless `complete` has moved it to its place."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = _locked(path)
        if lock is not None:
            break  # otherwise somebody who sweeps came between, and it is theirs to remove
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep(root: Path) -> None:
    """Remove what was left by makers that are gone."""
    with contextlib.suppress(FileNotFoundError):
        for path in root.iterdir():
            if not path.name.startswith(_PREFIX):
                continue
            lock = _locked(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def complete(part: Path, place: Path) -> bool:
    """Move a finished folder to its place, on disk before anybody can see it; False: there is one already."""
    for path in part.iterdir():
        path.chmod(0o444)
        _sync(path)
        settle(path)
    _sync(part)
    try:
        part.rename(place)
    except OSError:
        if place.is_dir():
            return False
        raise
    _sync(place.parent)
    return True


def discard(place: Path) -> None:
    """Take away a folder that is of no use, at once for all who look."""
    with contextlib.suppress(FileNotFoundError), new_part(place.parent) as part:
        place.rename(part / place.name)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of this folder; None: somebody else does, or it has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass  # locked, or removed between the two
    os.close(descriptor)
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
