"""The head of a request: collecting its bytes, and the questions that have exactly one right answer.

The parser (llhttp) says what the bytes are; here is decided whether we want them. Everything is a pure function or
a small buffer without a clock, so that each rule can be tested alone.
"""

import functools
import ipaddress
import re
import urllib.parse
from typing import NamedTuple

from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.refusals import Refused, malformed

#: What the first bytes of a request line can be. Anything else (TLS, binary, HTTP/2) is refused without waiting.
_REQUEST_LINE_SO_FAR = re.compile(rb"[A-Z][A-Z-]{0,31}(?: (?:[!-~\x80-\xff]+(?: [ -~]{0,16}\r?)?)?)?")
_NEVER_IN_A_HEAD = re.compile(rb"[\x00\n]")

_HOST_NAME = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253})(?::([0-9]{1,5}))?")
_HOST_IPV6 = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{1,5}))?")

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RAW_TARGET = re.compile(rb"/[!-~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_LENGTH = re.compile(rb"[0-9]+")
_OVERSIZED_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{18,})[ \t]*\r\n", re.IGNORECASE)

_LIMIT_OF_HEADERS = "send fewer or shorter headers"


class Target(NamedTuple):
    path: str  # decoded once
    raw_path: bytes
    query: bytes


class Framing(NamedTuple):
    content_length: int  # 0 where there is no body or it is chunked
    chunked: bool
    expects_continue: bool


class HeadBuffer:
    """Puts together a head that comes in pieces, in time linear in its bytes. Refuses what can no longer become one."""

    __slots__ = ("_data", "_limits", "_line_at", "_num_lines", "_seen")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._data = bytearray()
        self._num_lines = 0
        self._line_at = 0  # where the line that is not whole yet begins
        self._seen = 0  # bytes already searched

    def feed(self, piece: bytes) -> tuple[bytes, bytes] | None:
        """Returns (head, what follows) once the head is whole."""
        data = self._data
        data += piece
        while (end := data.find(b"\r\n", self._seen)) >= 0:
            if end == self._line_at:
                if self._num_lines:
                    return bytes(data[: end + 2]), bytes(data[end + 2 :])
                # One empty line before a request is tolerated, as RFC 9112 asks.
                if end > 0:
                    raise malformed("empty_lines", "empty lines came where a request was expected")
            else:
                self._check_line(data[self._line_at : end])
                self._num_lines += 1
            self._line_at = self._seen = end + 2
        self._check_line(data[self._line_at :])
        self._seen = max(self._line_at, len(data) - 1)
        return None

    def _check_line(self, line: bytearray) -> None:
        limits = self._limits
        if self._num_lines == 0:
            if len(line) > limits.max_request_line_bytes:
                raise request_line_too_long(limits)
            if line and line != b"\r" and _REQUEST_LINE_SO_FAR.fullmatch(line) is None:
                raise malformed("not_http", "these bytes are no HTTP/1.1 request: this port speaks plain HTTP/1.1 only")
        elif _NEVER_IN_A_HEAD.search(line):
            raise malformed("bad_header", "a header line holds NUL or a line feed without carriage return")
        elif len(line) > limits.max_header_bytes:
            raise header_too_long(limits)
        if self._num_lines > limits.max_headers and line not in (b"", b"\r"):
            raise too_many_headers(limits)
        if len(self._data) > limits.max_head_bytes:
            raise headers_too_large(limits)


def check_head_size(head: bytes, limits: HttpLimits) -> int:
    """Refuse a whole head that is too large in any way. Returns where its request line ends."""
    line_end = head.find(b"\r\n")
    if line_end > limits.max_request_line_bytes:
        raise request_line_too_long(limits)
    if head.count(b"\r\n") - 2 > limits.max_headers:
        raise too_many_headers(limits)
    if len(head) > limits.max_header_bytes:
        if max(map(len, head[line_end + 2 :].split(b"\r\n"))) > limits.max_header_bytes:
            raise header_too_long(limits)
        if len(head) > limits.max_head_bytes:
            raise headers_too_large(limits)
    return line_end


def request_line_too_long(limits: HttpLimits) -> Refused:
    limit = limits.max_request_line_bytes
    return Refused(414, "request_line_too_long", f"the request line is over {limit} bytes: put long input in the body")


def header_too_long(limits: HttpLimits) -> Refused:
    return Refused(431, "header_too_long", f"a header is over {limits.max_header_bytes} bytes: {_LIMIT_OF_HEADERS}")


