"""Unpack a .tar.gz from an author. Our own reader, because what it must not do is most of the job.

It knows regular files and folders, long names by pax or GNU headers, and nothing else: no links, no devices, no
sparse files. It reads one gzip stream front to back, never seeks, and counts before it writes.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import TreeCount, TreeLimits, check_path, shown

#: Most of a gzip stream that may be nothing: beyond the first 10 MiB unpacked, at most 100 bytes for one packed.
MAX_RATIO = 100
RATIO_FREE_BYTES = 10 * 1024**2
#: A long name or its attributes: far above the longest path.
_MAX_HEADER_BYTES = 64 * 1024
_BLOCK = 512
_CHUNK_BYTES = 256 * 1024

_KINDS = {"1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "6": "a pipe", "S": "sparse"}


class _Entry(NamedTuple):
    path: str
    size: int
    is_folder: bool
    is_executable: bool


def extract(source: BinaryIO, target: Path, limits: TreeLimits | None = None) -> None:
    """Unpack the .tar.gz that `source` holds to its end into the new folder `target`.

    Raises UnsafeTree with the path and the limit. `target` is then incomplete.
    """
    count = TreeCount(limits or TreeLimits())
    stream = _Gunzip(source)
    target.mkdir(mode=0o755)
    seen: dict[tuple[str, ...], bool] = {}
    for entry in _entries(stream, count):
        parts = check_path(entry.path)
        if not parts:
            if entry.is_folder:
                continue
            raise UnsafeTree("a file without a name")
        _claim(parts, entry, seen, count)
        place = target.joinpath(*parts)
        if entry.is_folder:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write_file(stream, entry, place, count)
    stream.expect_end()


def _claim(parts: tuple[str, ...], entry: _Entry, seen: dict[tuple[str, ...], bool], count: TreeCount) -> None:
    """Each file once; a folder may be named again; nothing is both. `seen`: path to whether it is a folder."""
    path = "/".join(parts)
    for length in range(1, len(parts)):
        above = parts[:length]
        if not seen.setdefault(above, True):
            raise UnsafeTree(f"{shown(path)}: lies below a file")
    before = seen.get(parts)
    if before is not None and not (before and entry.is_folder):
        raise UnsafeTree(f"{shown(path)}: appears twice")
    seen[parts] = entry.is_folder
    count.add_entry(path, len(parts))
    if len(seen) > count.limits.num_files:  # folders that are only implied count too
        raise UnsafeTree(f"more than {count.limits.num_files:,} files and folders; leave out what does not run")


def _write_file(stream: "_Gunzip", entry: _Entry, place: Path, count: TreeCount) -> None:
    if entry.size > count.limits.file_bytes:
        count.add_bytes(entry.path, entry.size, 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    done = 0
    with os.fdopen(os.open(place, flags, 0o755 if entry.is_executable else 0o644), "wb") as file:
        while done < entry.size:
            chunk = stream.read(min(_CHUNK_BYTES, entry.size - done))
            done += len(chunk)
            count.add_bytes(entry.path, done, len(chunk))
            file.write(chunk)
    stream.skip_padding(entry.size)


def _entries(stream: "_Gunzip", count: TreeCount) -> Iterator[_Entry]:
    """The consumer reads each entry's content from `stream` before it asks for the next one."""
    long_path: str | None = None
    num_headers = 0
    while True:
        block = stream.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        num_headers += 1
        if num_headers > 2 * count.limits.num_files + 16:
            raise UnsafeTree(f"more than {count.limits.num_files:,} files and folders; leave out what does not run")
        _check_sum(block)
        size, kind = _octal(block[124:136]), chr(block[156])
        if kind in "xgL":
            if size > _MAX_HEADER_BYTES:
                raise UnsafeTree(f"not a plain tar archive: a header of {size} bytes")
            data = stream.read(size)
            stream.skip_padding(size)
            if kind == "x":
                long_path = _pax_path(data) or long_path
            elif kind == "L":
                long_path = _text(data.split(b"\0")[0])
            continue
        path = _ustar_path(block) if long_path is None else long_path
        long_path = None
        if kind not in "0\x005":
            raise UnsafeTree(f"{shown(path)}: {_KINDS.get(kind, 'an unknown kind of entry')}; only files and folders")
        is_folder = kind == "5" or (kind == "\0" and path.endswith("/"))
        if is_folder and size:
            raise UnsafeTree(f"{shown(path)}: a folder with content")
        if not is_folder and path.endswith("/"):
            raise UnsafeTree(f"{shown(path)}: a file with a folder's name")
        yield _Entry(path, size, is_folder, bool(_octal(block[100:108]) & 0o100))


def _check_sum(block: bytes) -> None:
    if _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise UnsafeTree("not a tar archive, or a damaged one: a header's checksum is wrong")


def _octal(field: bytes) -> int:
    # Base 256, the other way to write numbers, is for sizes that we refuse anyway.
    text = field.strip(b" \0")
    if not all(0x30 <= digit < 0x38 for digit in text):
        raise UnsafeTree("not a plain tar archive: a number in a header is not octal")
    return int(text or b"0", 8)


def _ustar_path(block: bytes) -> str:
    name = _text(block[:100].split(b"\0")[0])
    # GNU's older format keeps times where ustar keeps the first part of a path.
    prefix = _text(block[345:500].split(b"\0")[0]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_path(data: bytes) -> str | None:
    """The `path` of a pax header: records of `LENGTH KEY=VALUE\\n`."""
    path = None
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6 or not len(length) + 2 < int(length) <= len(data):
            raise UnsafeTree("not a plain tar archive: a damaged pax header")
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            path = _text(value)
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            # The reader after us might believe this size, and we the other one.
            raise UnsafeTree("not a plain tar archive: a pax header that changes a file's size")
    return path


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnsafeTree(f"{raw[:100]!r}: a name that is not UTF-8; rename it") from None


class _Gunzip:
    """One gzip stream, read forward, with an end to how much it may grow."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(wbits=31)
        self._ready = b""
        self._num_in = 0
        self._num_out = 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        parts, missing = [], size
        while missing:
            if not self._ready and not self._fill():
                raise UnsafeTree("the archive ends too early; send it again")
            part, self._ready = self._ready[:missing], self._ready[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def skip_padding(self, size: int) -> None:
        self.read(-size % _BLOCK)

    def expect_end(self) -> None:
        """After the last entry: zeros that fill tar's last record, then nothing."""
        num_zeros = 0
        while self._ready or self._fill():
            num_zeros += len(self._ready)
            if self._ready.strip(b"\0") or num_zeros > 1 << 20:
                raise UnsafeTree("something follows the end of the archive")
            self._ready = b""
        if self._inflate.unused_data.strip(b"\0") or self._source.read(1).strip(b"\0"):
            raise UnsafeTree("something follows the end of the archive")

    def _fill(self) -> bool:
        """Unpack some more; False at the end of the gzip stream."""
        while not self._ready and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._source.read(_CHUNK_BYTES)
                self._num_in += len(packed)
                if not packed:
                    raise UnsafeTree("the archive ends too early; send it again")
            try:
                self._ready = self._inflate.decompress(packed, _CHUNK_BYTES)
            except zlib.error:
                raise UnsafeTree("not a gzip file, or a damaged one; send a .tar.gz") from None
            self._num_out += len(self._ready)
            if self._num_out > max(RATIO_FREE_BYTES, MAX_RATIO * self._num_in):
                raise UnsafeTree(f"the archive unpacks to more than {MAX_RATIO} times its size")
        return bool(self._ready)
