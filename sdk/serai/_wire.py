"""Frames and msgpack headers in plain Python, for code that runs in an author's interpreter.

There only the standard library may be imported. The format is that of `serai.ipc.frames`, the messages those of
`serai.ipc.messages`; a test holds the two against each other. Only what headers use is covered: nil, booleans,
64-bit integers, floats, strings, arrays.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

# Message tags, as in serai.ipc.messages.
CALL, CANCEL, RESULT, FAILURE, REFUSAL, READY, RUN, RAN, SHARE, SHARED = 2, 3, 4, 5, 6, 9, 13, 14, 22, 23
ITEM, MORE, PROGRESS, FORK, FORKED, ENDED, BOOTED = 24, 25, 26, 29, 30, 31, 35
#: Items of a call that may be on their way, unacknowledged, and their bytes. As in serai.ipc.messages.
WINDOW, WINDOW_BYTES = 16, 1 << 20

#: Longest frame we accept. As in serai.ipc.frames.
MAX_FRAME_BYTES = 80 * 1024 * 1024
_MAX_DEPTH = 16

_PREFIX = struct.Struct("<IH")


class WireError(ValueError):
    """The other side sent something that is no frame of ours."""


def pack_header(value: Any) -> bytes:
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value: Any, out: bytearray) -> None:
    if value is None:
        out.append(0xC0)
    elif value is True:
        out.append(0xC3)
    elif value is False:
        out.append(0xC2)
    elif isinstance(value, int):
        if 0 <= value < 128:
            out.append(value)
        elif value >= 0:
            out += struct.pack(">BQ", 0xCF, value)
        else:
            out += struct.pack(">Bq", 0xD3, value)
    elif isinstance(value, float):
        out += struct.pack(">Bd", 0xCB, value)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        out += struct.pack(">BI", 0xDB, len(raw)) if len(raw) > 31 else bytes((0xA0 | len(raw),))
        out += raw
    else:
        items = list(value)
        out += struct.pack(">BI", 0xDD, len(items)) if len(items) > 15 else bytes((0x90 | len(items),))
        for item in items:
            _pack(item, out)


_FIXED = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_SIZED = {0xD9: struct.Struct(">B"), 0xDA: struct.Struct(">H"), 0xDB: struct.Struct(">I")}
_ARRAYS = {0xDC: struct.Struct(">H"), 0xDD: struct.Struct(">I")}
_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack_header(data: bytes) -> Any:
    try:
        value, at = _unpack(data, 0, 0)
    except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"header is not msgpack: {error}") from error
    if at != len(data):
        raise WireError("bytes left over after the header")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind >= 0xE0:
        return kind - 0x100, at
    if 0xA0 <= kind <= 0xBF:
        return _text(data, at, kind & 0x1F)
    if 0x90 <= kind <= 0x9F:
        return _array(data, at, kind & 0x0F, depth)
    if kind in _PLAIN:
        return _PLAIN[kind], at
    if kind in _FIXED:
        form = _FIXED[kind]
        return form.unpack_from(data, at)[0], at + form.size
    if kind in _SIZED:
        form = _SIZED[kind]
        return _text(data, at + form.size, form.unpack_from(data, at)[0])
    if kind in _ARRAYS:
        form = _ARRAYS[kind]
        return _array(data, at + form.size, form.unpack_from(data, at)[0], depth)
    raise WireError(f"msgpack type 0x{kind:02x} does not occur in headers")


def _text(data: bytes, at: int, length: int) -> tuple[str, int]:
    if at + length > len(data):
        raise WireError("string runs past the header")
    return data[at : at + length].decode(), at + length


def _array(data: bytes, at: int, length: int, depth: int) -> tuple[list[Any], int]:
    if length > len(data) - at or depth >= _MAX_DEPTH:
        raise WireError("array runs past the header or nests too deep")
    items = []
    for _ in range(length):
        item, at = _unpack(data, at, depth + 1)
        items.append(item)
    return items, at


def frame_prefix(header: bytes, payload_bytes: int = 0) -> bytes:
    return _PREFIX.pack(2 + len(header) + payload_bytes, len(header))


def send_frame(sock: socket.socket, header: Any, *payload: bytes | memoryview) -> None:
    """Write one frame. Raises OSError when the other side has gone."""
    packed = pack_header(header)
    num_bytes = sum(memoryview(part).nbytes for part in payload)
    prefix = frame_prefix(packed, num_bytes) + packed
    if num_bytes < 64 * 1024:
        sock.sendall(b"".join((prefix, *payload)))
        return
    sock.sendall(prefix)
    for part in payload:
        sock.sendall(part)


class FrameReader:
    """Reads frames from a blocking socket; keeps what it has read too far."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def read(self) -> tuple[Any, bytes] | None:
        """The next (header, payload), or None when the other side has closed between two frames."""
        if not self._fill(_PREFIX.size):
            return None
        length, header_length = _PREFIX.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES or header_length + 2 > length:
            raise WireError(f"frame of {length} bytes; at most {MAX_FRAME_BYTES}")
        total = length + 4
        self._fill(total)
        payload_at = _PREFIX.size + header_length
        header = unpack_header(bytes(self._buffer[_PREFIX.size : payload_at]))
        payload = bytes(memoryview(self._buffer)[payload_at:total])
        del self._buffer[:total]
        return header, payload

    def read_with_descriptor(self) -> tuple[Any, bytes, int | None] | None:
        """As `read`, for the answer that brings a descriptor: it comes with the first byte. The caller closes it."""
        data, descriptors, _, _ = socket.recv_fds(self._sock, 64 * 1024, 1)
        descriptor = descriptors[0] if descriptors else None
        try:
            if not data:
                return None
            self._buffer += data
            frame = self.read()
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise
        return (*frame, descriptor) if frame is not None else None

    def _fill(self, wanted: int) -> bool:
        while len(self._buffer) < wanted:
            data = self._sock.recv(max(64 * 1024, min(wanted - len(self._buffer), 1 << 20)))
            if not data:
                if self._buffer:
                    raise WireError("connection closed inside a frame")
                return False
            self._buffer += data
        return True
