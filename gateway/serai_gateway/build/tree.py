"""Take in an author's folder: what is safe of it, copied, hashed, read-only.

Only regular files and folders. Nothing is ever followed: each file is opened relative to its folder's descriptor,
without links, and what was hashed is what was written.
"""

import ctypes
import hashlib
import itertools
import os
import stat
import uuid
from pathlib import Path
from typing import NamedTuple

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import SKIPPED, TreeCount, TreeLimits, check_name, shown

_CHUNK_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tree(NamedTuple):
    sha256: str  # of sorted modes, paths and contents: the same tree has the same hash
    num_files: int
    num_bytes: int


def copy_tree(source: Path, target: Path, limits: TreeLimits | None = None, *, is_ours: bool = False) -> Tree:
    """Copy `source` into the new folder `target`: files 0444 (0555 if executable).

    `is_ours` allows hard links: installers make them for what belongs to our own distribution. An author's could
    share a file with something that must not change, or must not be read.

    Raises UnsafeTree with the path and the limit. `target` is then incomplete.
    """
    copier = _Copier(TreeCount(limits or TreeLimits()), is_ours)
    descriptor = os.open(source, _OPEN | os.O_DIRECTORY)
    try:
        copier.copy_folder(descriptor, target, "")
    finally:
        os.close(descriptor)
    digest = hashlib.sha256()
    for path, line in sorted(copier.lines):
        digest.update(f"{line} {path}\n".encode())
    return Tree(digest.hexdigest(), len(copier.lines), copier.count.num_bytes)


class _Copier:
    def __init__(self, count: TreeCount, is_ours: bool) -> None:
        self.count = count
        self.is_ours = is_ours
        self.lines: list[tuple[str, str]] = []  # path; mode and content

    def copy_folder(self, descriptor: int, target: Path, prefix: str) -> None:
        target.mkdir(mode=0o755)
        taken: set[str] = set()
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if name in SKIPPED or name.endswith(".pyc"):
                continue
            path = prefix + name
            composed = check_name(name, path)
            if composed in taken:
                raise UnsafeTree(f"{shown(path)}: two names that differ only in how Unicode writes them")
            taken.add(composed)
            self.count.add_entry(path, path.count("/") + 1)
            self._copy_entry(descriptor, name, target / composed, prefix + composed)

    def _copy_entry(self, folder: int, name: str, target: Path, path: str) -> None:
        # Look before opening: to open a device can already do something.
        _check_kind(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
        try:
            descriptor = os.open(name, _OPEN, dir_fd=folder)
        except OSError as error:
            raise UnsafeTree(f"{shown(path)}: cannot be read ({error.strerror})") from None
        try:
            status = os.fstat(descriptor)
            _check_kind(status, path)
            if stat.S_ISDIR(status.st_mode):
                self.copy_folder(descriptor, target, path + "/")
            elif status.st_nlink > 1 and not self.is_ours:
                raise UnsafeTree(f"{shown(path)}: a hard link; put a copy in its place")
            else:
                self._copy_file(descriptor, status, target, path)
        finally:
            os.close(descriptor)

    def _copy_file(self, descriptor: int, status: os.stat_result, target: Path, path: str) -> None:
        # Refuse by the size that it says before reading; count what really comes.
        if status.st_size > self.count.limits.file_bytes:
            self.count.add_bytes(path, status.st_size, 0)
        mode = 0o555 if status.st_mode & 0o100 else 0o444
        digest, num_bytes = hashlib.sha256(), 0
        with open(target, "xb", buffering=0) as file:
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                num_bytes += len(chunk)
                self.count.add_bytes(path, num_bytes, len(chunk))
                digest.update(chunk)
                file.write(chunk)
            os.fchmod(file.fileno(), mode)
        self.lines.append((path, f"{mode:o} {num_bytes} {digest.hexdigest()}"))


def _check_kind(status: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise UnsafeTree(f"{shown(path)}: a symbolic link; put a copy in its place")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UnsafeTree(f"{shown(path)}: neither a file nor a folder; leave it out")


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
