"""The files of a folder of ours, to be committed: one that we have unpacked, or one of our own distribution."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import SKIPPED, shown
from serai_gateway.git import Entry


def entries_of(folder: Path) -> Iterator[Entry]:
    """All files below `folder` but those that are never part of a version. Raises UnsafeTree for what is no file."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted([*names, *(name for name in folders if os.path.islink(os.path.join(parent, name)))]):
            place = Path(parent, name)
            path = place.relative_to(folder).as_posix()
            if name in SKIPPED or name.endswith(".pyc"):
                continue
            status = place.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise UnsafeTree(f"{shown(path)}: a symbolic link; put a copy in its place")
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeTree(f"{shown(path)}: neither a file nor a folder; leave it out")
            yield Entry(path, place, bool(status.st_mode & 0o100))
