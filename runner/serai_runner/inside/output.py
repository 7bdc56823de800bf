"""What the author's code prints, from Python, C and children alike: descriptors 1 and 2 are a file in memory.

A file and not a pipe: nothing ever blocks on it, even while a C extension that prints holds the interpreter's lock.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

#: Output returned for one call.
MAX_OUTPUT_BYTES = 1 << 20
_CUT = b"\n[output cut: more than 1 MiB]\n"


class Output:
    """`fd` is open for reading and appending."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]  # what was printed before a crash is there after it

    def flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the author's code may have closed or replaced it
                stream.flush()

    def take(self) -> bytes:
        """What was printed since the last time, which is then forgotten."""
        self.flush()
        try:
            size = os.lseek(self._fd, 0, os.SEEK_END)
            if size == 0:
                return b""
            text = self._read()
            os.ftruncate(self._fd, 0)
        except OSError:
            return b""
        return text + _CUT if size > MAX_OUTPUT_BYTES else text

    def text(self) -> str:
        """What was printed so far, left where it is."""
        self.flush()
        return self._read().decode("utf-8", "replace")

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def _read(self) -> bytes:
        return os.pread(self._fd, MAX_OUTPUT_BYTES, 0)
