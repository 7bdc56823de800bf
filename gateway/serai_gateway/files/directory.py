"""A file store in a directory: HOME/files/sha256/ab/cdef…, each file read-only under its final name or not there."""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from serai_gateway.files.base import NoSuchFile, Stored, TooLarge, WrongContent

#: Largest file we keep, in bytes: the largest of the data API.
MAX_FILE_BYTES = 5 * 1024**3
#: Unfinished files older than this belong to nobody: no upload takes a day.
ABANDONED_AFTER_S = 24 * 3600.0

_CHUNK_BYTES = 1 << 20
_PART = ".part-"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class DirectoryStore:
    """Files under `root`. Any number of processes may use one directory."""

    def __init__(self, root: Path) -> None:
        self._folder = root.absolute() / "sha256"
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)

    def put(self, source: Path | BinaryIO, *, sha256: str | None = None, max_bytes: int | None = None) -> Stored:
        if sha256 is not None:
            _check_digest(sha256)
        if isinstance(source, Path):
            with source.open("rb") as file:
                return self._put(file, sha256, max_bytes)
        return self._put(source, sha256, max_bytes)

    def _put(self, source: BinaryIO, sha256: str | None, max_bytes: int | None) -> Stored:
        limit = MAX_FILE_BYTES if max_bytes is None else min(max_bytes, MAX_FILE_BYTES)
        part = self._folder / f"{_PART}{secrets.token_hex(16)}"
        try:
            with open(part, "xb") as file:
                stored = _copy(source, file, limit)
                if sha256 not in (None, stored.sha256):
                    raise WrongContent(f"expected content with sha256 {sha256}, got {stored.sha256}")
                if self._size(stored.sha256) == stored.num_bytes:
                    return stored
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            self._move(part, self._place(stored.sha256))
            return stored
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

    def _move(self, part: Path, place: Path) -> None:
        """The only step that makes a file visible; its bytes are on disk already."""
        place.parent.mkdir(mode=0o755, exist_ok=True)
        _sync_folder(self._folder)
        os.rename(part, place)
        _sync_folder(place.parent)

    def open(self, sha256: str) -> BinaryIO:
        try:
            return self._place(sha256).open("rb")
        except FileNotFoundError:
            raise NoSuchFile(f"no file with sha256 {sha256}") from None

    def path(self, sha256: str) -> Path:
        if self._size(sha256) is None:
            raise NoSuchFile(f"no file with sha256 {sha256}")
        return self._place(sha256)

    def exists(self, sha256: str) -> bool:
        return self._size(sha256) is not None

    def names(self) -> Iterator[str]:
        """The SHA-256 of every file that is stored."""
        for folder in os.scandir(self._folder):
            if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                for name in os.listdir(folder.path):
                    if _SHA256.match(folder.name + name):
                        yield folder.name + name

    def remove(self, sha256: str) -> None:
        """Forget a file that nobody refers to. Who has it open, or has mapped it, still has it."""
        self._place(sha256).unlink(missing_ok=True)

    def sweep(self, now: float) -> int:
        """Remove what killed writers left behind; how many files that were. `now`: seconds since 1970."""
        swept = 0
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):
                if entry.name.startswith(_PART) and entry.stat().st_mtime < now - ABANDONED_AFTER_S:
                    os.unlink(entry.path)
                    swept += 1
        return swept

    def _place(self, sha256: str) -> Path:
        _check_digest(sha256)
        return self._folder / sha256[:2] / sha256[2:]

    def _size(self, sha256: str) -> int | None:
        try:
            return self._place(sha256).stat().st_size
        except FileNotFoundError:
            return None


def _copy(source: BinaryIO, target: BinaryIO, limit: int) -> Stored:
    digest, num_bytes = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        num_bytes += len(chunk)
        if num_bytes > limit:
            raise TooLarge(f"the file is larger than {limit:,} bytes, the most that is allowed here")
        digest.update(chunk)
        target.write(chunk)
    return Stored(digest.hexdigest(), num_bytes)


def _check_digest(sha256: str) -> None:
    if not _SHA256.match(sha256):
        raise NoSuchFile(f"{sha256[:70]!r} is not a sha256: 64 lower-case hexadecimal digits")


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
