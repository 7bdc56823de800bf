"""From bytes to one request, or to a refusal."""

from typing import NamedTuple

import httptools

from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.refusals import body_too_large, malformed
from serai_gateway.server.request_head import (
    Framing,
    HeadBuffer,
    Target,
    check_framing,
    check_head_size,
    has_oversized_length,
    parse_target,
)

#: Headers that decide what a request is.
_SPECIAL = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))

_CR = 13


class Request(NamedTuple):
    """The head of a request that may be served."""

    method: str
    version: str  # "1.0" or "1.1"
    target: Target
    headers: list[tuple[bytes, bytes]]  # names in lower case
    framing: Framing
    max_body_bytes: int
    keep_alive: bool


class RequestParser:
    """Parses the heads of one connection's requests. llhttp does the reading, `request_head` the judging."""

    __slots__ = ("_buffer", "_headers", "_keep_alive", "_limits", "_llhttp", "_num_heads", "_specials", "_url")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._buffer: HeadBuffer | None = None
        self._llhttp: httptools.HttpRequestParser | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._specials: list[tuple[bytes, bytes]] = []
        self._num_heads = 0
        self._keep_alive = False

    def feed(self, data: bytes) -> tuple[Request, bytes] | None:
        """Returns (request, what follows its head) once the head is whole.

        Raises:
            Refused: this is no request, or none that is served here. The connection must end.
        """
        if self._buffer is None:
            end = data.find(b"\r\n\r\n")
            if end >= 0 and data[0] != _CR:  # the head came in one piece, as nearly all do
                return self._parse(data[: end + 4]), data[end + 4 :]
            self._buffer = HeadBuffer(self._limits)
        whole = self._buffer.feed(data)
        if whole is None:
            return None
        self._buffer = None
        return self._parse(whole[0]), whole[1]

    def _parse(self, head: bytes) -> Request:
        line_end = check_head_size(head, self._limits)
        llhttp = self._run_llhttp(head)
        version = "1.1" if head.endswith(b" HTTP/1.1", 0, line_end) else llhttp.get_http_version()
        if version not in ("1.1", "1.0"):
            raise malformed("bad_version", "this port speaks HTTP/1.1 and HTTP/1.0 only")
        framing = check_framing(version, self._specials)
        target = parse_target(self._url)
        return Request(
            llhttp.get_method().decode(),
            version,
            target,
            self._headers,
            framing,
            self._max_body_bytes(framing, target),
            self._keep_alive and version == "1.1",
        )

    def _run_llhttp(self, head: bytes) -> httptools.HttpRequestParser:
        """Each head gets a parser of its own, so that no state of one request reaches the next."""
        self._url = b""
        self._headers = []
        self._specials = []
        self._num_heads = 0
        llhttp = self._llhttp = httptools.HttpRequestParser(self)
        try:
            llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # nothing is upgraded here: an ordinary request with an ordinary answer
        except httptools.HttpParserError as error:
            if has_oversized_length(head):
                raise body_too_large(self._limits.max_body_bytes) from None
            reason = "".join(c for c in str(error) if c.isprintable() and c.isascii())[:100]
            raise malformed("malformed_request", f"this is not well-formed HTTP/1.1: {reason}") from None
        finally:
            self._llhttp = None  # it refers to us
        if self._num_heads != 1:
            raise malformed("malformed_request", "this is not one well-formed HTTP/1.1 request head")
        return llhttp

    def _max_body_bytes(self, framing: Framing, target: Target) -> int:
        limits, length = self._limits, framing.content_length
        if not framing.chunked and length <= limits.max_body_bytes:
            return limits.max_body_bytes
        max_bytes = limits.body_limit_of(target.path)
        if length > max_bytes:
            raise body_too_large(max_bytes)
        return max_bytes

    # Called by llhttp

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if b"_" in name:
            return  # `X_User` and `X-User` are one header to much software: only the second form is let through
        name = name.lower()
        value = value.strip(b" \t")
        self._headers.append((name, value))
        if name in _SPECIAL:
            self._specials.append((name, value))

    def on_headers_complete(self) -> None:
        self._num_heads += 1
        assert self._llhttp is not None, "called while it parses"
        self._keep_alive = self._llhttp.should_keep_alive()  # after the message it has forgotten
