"""Request bodies: from bytes on the wire to bytes of the body, with every quantity bounded.

Both kinds are fed what arrives and return (pieces of the body, what follows it or None while it goes on).
"""

import re

from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.refusals import Refused, body_too_large, malformed

#: Size in hexadecimal (16 digits are 64 bits), then extensions without control characters.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_MAX_SIZE_DIGITS = 16

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class FixedBody:
    """A body whose length was said before."""

    __slots__ = ("_left",)

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return [data], None
        self._left = 0
        return [data[:left]], data[left:]


class ChunkedBody:
    """A body in chunks. Keeps at most one unfinished line.

    Extensions and trailers are read and dropped: nobody here uses them, and a trailer must not pass for a header.
    """

    __slots__ = ("_extension_bytes", "_held", "_left", "_limits", "_max", "_num", "_state", "_total", "_trailers")

    def __init__(self, limits: HttpLimits, max_body_bytes: int) -> None:
        self._limits = limits
        self._max = max_body_bytes
        self._state = _SIZE
        self._held = b""  # of an unfinished line
        self._left = 0  # of the current chunk
        self._num = 0
        self._total = 0
        self._extension_bytes = 0
        self._trailers = [0, 0]  # number, bytes

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Raises Refused: 400 for what is no chunked body, 413 for one that is over a limit."""
        pieces: list[bytes] = []
        if self._held:
            data = self._held + data
            self._held = b""
        at = 0
        while self._state != _DONE:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                if not piece:
                    return pieces, None
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return pieces, None
                self._state = _DATA_END
            end = data.find(b"\r\n", at)
            if end < 0:
                self._check_unfinished(len(data) - at)
                self._held = data[at:]
                return pieces, None
            self._take_line(data[at:end])
            at = end + 2
        return pieces, data[at:]

    def _take_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._take_size(line)
        elif self._state == _DATA_END:
            if line:
                raise malformed("bad_chunk", "a chunk is longer than it says")
            self._state = _SIZE
        else:
            self._take_trailer(line)

    def _take_size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise malformed("bad_chunk", "a chunk must begin with its size in hexadecimal")
        size = int(found[1], 16)
        self._extension_bytes += len(line) - len(f"{size:x}")
        if self._extension_bytes > self._limits.max_chunk_extension_bytes:
            raise self._extensions_too_long()
        if size == 0:
            self._state = _TRAILERS
            return
        self._num += 1
        self._total += size
        if self._num > self._limits.max_chunks:
            raise Refused(413, "too_many_chunks", f"over {self._limits.max_chunks} chunks: send larger ones")
        if self._total > self._max:
            raise body_too_large(self._max)
        self._left = size
        self._state = _DATA

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self._state = _DONE
            return
        if _TRAILER.fullmatch(line) is None:
            raise malformed("bad_trailer", "a trailer after the last chunk is no header line")
        self._trailers[0] += 1
        self._trailers[1] += len(line)
        if self._trailers[0] > self._limits.max_trailers or self._trailers[1] > self._limits.max_trailer_bytes:
            raise self._trailers_too_large()

    def _check_unfinished(self, num_bytes: int) -> None:
        """Refuse a line that is already too long before its end has come."""
        if self._state == _SIZE:
            if num_bytes > _MAX_SIZE_DIGITS + 1 + self._limits.max_chunk_extension_bytes - self._extension_bytes:
                raise self._extensions_too_long()
        elif self._state == _DATA_END:
            if num_bytes > 1:
                raise malformed("bad_chunk", "a chunk is longer than it says")
        elif self._trailers[1] + num_bytes > self._limits.max_trailer_bytes + 1:
            raise self._trailers_too_large()

    def _extensions_too_long(self) -> Refused:
        limit = self._limits.max_chunk_extension_bytes
        return malformed("chunk_extensions_too_long", f"the chunk extensions are over {limit} bytes: leave them out")

    def _trailers_too_large(self) -> Refused:
        limits = self._limits
        message = f"over {limits.max_trailers} trailers or {limits.max_trailer_bytes} bytes of them: leave them out"
        return malformed("trailers_too_large", message)
