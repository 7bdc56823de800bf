"""Take the files of a commit out of a repository: what a version may hold, written by us, byte for byte.

No checkout: git only lists the tree and hands out blobs, and what is no plain file is refused here. So there are no
filters, no line-end conversion, no links and no submodules, whatever the repository says.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import SKIPPED, TreeCount, TreeLimits, check_name, shown
from serai_gateway.build.tree import Tree
from serai_gateway.git.command import run_git, talk_to_git
from serai_gateway.git.errors import GitError
from serai_gateway.git.repository import Repository

_CHUNK_BYTES = 1 << 20
_REFUSED = {"120000": "a symbolic link; put a copy in its place", "160000": "a submodule; submodules are not supported"}


class _File(NamedTuple):
    path: str
    parts: tuple[str, ...]
    mode: int
    object: str
    num_bytes: int


def export_commit(
    repository: Repository, commit: str, target: Path, *, quarantine: str = "", limits: TreeLimits | None = None
) -> Tree:
    """Write the files of `commit` into the new folder `target`: 0444, or 0555 if executable.

    Args:
        quarantine: where git keeps the commit while it is not accepted yet.

    Raises UnsafeTree with the path and the limit, GitError. `target` is then incomplete.
    """
    count = TreeCount(limits or TreeLimits())
    listing = run_git(
        repository.home, repository.path, "ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", commit,
        quarantine=quarantine,
    )  # fmt: skip
    files = list(_files(listing, count))
    target.mkdir(mode=0o755)
    lines: list[tuple[str, str]] = []
    with talk_to_git(
        repository.home, repository.path, "cat-file", "--batch", quarantine=quarantine
    ) as (into, out):  # fmt: skip
        for batch in _batches(files):
            into.write(b"".join(f"{file.object}\n".encode() for file in batch))
            into.flush()
            lines += [(file.path, _write(file, target, out)) for file in batch]
    digest = hashlib.sha256()
    for path, line in sorted(lines):
        digest.update(f"{line} {path}\n".encode())
    return Tree(digest.hexdigest(), len(lines), count.num_bytes)


def _files(listing: bytes, count: TreeCount) -> Iterator[_File]:
    seen: dict[tuple[str, ...], bool] = {}
    for entry in listing.split(b"\0"):
        if not entry:
            continue
        about, _, name = entry.partition(b"\t")
        mode, _, object, size = about.decode("ascii").split()
        path = name.decode("utf-8", "surrogateescape")
        if mode in _REFUSED:
            raise UnsafeTree(f"{shown(path)}: {_REFUSED[mode]}")
        parts = tuple(check_name(part, path) for part in path.split("/"))
        if SKIPPED.intersection(parts) or path.endswith(".pyc"):
            continue
        composed = "/".join(parts)
        if parts in seen:
            raise UnsafeTree(f"{shown(path)}: two names that differ only in how Unicode writes them")
        for length in range(1, len(parts)):
            if parts[:length] not in seen:
                count.add_entry("/".join(parts[:length]), length)
            if not seen.setdefault(parts[:length], True):
                raise UnsafeTree(f"{shown(path)}: lies below a file")
        seen[parts] = False
        count.add_entry(composed, len(parts))
        if not size.isdigit():  # git writes BAD
            raise GitError(f"{shown(path)}: the repository does not hold it as its commit says")
        num_bytes = int(size)
        count.add_bytes(composed, num_bytes, num_bytes)
        yield _File(composed, parts, 0o555 if mode == "100755" else 0o444, object, num_bytes)


def _batches(files: list[_File]) -> Iterator[list[_File]]:
    """One at a time would be a round trip for each file; all at once could fill both pipes."""
    for start in range(0, len(files), 500):
        yield files[start : start + 500]


def _write(file: _File, target: Path, out: IO[bytes]) -> str:
    header = out.readline().split()
    if header != [file.object.encode(), b"blob", b"%d" % file.num_bytes]:
        raise GitError(f"{shown(file.path)}: the repository does not hold it as its commit says")
    place = target.joinpath(*file.parts)
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.num_bytes
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(place, flags, 0o600), "wb", buffering=0) as made:
        while left:
            chunk = out.read(min(_CHUNK_BYTES, left))
            if not chunk:
                raise GitError(f"{shown(file.path)}: the repository ends in the middle of it")
            left -= len(chunk)
            digest.update(chunk)
            made.write(chunk)
        os.fchmod(made.fileno(), file.mode)
    out.read(1)  # the line feed behind each object
    return f"{file.mode:o} {file.num_bytes} {digest.hexdigest()}"
