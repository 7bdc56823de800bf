"""One frame: a 4-byte length, a 2-byte header length, a msgpack header, then raw payload bytes.

    | length: u32 LE | header length: u16 LE (u32 LE to workers of the pool) | header: msgpack | payload: raw |
      '-- bytes that follow this field

Many calls share one connection; replies carry the id of what they answer. A frame that is too long or whose
header does not parse ends the connection: a peer that sends one is broken or hostile.
"""

import asyncio
import struct

#: Longest frame we accept, header and payload. Above the largest body (10 MiB) and tensor (64 MiB) with room to spare.
MAX_FRAME_BYTES = 80 * 1024 * 1024

#: Longest header: what its length can say.
MAX_HEADER_BYTES = 0xFFFF
#: What a frame begins with. Between the pool and its workers the header's length has four bytes: a batch describes the
#: tensors of many calls.
NARROW, WIDE = struct.Struct("<IH"), struct.Struct("<II")
_LENGTH_BYTES = 4

Buffer = bytes | bytearray | memoryview


class FrameError(ValueError):
    """The peer sent bytes that are no frame of ours."""


def pack_frame(header: bytes, payload: Buffer = b"") -> bytes:
    """One frame as bytes. For large payloads use `pack_prefix` and write the parts."""
    return b"".join((pack_prefix(header, len(payload)), header, payload))


def pack_prefix(header: bytes, payload_bytes: int, prefix: struct.Struct = NARROW) -> bytes:
    return prefix.pack(len(header) + payload_bytes + prefix.size - _LENGTH_BYTES, len(header))


class FrameProtocol(asyncio.Protocol):
    """Splits a byte stream into frames; subclasses say what a frame means.

    `frame_received` runs on the loop for each frame, in order.
    """

    #: Payloads from this size on are written as their own buffer instead of being joined to the header.
    join_below_bytes = 16 * 1024
    prefix = NARROW

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.transport: asyncio.Transport | None = None
        self._max = max_frame_bytes
        self._buffer = bytearray()
        self._wanted = 0  # bytes needed before the next frame in _buffer is whole; 0: not known yet

    def frame_received(self, header: bytes, payload: bytes) -> None:
        raise NotImplementedError

    def frame_error(self, error: FrameError) -> None:
        """Called once before the connection is cut."""

    def send_frame(self, header: bytes, payload: Buffer = b"") -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if len(payload) < self.join_below_bytes:
            transport.write(b"".join((pack_prefix(header, len(payload), self.prefix), header, payload)))
        else:
            transport.writelines((pack_prefix(header, len(payload), self.prefix) + header, payload))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        try:
            if not self._buffer:
                used = self._split(data)
                if used < len(data):
                    self._buffer += memoryview(data)[used:]
                return
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            used = self._split(bytes(self._buffer))
            del self._buffer[:used]
        except FrameError as error:
            self.frame_error(error)
            if self.transport is not None:
                self.transport.abort()

    def _split(self, data: bytes) -> int:
        """Hand out every whole frame in `data`; how many bytes that used."""
        at, end = 0, len(data)
        self._wanted = 0
        prefix, prefix_bytes = self.prefix, self.prefix.size
        while end - at >= prefix_bytes:
            length, header_length = prefix.unpack_from(data, at)
            if length > self._max or header_length + prefix_bytes - _LENGTH_BYTES > length:
                raise FrameError(f"frame of {length} bytes with a header of {header_length}; at most {self._max} bytes")
            if end - at < length + _LENGTH_BYTES:
                self._wanted = length + _LENGTH_BYTES
                break
            header_at = at + prefix_bytes
            payload_at = header_at + header_length
            at += length + _LENGTH_BYTES
            self.frame_received(data[header_at:payload_at], data[payload_at:at])
        return at
