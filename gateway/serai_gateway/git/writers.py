"""Who writes to a repository: the kernel knows, so that what a killed git has left can be told from what is in use.

Every git that writes holds one file of the repository locked, together with all others that do. Whoever finds that
nobody does removes what none of them would have left.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_FILE = "writers"
#: What was pushed and not accepted, packs and commits in the making, and what says that git is at work here.
_LEFT = ("objects/tmp_objdir-*", "objects/incoming-*", "objects/pack/tmp_*", "fast_import_crash_*", "gc.pid", "*.lock")


@contextlib.contextmanager
def writer(repository: Path) -> Iterator[int]:
    """A descriptor for a process that writes to the repository; it counts until the last copy of it is closed."""
    descriptor = os.open(repository / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_left(repository)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_left(repository: Path) -> None:
    left = [path for pattern in _LEFT for path in repository.glob(pattern)]
    for parent, _, names in os.walk(repository / "refs"):
        left += [Path(parent, name) for name in names if name.endswith(".lock")]  # no branch may be called so
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
