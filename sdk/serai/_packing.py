"""A folder as one tar.gz: what `publish` uploads. The same folder always gives the same bytes."""

import gzip
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serai.errors import FolderError

#: Never part of an algorithm: history, caches of the interpreter, packages, which the build installs anew.
SKIPPED_NAMES = frozenset({".git", "__pycache__", ".venv", "node_modules"})

#: One of them says what the folder is.
MANIFESTS = ("algorithm.toml", "algorithmia.conf")

#: Models hardly shrink, and the fastest level packs them several times faster than the default one.
_COMPRESSION_LEVEL = 1

#: Pieces in which a packed folder is read and sent.
BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Packed:
    """What went into an archive. `skipped` are links, sockets and the like, which an algorithm cannot have."""

    num_files: int
    num_bytes: int  # before compression
    skipped: tuple[str, ...]


def pack(directory: str | os.PathLike[str], out: BinaryIO) -> Packed:
    """Write the folder's regular files to `out`.

    Raises:
        FolderError: there is no such folder, it holds no manifest, or a file changed or cannot be read.
    """
    root = Path(directory)
    if not root.is_dir():
        raise FolderError(f"{root} is not a folder")
    if not any((root / name).is_file() for name in MANIFESTS):
        raise FolderError(f"{root} has no algorithm.toml or algorithmia.conf; `serai new NAME` makes a folder with one")
    files, skipped = find_files(root)
    num_bytes = 0
    with (
        gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,  # pyright: ignore[reportArgumentType]
    ):
        for name in files:
            num_bytes += _add(archive, root, name)
    return Packed(len(files), num_bytes, tuple(skipped))


def find_files(root: Path) -> tuple[list[str], list[str]]:
    """Relative names of the regular files, sorted, and of what is neither file nor folder."""
    files: list[str] = []
    skipped: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            raise FolderError(f"cannot read {root / folder}: {error.strerror}") from error
        for entry in entries:
            if entry.name in SKIPPED_NAMES:
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif entry.is_file(follow_symlinks=False):
                files.append(_checked(name))
            else:
                skipped.append(name)
    return sorted(files), sorted(skipped)


def _checked(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise FolderError(f"the file name {name!r} is not UTF-8: rename it") from None
    return name


def _add(archive: tarfile.TarFile, root: Path, name: str) -> int:
    try:
        # The file may have become a link or a pipe since it was found: follow neither, wait for neither.
        descriptor = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FolderError(f"{root / name} is no longer a regular file: publish again")
            member = tarfile.TarInfo(name)
            member.size = status.st_size
            member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            archive.addfile(member, file)
            return status.st_size
    except OSError as error:
        raise FolderError(f"cannot read {root / name}: {error.strerror or error}") from error
