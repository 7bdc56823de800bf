"""The files of the logbook: two a version, the newer one appended to until it is full, and no more in all than a bound.

    HOME/logs/versions/ab/ab34….jsonl       newest lines
    HOME/logs/versions/ab/ab34….jsonl.old   those before

Names are hashes, so that no owner's or algorithm's name reaches the file system.
"""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

#: Read from the end of a file to find its last line: first so much, then, if that holds no whole one, as much as the
#: longest line there can be.
_LAST_LINE_BYTES = (4096, 512 * 1024)
#: Least that a file takes on a disk.
_BLOCK_BYTES = 4096
#: A sweep removes more than it must, so that the next one is not due at once.
_SWEEP_TO = 0.9

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class LogFile:
    """The files of one version. Opened for each use: an idle version holds no descriptor."""

    __slots__ = ("_path",)

    def __init__(self, folder: Path, key: str) -> None:
        name = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        self._path = f"{folder}/{name[:2]}/{name}.jsonl"

    @property
    def _old(self) -> str:
        return f"{self._path}.old"

    def last_line(self) -> bytes:
        """The newest whole line, b"" if there is none. What a write that was cut short left after it is removed."""
        try:
            fd = os.open(self._path, os.O_RDWR | _FLAGS)
        except OSError:
            return _last_line(_read_end(self._old, _LAST_LINE_BYTES[-1]))
        try:
            return _mend(fd) or _last_line(_read_end(self._old, _LAST_LINE_BYTES[-1]))
        except OSError:
            return b""
        finally:
            os.close(fd)

    def append(self, lines: bytes, max_bytes: int) -> int:
        """Write whole lines, into a new file where this one would grow above `max_bytes`. All of it, or nothing.

        Returns:
            How much more the disk holds, with blocks of new files.

        Raises:
            OSError: the disk is full, or not writable.
        """
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if size and size + len(lines) > max_bytes:
                os.replace(self._path, self._old)
                os.close(fd)
                fd = self._open()
                size = 0
            if os.write(fd, lines) < len(lines):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        finally:
            os.close(fd)
        return len(lines) if size else len(lines) + _BLOCK_BYTES

    def read_end(self, num_lines: int, max_bytes: int) -> bytes:
        """The newest lines, at most so many and at most so many bytes."""
        newer = _whole_lines(_read_end(self._path, max_bytes + 1), max_bytes)
        if newer.count(b"\n") < num_lines and len(newer) < max_bytes:
            room = max_bytes - len(newer)
            older = _whole_lines(_read_end(self._old, room + 1), room)
            newer = older + newer
        return last_lines(newer, num_lines)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            part = os.path.dirname(self._path)
            for folder in (os.path.dirname(part), part):  # each by itself: the mode counts for the last one only
                os.makedirs(folder, mode=0o700, exist_ok=True)
            return os.open(self._path, flags, 0o600)


def sweep(folder: Path, max_bytes: int) -> int:
    """Remove the files that were not written to for longest, until all together are below `max_bytes`.

    Returns:
        How many bytes there are afterwards. May run in any thread.
    """
    files: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError):
        for part in os.scandir(folder):
            if part.is_dir(follow_symlinks=False):
                files += _files(part.path)
    total = sum(size for _, size, _ in files)
    if total <= max_bytes:
        return total
    for _, size, path in sorted(files):
        if total <= max_bytes * _SWEEP_TO:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
    return total


def last_lines(lines: bytes, number: int) -> bytes:
    """The last so many of whole lines."""
    at = len(lines) - 1
    for _ in range(number):
        at = lines.rfind(b"\n", 0, at)
        if at < 0:
            return lines
    return lines[at + 1 :]


def _files(folder: str) -> list[tuple[float, int, str]]:
    found: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError):
        for file in os.scandir(folder):
            with contextlib.suppress(OSError):  # gone meanwhile
                about = file.stat(follow_symlinks=False)
                found.append((about.st_mtime, max(about.st_size, _BLOCK_BYTES), file.path))
    return found


def _mend(fd: int) -> bytes:
    """The last line of a file, and nothing after it."""
    size = os.fstat(fd).st_size
    end = line = b""
    for num_bytes in _LAST_LINE_BYTES:
        end = os.pread(fd, num_bytes, max(0, size - num_bytes))
        whole = end[: end.rfind(b"\n") + 1]
        line = _last_line(whole)
        if line and (len(line) < len(whole) or len(end) == size):
            break
    torn = len(end) - (end.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(fd, size - torn)
    return line


def _read_end(path: str, max_bytes: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return b""
    try:
        return os.pread(fd, max_bytes, max(0, os.fstat(fd).st_size - max_bytes))
    except OSError:
        return b""
    finally:
        os.close(fd)


def _whole_lines(end: bytes, max_bytes: int) -> bytes:
    """Of up to one byte more than wanted: without the line that would have begun before."""
    if len(end) <= max_bytes:
        return end
    return end[end.find(b"\n") + 1 :] if b"\n" in end else b""


def _last_line(lines: bytes) -> bytes:
    return lines[lines.rfind(b"\n", 0, -1) + 1 :]
