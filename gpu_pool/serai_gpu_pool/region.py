"""Memory that the pool shares with one replica, for inputs and outputs that are too large for a socket to be quick.

The replica may change it at any time, so what is in it is copied before anybody works with it: once here, instead of
four times on the way through a socket.
"""

import asyncio
import contextlib
import fcntl
import mmap
import os
import socket

from serai.ipc.frames import pack_prefix
from serai_gpu_pool.arena import Arena, Slab

#: Outputs from this size on go there.
_LARGE_BYTES = 64 * 1024
#: madvise(2): free the pages of a shared mapping for everybody. `mmap` has a name for it on some systems only.
_MADV_REMOVE = 9


class Region:
    """An anonymous file of fixed size; its descriptor is only open until the replica has it."""

    def __init__(self, num_bytes: int) -> None:
        self.size = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._fd = os.memfd_create("serai-replica", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, self.size)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._map = mmap.mmap(self._fd, self.size)
        self._view = memoryview(self._map)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def send(self, transport: asyncio.Transport, header: bytes) -> bool:
        """Send a frame with the descriptor. False: not possible now, because other frames are still to be written."""
        if transport.get_write_buffer_size():
            return False
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        frame = pack_prefix(header, 0) + header
        try:
            with socket.socket(fileno=descriptor) as sock:
                return socket.send_fds(sock, [frame], [self._fd]) == len(frame)
        except OSError:
            return False
        finally:
            os.close(self._fd)
            self._fd = -1

    def empty(self) -> None:
        """Give the memory back to the system, although the replica may keep its descriptor for ever."""
        with contextlib.suppress(OSError):  # a kernel that cannot: it goes with the last descriptor
            self._map.madvise(_MADV_REMOVE)

    def read(self, num_bytes: int, arena: Arena) -> Slab | bytes:
        """A copy of its beginning, which the replica cannot change any more."""
        slab = arena.take(num_bytes)
        if slab is None:
            return bytes(self._view[:num_bytes])
        slab.view()[:] = self._view[:num_bytes]
        return slab

    def write(self, payload: bytes | memoryview) -> bool:
        """Put an output at its beginning; False when it is small, or larger than this."""
        if not _LARGE_BYTES <= len(payload) <= self.size:
            return False
        self._view[: len(payload)] = payload
        return True
