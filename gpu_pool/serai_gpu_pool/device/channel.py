"""Frames over a blocking socket: the worker's end. The format is that of `serai.ipc.frames`."""

import socket
import struct
import threading

from serai.ipc.frames import WIDE, pack_prefix

#: Frames up to this size are read into one buffer that is used again and again; most batches of small inputs fit.
_BUFFER_BYTES = 1 << 20
#: Replies up to this size are joined and written at once.
_JOIN_BYTES = 64 * 1024


class Channel:
    """Reads one frame at a time. The payload of a frame is only valid until the next `read`."""

    def __init__(self, sock: socket.socket, max_frame_bytes: int, prefix: struct.Struct = WIDE) -> None:
        self._sock = sock
        self._max = max_frame_bytes
        self._prefix = prefix
        self._buffer = bytearray(_BUFFER_BYTES)
        self._start = self._end = 0  # bytes that were read too far
        self._writing = threading.Lock()

    def read(self) -> tuple[bytes, memoryview]:
        """The next header and payload. Raises EOFError when the other end has gone, ValueError for no frame of ours."""
        prefix_bytes = self._prefix.size
        self._fill(prefix_bytes)
        length, header_bytes = self._prefix.unpack_from(self._buffer, self._start)
        total = length + 4
        if total > self._max or header_bytes + prefix_bytes - 4 > length:
            raise ValueError(f"frame of {length} bytes with a header of {header_bytes}")
        frame = self._take(total)
        payload_at = prefix_bytes + header_bytes
        return bytes(frame[prefix_bytes:payload_at]), frame[payload_at:]

    def write(self, header: bytes, parts: list[bytes | memoryview]) -> None:
        num_bytes = sum([len(part) for part in parts])
        prefix = pack_prefix(header, num_bytes, self._prefix) + header
        if num_bytes <= _JOIN_BYTES:
            self._sock.sendall(b"".join([prefix, *parts]))
            return
        self._sock.sendall(prefix)
        for part in parts:
            if len(part):
                self._sock.sendall(part)

    def write_alone(self, header: bytes) -> None:
        """A frame without a payload, from any thread."""
        with self._writing:
            self.write(header, [])

    def _take(self, total: int) -> memoryview:
        """A whole frame: from the buffer, or in memory of its own when it does not fit there."""
        if total <= _BUFFER_BYTES:
            self._fill(total)
            frame = memoryview(self._buffer)[self._start : self._start + total]
            self._start += total
            return frame
        large = memoryview(bytearray(total))
        at = self._end - self._start
        large[:at] = memoryview(self._buffer)[self._start : self._end]
        self._start = self._end = 0
        while at < total:
            at += self._receive(large[at:])
        return large

    def _fill(self, wanted: int) -> None:
        """Have at least `wanted` bytes in the buffer."""
        held = self._end - self._start
        if held >= wanted:
            return
        if self._start:
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        view = memoryview(self._buffer)
        while self._end < wanted:
            self._end += self._receive(view[self._end :])

    def _receive(self, into: memoryview) -> int:
        count = self._sock.recv_into(into)
        if not count:
            raise EOFError("the pool has gone")
        return count
