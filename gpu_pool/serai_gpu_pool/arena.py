"""Memory that the owner and the device's worker share: large inputs are read from a socket straight into it.

The owner makes it and decides who has which part; the worker only reads, and checks every place it is told.
"""

import fcntl
import mmap
import os
from bisect import bisect_left

#: Places begin and end on a page: arrays lie aligned, and the account stays short.
_PAGE_BYTES = 4096


class Extents:
    """Which parts of a range are free. First fit, so that little of it is ever touched. Pure."""

    __slots__ = ("_free", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[tuple[int, int]] = [(0, size)]  # start and end, sorted, never adjacent

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self._free)

    def take(self, num_bytes: int) -> int | None:
        """Where so many bytes are free, or None. They are rounded up to whole pages."""
        num_bytes = _pages(num_bytes)
        for at, (start, end) in enumerate(self._free):
            if end - start >= num_bytes:
                rest = (start + num_bytes, end)
                self._free[at : at + 1] = [rest] if rest[0] < end else []
                return start
        return None

    def give_back(self, start: int, num_bytes: int) -> None:
        """Free what `take` gave, for the same number of bytes."""
        end = start + _pages(num_bytes)
        at = bisect_left(self._free, (start, end))
        before = self._free[at - 1] if at else (-1, -1)
        after = self._free[at] if at < len(self._free) else (self.size + 1, self.size + 1)
        assert before[1] <= start and end <= after[0], "these bytes are free already"
        low, high = at, at
        if before[1] == start:
            start, low = before[0], at - 1
        if after[0] == end:
            end, high = after[1], at + 1
        self._free[low:high] = [(start, end)]


def _pages(num_bytes: int) -> int:
    return max(1, -(-num_bytes // _PAGE_BYTES)) * _PAGE_BYTES


class Slab:
    """A part of the arena that holds one input. Free again when the last reference to it goes."""

    __slots__ = ("_arena", "_length", "offset")

    def __init__(self, arena: "Arena", offset: int, length: int) -> None:
        self._arena = arena
        self._length = length
        self.offset = offset

    def __len__(self) -> int:
        return self._length

    def view(self) -> memoryview:
        return self._arena.view[self.offset : self.offset + self._length]

    def __del__(self) -> None:
        self._arena.extents.give_back(self.offset, self._length)


class Arena:
    """The owner's end: an anonymous file of fixed size, which can neither grow nor shrink."""

    def __init__(self, size: int) -> None:
        self.extents = Extents(_pages(size))
        self.size = self.extents.size
        self.fd = os.memfd_create("serai-pool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.view = memoryview(mmap.mmap(self.fd, self.size))
        # Workers get this one. It cannot be written through, whatever a worker turns into.
        self.read_only_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._heap_bytes = 0  # of payloads that found no room here and are being received elsewhere

    def take_heap(self, num_bytes: int) -> bool:
        """Whether so much more may be received outside: at most twice what the arena holds, over all connections."""
        if self._heap_bytes + num_bytes > 2 * self.size:
            return False
        self._heap_bytes += num_bytes
        return True

    def give_heap(self, num_bytes: int) -> None:
        self._heap_bytes -= num_bytes

    def take(self, num_bytes: int) -> Slab | None:
        """Room for an input, or None when there is none: then it travels as bytes."""
        offset = self.extents.take(num_bytes)
        return None if offset is None else Slab(self, offset, num_bytes)


class ReadOnlyArena:
    """The worker's end."""

    def __init__(self, fd: int) -> None:
        self.size = os.fstat(fd).st_size
        self._view = memoryview(mmap.mmap(fd, self.size, prot=mmap.PROT_READ))
        os.close(fd)

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """Raises ValueError for a place that is not inside."""
        if not 0 <= offset <= offset + num_bytes <= self.size:
            raise ValueError(f"{num_bytes} bytes at {offset} are outside of {self.size} shared bytes")
        return self._view[offset : offset + num_bytes]
