"""What a folder holds after somebody else's commands wrote in it: looked at as if an author had sent it.

Nothing runs in it any more, so what is seen here stays true.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from serai_gateway.build.errors import BuildError, UnsafeTree
from serai_gateway.build.paths import TreeCount, TreeLimits, check_name, shown
from serai_gateway.build.tree import Tree

#: The most that a build may leave: a repository's own limits leave room for what a compiler or npm adds.
LIMITS = TreeLimits(num_files=200_000, depth=100, total_bytes=1 << 30, file_bytes=1 << 30)
#: Longest path of a folder. With one more name it is below the kernel's 4,096, so nothing in it is passed over.
_MAX_PLACE_BYTES = 3800
#: A build is stopped before the disk is full: others write to it, too.
DISK_RESERVE_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20


def take_built(folder: Path, inside: str, *, known_links: Mapping[str, str] | None = None) -> Tree:
    """Check all of `folder` and set its modes: files 0444 (0555 if executable), whatever else they were.

    Args:
        inside: what `folder` was called where the commands ran: absolute links to there are made relative.
        known_links: links of ours that may lead out of the folder: path to target.

    Raises UnsafeTree for what is neither file, folder nor link, for links that lead out, and past LIMITS.
    """
    taker = _Taker(folder, inside, known_links or {})
    taker.take_folder(folder, "")
    taker.check_links()
    digest = hashlib.sha256()
    for path, line in sorted(taker.lines):
        digest.update(f"{line} {path}\n".encode())
    return Tree(digest.hexdigest(), len(taker.lines), taker.count.num_bytes)


class _Taker:
    def __init__(self, root: Path, inside: str, known_links: Mapping[str, str]) -> None:
        self.root = os.path.realpath(root)
        self.inside = inside
        self.known_links = known_links
        self.count = TreeCount(LIMITS)
        self.lines: list[tuple[str, str]] = []  # path; mode and content
        self.links: list[tuple[Path, str]] = []  # where they are; path

    def take_folder(self, folder: Path, prefix: str) -> None:
        os.chmod(folder, 0o755)  # noqa: S103 - an author may have left it unreadable to ourselves
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = prefix + name
            check_name(name, path)
            self.count.add_entry(path, path.count("/") + 1)
            self._take_entry(folder / name, path)

    def _take_entry(self, place: Path, path: str) -> None:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            self.lines.append((path, f"link {self._take_link(place, path)}"))
        elif stat.S_ISDIR(mode):
            self.take_folder(place, path + "/")
        elif stat.S_ISREG(mode):
            self._take_file(place, path, 0o555 if mode & 0o100 else 0o444)
        else:
            raise UnsafeTree(f"{shown(path)}: the build left something that is neither a file nor a folder")

    def _take_link(self, place: Path, path: str) -> str:
        target = os.readlink(place)
        if self.known_links.get(path) == target:
            return target
        if os.path.isabs(target):
            below = os.path.relpath(target, self.inside)
            if below.split("/")[0] == "..":
                raise UnsafeTree(f"{shown(path)}: the build left a link to {shown(target)}, which is not part of it")
            target = os.path.relpath(os.path.join(self.root, below), os.path.realpath(place.parent))
            place.unlink()
            place.symlink_to(target)
        self.links.append((place, path))
        return target

    def check_links(self) -> None:
        """By what the links in them really lead to, as they all are now: `a/..` is not the folder that `a` lies in if
        `a` is a link."""
        for place, path in self.links:
            if os.path.commonpath([self.root, os.path.realpath(place)]) != self.root:
                raise UnsafeTree(f"{shown(path)}: the build left a link that leads out of the folder")

    def _take_file(self, place: Path, path: str, mode: int) -> None:
        os.chmod(place, mode)  # and with that without setuid, which would count outside
        digest, num_bytes = hashlib.sha256(), 0
        with place.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                self.count.add_bytes(path, num_bytes, len(chunk))
                digest.update(chunk)
        self.lines.append((path, f"{mode:o} {num_bytes} {digest.hexdigest()}"))


def check_disk(folder: Path, what: str) -> None:
    """Raises BuildError when the disk is nearly full: `what` says what is not begun, or not gone on with."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < DISK_RESERVE_BYTES:
        raise BuildError(
            f"{what}: the disk of this server is nearly full (the last {DISK_RESERVE_BYTES >> 20} MiB are kept free); "
            "its operator has to make room"
        )


def size_check(folder: Path, what: str) -> Callable[[], None]:
    """A look at how much commands have written below `folder` so far; BuildError past LIMITS.

    Files that are open and have no name any more cannot be counted: so nothing may fill the disk either.
    """

    def check() -> None:
        num_bytes = num_files = 0
        waiting = [(os.fspath(folder), 0)]
        while waiting:
            place, depth = waiting.pop()
            if depth > LIMITS.depth or len(os.fsencode(place)) > _MAX_PLACE_BYTES:
                raise BuildError(f"{what} nests folders deeper than a build may leave them, and was stopped")
            with contextlib.suppress(OSError), os.scandir(place) as entries:  # it may be gone already
                for entry in entries:
                    num_files += 1
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((entry.path, depth + 1))
                        else:
                            num_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
        if num_bytes > LIMITS.total_bytes or num_files > LIMITS.num_files:
            most = f"{LIMITS.total_bytes >> 20} MiB and {LIMITS.num_files:,} files"
            raise BuildError(f"{what} writes more than a build may leave, {most}, and was stopped")
        check_disk(folder, f"{what} was stopped")

    return check
