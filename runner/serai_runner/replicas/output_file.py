"""The file in memory that a box's output goes to: nothing ever blocks on it, and its end outlives the box."""

import fcntl
import os

#: What a box that has ended printed last is kept, this much of it.
_TAIL_BYTES = 4096


class OutputFile:
    def __init__(self) -> None:
        self.fd = os.memfd_create("serai-output")
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)

    def read(self, start: int, num_bytes: int) -> bytes:
        """Whoever prints may empty it at any moment."""
        try:
            return os.pread(self.fd, num_bytes, start)
        except OSError:
            return b""

    def tail(self, start: int = 0) -> str:
        """The end of what was printed from `start` on."""
        size = os.fstat(self.fd).st_size
        return self.read(max(start, size - _TAIL_BYTES), _TAIL_BYTES).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self.fd)
