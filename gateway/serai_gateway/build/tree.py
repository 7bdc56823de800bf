"""Folders of ours that hold a version's files: their hash, and what is done to them as a whole."""

import ctypes
import itertools
import os
import stat
import uuid
from pathlib import Path
from typing import NamedTuple


class Tree(NamedTuple):
    sha256: str  # of sorted modes, paths and contents: the same tree has the same hash
    num_files: int
    num_bytes: int


def flush_to_disk(folder: Path) -> None:
    """Until this returns a power cut may take what was written to the folder's file system."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # One call instead of an fsync for each of possibly 50,000 files.
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(folder))
    finally:
        os.close(descriptor)


def make_read_only(folder: Path) -> None:
    """Take the write permission from every file and folder below, and from `folder`."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & 0o222:
                os.chmod(path, stat.S_IMODE(mode) & 0o555)
        os.chmod(parent, 0o555)  # noqa: S103 - less than it had


def remove_tree(folder: Path) -> None:
    """Remove a folder that may be read-only, or not there, or hold what its author made unreadable.

    Folders in it are brought up to the top before they are emptied, because they may be nested deeper than a path or
    a recursion reaches.
    """
    if not folder.is_dir():
        return
    os.chmod(folder, 0o700)
    number, waiting = itertools.count(), [os.fspath(folder)]
    top = f"{folder}/{uuid.uuid4().hex}-"
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                waiting.append(f"{top}{next(number)}")
                os.rename(entry.path, waiting[-1])
            else:
                os.unlink(entry.path)
        if place.startswith(top):
            os.rmdir(place)
    os.rmdir(folder)