def too_many_headers(limits: HttpLimits) -> Refused:
    return Refused(431, "too_many_headers", f"there are over {limits.max_headers} headers: {_LIMIT_OF_HEADERS}")


def headers_too_large(limits: HttpLimits) -> Refused:
    message = f"the headers are over {limits.max_head_bytes} bytes together: {_LIMIT_OF_HEADERS}"
    return Refused(431, "headers_too_large", message)


def has_oversized_length(head: bytes) -> bool:
    """Whether the parser failed because the length is a number beyond all limits: 413 says more than 400."""
    return len(_OVERSIZED_LENGTH.findall(head)) == 1


#: Clients put a name into a path with its scheme: /v1/algo/algo://demo/hello. Its slashes are no empty segment.
_NAME_IN_PATH = re.compile(r"(?<=[a-z])/(?:algo|data)://(?=[\w.])")


# Cached because a client repeats its target and host; what is refused is not kept. Keys are at most a request line.
@functools.lru_cache(maxsize=1024)
def parse_target(target: bytes) -> Target:
    """The one path that a request target names, decoded once. What could name two, or leave its folder, is refused."""
    if _RAW_TARGET.fullmatch(target) is None or b"#" in target:
        message = "the request target must be a path that begins with / and holds ASCII only: percent-encode the rest"
        raise malformed("bad_target", message)
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    if "%" in path:
        path = _decode_path(path)
    if _CONTROL.search(path) or "\\" in path:
        raise malformed("bad_path", "the path holds a control character or a backslash: leave them out")
    if "//" in path and "//" in _NAME_IN_PATH.sub("/", path, 1):
        raise malformed("bad_path", "the path holds an empty segment (//): leave one slash out")
    if "/." in path and any(segment.partition(";")[0] in (".", "..") for segment in path.split("/")):
        raise malformed("bad_path", "the path holds a . or .. segment: send the path it leads to")
    return Target(path, raw_path, query)


def _decode_path(path: str) -> str:
    if _BAD_ESCAPE.search(path):
        raise malformed("bad_path", "the path holds a % that is no escape: write it as %25")
    try:
        return urllib.parse.unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise malformed("bad_path", "the path is not UTF-8 once decoded: encode names as UTF-8") from None


@functools.lru_cache(maxsize=256)
def check_host(host: bytes) -> None:
    """Refuse a Host header that is no host: whatever builds an address from it must be able to trust its form."""
    found = _HOST_NAME.fullmatch(host)
    if found is None:
        found = _HOST_IPV6.fullmatch(host)
        if found is not None and not _is_ipv6(found[1]):
            found = None
    port = found[found.re.groups] if found else None
    if found is None or len(host) > 260 or (port is not None and int(port) > 65535):
        raise malformed("bad_host", "the Host header must be a host name or address, with a port if need be")


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return True


def check_framing(version: str, specials: list[tuple[bytes, bytes]]) -> Framing:
    """Where the body ends, from the headers that say so. Where two readers could disagree, the request is refused.

    Args:
        version: "1.0" or "1.1".
        specials: lower-case name and value of each Host, Content-Length, Transfer-Encoding and Expect header.
    """
    hosts = lengths = codings = content_length = 0
    expects_continue = False
    for name, value in specials:
        if name == b"host":
            hosts += 1
            check_host(value)
        elif name == b"content-length":
            lengths += 1
            if _LENGTH.fullmatch(value) is None:
                raise malformed("bad_content_length", "Content-Length must be one decimal number")
            content_length = int(value[:19])
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                raise malformed("bad_transfer_encoding", "the only Transfer-Encoding here is chunked")
        elif value.lower() == b"100-continue":
            expects_continue = True
        else:
            raise Refused(417, "bad_expectation", "the only expectation that can be met is 100-continue")
    if hosts != 1:
        raise malformed("bad_host", f"a request must have exactly one Host header, not {hosts}")
    if codings + lengths > 1:
        message = "a request must say its length once: one Content-Length or one Transfer-Encoding"
        raise malformed("ambiguous_length", message)
    if codings and version == "1.0":
        raise malformed("bad_transfer_encoding", "HTTP/1.0 knows no Transfer-Encoding: speak HTTP/1.1")
    return Framing(content_length, codings == 1, expects_continue and version == "1.1")
