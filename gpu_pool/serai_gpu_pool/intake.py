"""Reads frames from a connection; large payloads go straight into shared memory, without a copy on the way.

Only those of our own processes do. Others may claim a size and then send nothing, so theirs are received elsewhere,
bounded over all of them, and put there when they are whole: what strangers hold back is no room that we miss.

The format and the rules are those of `serai.ipc.frames.FrameProtocol`. It is not one, because a loop that finds
`data_received` does not ask for a buffer.
"""

import asyncio
import struct
from collections.abc import Callable

from serai.ipc.frames import MAX_FRAME_BYTES, FrameError, pack_prefix
from serai_gpu_pool.arena import Arena, Slab

_PREFIX = struct.Struct("<IH")
#: Payloads from this size on go to shared memory: below it, copying is cheaper than keeping account.
LARGE_BYTES = 64 * 1024
#: Holds a header of the greatest length and a small payload, with room to read many small frames at once.
_BUFFER_BYTES = 256 * 1024
#: Payloads from this size on are written as their own buffer instead of being joined to the header.
_JOIN_BYTES = 16 * 1024

#: Outside the arena, memory is taken in blocks of this size as bytes come: a claim alone costs nothing.
_BLOCK_BYTES = 1024 * 1024
Payload = bytes | memoryview | Slab


class _HeapPayload:
    """A payload that is being received outside the arena.

    Args:
        may_take: asked for each block of so many bytes; given back by `release`.
    """

    def __init__(self, arena: Arena, length: int, may_take: Callable[[int], bool], give: Callable[[int], None]) -> None:
        self._arena = arena
        self._length = length
        self._may_take = may_take
        self._give = give
        self._blocks: list[bytearray] = []
        self.held_bytes = 0

    def __len__(self) -> int:
        return self._length

    def view_from(self, at: int) -> memoryview:
        """Where the bytes from `at` on go; at least one. Raises FrameError when the pool holds too much already."""
        index, offset = divmod(at, _BLOCK_BYTES)
        if index == len(self._blocks):
            size = min(_BLOCK_BYTES, self._length - at)
            if not self._may_take(size):
                raise FrameError("more large inputs are being received than the pool holds; send it again later")
            self.held_bytes += size
            self._blocks.append(bytearray(size))
        return memoryview(self._blocks[index])[offset:]

    def release(self) -> None:
        self._give(self.held_bytes)
        self.held_bytes = 0

    def whole(self) -> Payload:
        """All of it, in the arena where that has room."""
        self.release()
        slab = self._arena.take(self._length)
        if slab is None:
            return memoryview(b"".join(self._blocks))
        view, at = slab.view(), 0
        for block in self._blocks:
            view[at : at + len(block)] = block
            at += len(block)
        return slab


