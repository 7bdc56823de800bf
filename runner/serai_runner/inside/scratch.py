"""The folder for temporary files: what one call leaves there, the next does not find."""

from __future__ import annotations

import os
import shutil
import stat
import sys

_TMP = "/tmp"  # noqa: S108  # inside it is private
SHARED_MEMORY = "/dev/shm"  # noqa: S108


class Scratch:
    """Remembers what lay in the folder when the code had been loaded; everything later goes after each call.

    Args:
        is_private: whether the folder is ours alone. Without a sandbox it is not, and nothing is removed.
    """

    def __init__(self, folder: str = _TMP, is_private: bool = True) -> None:
        self._folder = folder if is_private else ""
        self._kept = set(_names(self._folder))
        self._seen = self._changed_at()

    def empty(self) -> None:
        """Remove what was made since. Costs one look at the folder when nothing was."""
        if not self._folder or self._changed_at() == self._seen:
            return
        for name in _names(self._folder):
            if name not in self._kept:
                _remove(os.path.join(self._folder, name))
        self._seen = self._changed_at()

    def _changed_at(self) -> int:
        try:
            return os.stat(self._folder).st_mtime_ns if self._folder else 0
        except OSError:
            return 0


def own_scratch(number: int, folder: str = _TMP) -> str:
    """A folder of its own for a fork: its siblings have the same /tmp, in which nothing else can be made any more."""
    place = _place_of(number, folder)
    os.mkdir(place, 0o700)
    os.environ["TMPDIR"] = os.environ["HOME"] = place
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # pyright: ignore[reportAttributeAccessIssue]  # it remembers the old one
    return place


def remove_own(number: int, folder: str = _TMP) -> None:
    """When a fork has ended: what it left takes room that its siblings need."""
    _remove(_place_of(number, folder))


def close_shared(folder: str = _TMP) -> bool:
    """Before the first fork: files by fixed names in /tmp would be shared by calls that run at once. So there are
    none: such code gets a PermissionError, and `tempfile` works. Whether that could be done."""
    try:
        os.makedirs(os.path.join(folder, "replicas"), 0o700, exist_ok=True)
        os.chmod(folder, 0o555)  # noqa: S103
    except OSError:
        return False
    return True


def _place_of(number: int, folder: str) -> str:
    return os.path.join(folder, "replicas", str(number))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder) if folder else []
    except OSError:
        return []


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except OSError:
        pass  # the author's code may have changed its permissions; it is the author's own
