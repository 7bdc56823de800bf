"""The mappings of a file in this process: which of its pages are in memory, bring them in, let them go.

Weights that are read through a mapping of a file need no copy in memory: letting go of them is one call to the kernel,
and as long as the page cache has them, so is bringing them back.
"""

import contextlib
import ctypes
import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_MADV_DONTNEED = 4
_MADV_HUGEPAGE = 14
_MADV_POPULATE_READ = 22
#: Entries of pagemap read at once: 8 MiB of them describe 4 GiB of memory.
_CHUNK_ENTRIES = 1 << 20
_ENTRY_BYTES = 8
_PRESENT_BIT = 63

_libc = ctypes.CDLL(None, use_errno=True)  # lets go of the interpreter while the kernel works
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

#: A mapping: first address, end, and where in the file it begins.
Span = tuple[int, int, int]
#: First byte and end.
Range = tuple[int, int]


def spans_of(file: str | int) -> list[Span]:
    """Where a file (its path, or a descriptor of it) is mapped in this process, by address."""
    status = os.stat(file)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}".encode()
    path = os.fsencode(os.path.realpath(file if isinstance(file, str) else f"/proc/self/fd/{file}"))
    with open("/proc/self/maps", "rb", buffering=0) as maps:
        lines = maps.read()
    spans: list[Span] = []
    sign = f" {status.st_ino} ".encode()  # a process with many models has thousands of lines: look at few of them
    at = lines.find(sign)
    while at >= 0:
        line = lines[lines.rfind(b"\n", 0, at) + 1 : lines.find(b"\n", at)]
        fields = line.split(None, 5)
        # Some file systems report another device in here than to stat(); there the path has to do.
        if fields[4] == sign.strip() and (fields[3] == device or fields[-1] == path):
            start, end = fields[0].split(b"-")
            spans.append((int(start, 16), int(end, 16), int(fields[2], 16)))
        at = lines.find(sign, at + 1)
    return spans


def forget_pages(file: Path) -> None:
    """Take a file out of the page cache, but for those of its pages that somebody has mapped and in memory."""
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


class FilePages:
    """Some mappings of one file, as they are when this is made.

    They must stay mapped for as long as this is used: whoever unmaps them calls nothing here afterwards. (Looking them
    up again each time would cost more than the work itself.)

    Args:
        file: its path, or a descriptor of it.
        besides: mappings of the same file that belong to somebody else.
        wanted: ranges of the file, in bytes, that `populate` brings in; None: all that is mapped.
    """

    def __init__(
        self, file: str | int, besides: "Iterable[FilePages]" = (), wanted: Sequence[Range] | None = None
    ) -> None:
        taken = _merged([span for other in besides for span in other._mapped])
        spans = _without(spans_of(file), taken)
        self._mapped = _merged([(start, end) for start, end, _ in spans])
        self._wanted = self._mapped if wanted is None else _merged(_addresses(spans, wanted))
        for start, end in self._mapped:  # what comes from disk comes as huge pages: paging then costs next to nothing
            _advise(start, end, _MADV_HUGEPAGE)

    @property
    def mapped_bytes(self) -> int:
        return sum(end - start for start, end in self._mapped)

    @property
    def wanted_bytes(self) -> int:
        """What `populate` brings in, in whole pages."""
        return sum(end - start for start, end in self._wanted)

    def populate(self) -> None:
        """All wanted pages in memory, ready to be read. Raises OSError when the kernel cannot do it."""
        for start, end in self._wanted:
            if not _advise(start, end, _MADV_POPULATE_READ):
                _touch(start, end)

    def drop(self) -> None:
        """No page in the memory of this process. Raises OSError when the kernel refuses (locked pages)."""
        for start, end in self._mapped:
            if not _advise(start, end, _MADV_DONTNEED):
                raise OSError(errno.EINVAL, "pages cannot be given back: they are locked")

    def resident_bytes(self) -> int:
        """What of the mappings is in the memory of this process, counted page by page."""
        pages = 0
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            for start, end in self._mapped:
                for at in range(start // PAGE_BYTES, end // PAGE_BYTES, _CHUNK_ENTRIES):
                    entries = min(_CHUNK_ENTRIES, end // PAGE_BYTES - at)
                    raw = os.pread(pagemap.fileno(), entries * _ENTRY_BYTES, at * _ENTRY_BYTES)
                    flags = np.frombuffer(raw, np.uint64, len(raw) // _ENTRY_BYTES)
                    pages += int(np.count_nonzero(flags >> _PRESENT_BIT))
        return pages * PAGE_BYTES


def private_bytes() -> int:
    """Memory that is this process's own, exactly: without pages of files. Takes milliseconds in a large process."""
    with open("/proc/self/smaps_rollup", "rb") as lines:
        for line in lines:
            if line.startswith(b"Anonymous:"):
                return int(line.split()[1]) << 10
    raise OSError(errno.ENODATA, "the kernel does not say how much memory is private")


def _advise(start: int, end: int, advice: int) -> bool:
    """False: this kernel does not know the advice, or it does not apply here."""
    while _libc.madvise(start, end - start, advice):
        code = ctypes.get_errno()
        if code == errno.EINVAL:
            return False
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, f"madvise: {os.strerror(code)}")
    return True


def _touch(start: int, end: int) -> None:
    """What MADV_POPULATE_READ does, on kernels before 5.14."""
    memory = (ctypes.c_uint8 * (end - start)).from_address(start)
    np.ctypeslib.as_array(memory)[::PAGE_BYTES].max()


def _without(spans: list[Span], taken: list[Range]) -> list[Span]:
    """What of `spans` is not taken; the kernel may have joined neighbours into one mapping."""
    left: list[Span] = []
    for start, end, offset in spans:
        at = start
        for low, high in taken:
            if high <= at or low >= end:
                continue
            if low > at:
                left.append((at, low, offset + at - start))
            at = max(at, high)
        if at < end:
            left.append((at, end, offset + at - start))
    return left


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, and those that touch made into one."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _addresses(spans: list[Span], wanted: Sequence[Range]) -> list[Range]:
    """Where ranges of the file lie in memory, rounded to whole pages."""
    pages = _merged([(low - low % PAGE_BYTES, high + -high % PAGE_BYTES) for low, high in wanted if low < high])
    lows = [low for low, _ in pages]
    found: list[Range] = []
    for start, end, offset in spans:
        last = offset + end - start
        at = max(0, bisect_right(lows, offset) - 1)
        while at < len(pages) and pages[at][0] < last:
            low, high = max(pages[at][0], offset), min(pages[at][1], last)
            if low < high:
                found.append((start + low - offset, start + high - offset))
            at += 1
    return found