class Intake(asyncio.BufferedProtocol):
    """A connection of the pool. Subclasses get `payload_received` for each frame, in order.

    Args:
        is_ours: the peer is a process of our own, which sends whole what it begins to send.
    """

    def __init__(self, arena: Arena, is_ours: bool = False) -> None:
        self.transport: asyncio.Transport | None = None
        self._arena = arena
        self._is_ours = is_ours
        self._small = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._small)
        self._start = self._end = 0  # what of _small is filled and not yet used
        self._header = b""
        self._large: Slab | _HeapPayload | None = None  # a payload that is being received, and how far it is
        self._large_at = 0

    def payload_received(self, header: bytes, payload: Payload) -> None:
        raise NotImplementedError

    def frame_error(self, error: FrameError) -> None:
        """Called once before the connection is cut."""

    def send_frame(self, header: bytes, payload: bytes | memoryview = b"") -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        prefix = pack_prefix(header, len(payload))
        if len(payload) < _JOIN_BYTES:
            transport.write(b"".join((prefix, header, payload)))
        else:
            transport.writelines((prefix + header, payload))

    def may_receive(self, num_bytes: int) -> bool:
        """Whether so much more of a large payload may be held before it is whole. Asked for peers that are not ours."""
        return self._arena.take_heap(num_bytes)

    @property
    def received_bytes(self) -> int:
        """Of a large payload that is not whole yet, outside the arena."""
        return self._large.held_bytes if isinstance(self._large, _HeapPayload) else 0

    @property
    def unread_bytes(self) -> int:
        """Of answers that the peer has not read yet, as far as they are still here."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large is not None:
            return self._large_view()
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._large is not None:
            self._large_at += nbytes
            if self._large_at == len(self._large):
                self._finish_large()
            else:
                self._guarded(self._make_room)
            return
        self._end += nbytes
        self._guarded(self._parse)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except FrameError as error:
            self._start = self._end = 0
            self._drop_large()
            self.frame_error(error)
            if self.transport is not None:
                self.transport.abort()

    def _large_view(self) -> memoryview:
        assert self._large is not None, "asked for only while one is received"
        if isinstance(self._large, Slab):
            return self._large.view()[self._large_at :]
        return self._large.view_from(self._large_at)

    def _make_room(self) -> None:
        """Take the next block now, where a refusal can be told."""
        if isinstance(self._large, _HeapPayload):
            self._large.view_from(self._large_at)

    def _parse(self) -> None:
        """Hand out every whole frame; begin a large one; keep the rest for the next time."""
        small, end = self._small, self._end
        while end - self._start >= _PREFIX.size:
            at = self._start
            length, header_bytes = _PREFIX.unpack_from(small, at)
            if length > MAX_FRAME_BYTES or header_bytes + 2 > length:
                raise FrameError(f"frame of {length} bytes with a header of {header_bytes}")
            payload_at = at + _PREFIX.size + header_bytes
            frame_end = at + 4 + length
            if end < frame_end:
                if frame_end - payload_at < LARGE_BYTES or end < payload_at:
                    break
                self._begin_large(bytes(small[at + _PREFIX.size : payload_at]), payload_at, frame_end - payload_at)
                return
            self._start = frame_end
            header = bytes(small[at + _PREFIX.size : payload_at])
            self.payload_received(header, self._copy(self._view[payload_at:frame_end]))
        held = end - self._start
        if self._start:
            small[:held] = small[self._start : end]
            self._start, self._end = 0, held

    def _copy(self, payload: memoryview) -> Payload:
        """What the buffer holds, to keep: it is overwritten by the next read."""
        slab = self._arena.take(len(payload)) if len(payload) >= LARGE_BYTES else None
        if slab is None:
            return bytes(payload)
        slab.view()[:] = payload
        return slab

    def _begin_large(self, header: bytes, payload_at: int, payload_bytes: int) -> None:
        self._header = header
        self._large = self._place(payload_bytes)
        self._large_at, at = 0, payload_at
        while at < self._end:
            room = self._large_view()
            num_bytes = min(len(room), self._end - at)
            room[:num_bytes] = self._view[at : at + num_bytes]
            at += num_bytes
            self._large_at += num_bytes
        self._start = self._end = 0
        self._make_room()

    def _place(self, num_bytes: int) -> Slab | _HeapPayload:
        """Where a payload is received."""
        if not self._is_ours:
            return _HeapPayload(self._arena, num_bytes, self.may_receive, self._arena.give_heap)
        return self._arena.take(num_bytes) or _HeapPayload(self._arena, num_bytes, _always, _nothing)

    def _finish_large(self) -> None:
        header, large = self._header, self._large
        self._header, self._large = b"", None
        assert large is not None, "finished only what was begun"
        self.payload_received(header, large if isinstance(large, Slab) else large.whole())

    def _drop_large(self) -> None:
        if isinstance(self._large, _HeapPayload):
            self._large.release()
        self._large = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._drop_large()


def _always(_num_bytes: int) -> bool:
    return True


def _nothing(_num_bytes: int) -> None:
    """Nothing was counted."""
