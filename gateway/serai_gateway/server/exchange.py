"""One request and its response: the ASGI side of a connection."""

import asyncio
import functools
import http
import logging
import re
from typing import TYPE_CHECKING, Any

from serai_gateway.server.refusals import Refused

if TYPE_CHECKING:
    from serai_gateway.server.connection import HttpConnection

_log = logging.getLogger("serai_gateway.server")

_NOT_IN_A_NAME = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_NOT_IN_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
    if status.value >= 200
}
_WITHOUT_BODY = (204, 304)

#: Above this, what is written stays its own buffer instead of being joined to its framing.
_JOIN_BELOW_BYTES = 16 * 1024

_INTERNAL_ERROR = Refused(500, "internal", "internal error: quote the request id to the operator")
_STOPPING = Refused(503, "stopping", "the server is stopping: send the request again", retriable=True)


class Exchange:
    """Runs the application for one request. The connection feeds it; it writes to the connection's transport.

    The connection goes on to its next request when the response is complete and the body has come to its end,
    whichever is first.
    """

    __slots__ = (
        "_body",
        "_chunked_response",
        "_connection",
        "_has_length",
        "_head",
        "_left",
        "_news",
        "_no_body",
        "body_complete",
        "complete",
        "disconnected",
        "expects_continue",
        "has_news",
        "keep_alive",
        "scope",
        "started",
        "waiting_bytes",
    )

    def __init__(self, connection: "HttpConnection", scope: dict[str, Any], *, keep_alive: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_continue = False
        self.disconnected = False

        self._body: list[bytes] = []
        self.waiting_bytes = 0  # of the body, not yet taken by the application
        self.body_complete = False
        self.has_news = False
        self._news: asyncio.Event | None = None  # made only when the application must wait

        self.started = False  # the application has said the status
        self.complete = False
        self._chunked_response = False
        self._has_length = False
        self._head = b""  # not written yet
        self._no_body = scope["method"] == "HEAD"
        self._left = 0  # bytes of the response its Content-Length still promises

    @property
    def is_on_wire(self) -> bool:
        """Whether part of the response has been written, so that no other can take its place."""
        return self.started and not self._head

    # What the connection tells.

    def feed(self, piece: bytes, *, last: bool) -> None:
        if piece:
            self._body.append(piece)
            self.waiting_bytes += len(piece)
        self.body_complete = last
        self.tell()

    def disconnect(self) -> None:
        self.disconnected = True
        self.tell()

    def tell(self) -> None:
        self.has_news = True
        if self._news is not None:
            self._news.set()

    # What the application does.

    async def run(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._connection.abandon(self, _STOPPING)
            raise
        except Exception:
            _log.exception("the application failed")
            self._connection.abandon(self, _INTERNAL_ERROR)
        else:
            if not self.complete and not self.disconnected:
                _log.error("the application ended before its response did")
                self._connection.abandon(self, _INTERNAL_ERROR)

    async def receive(self) -> dict[str, Any]:
        connection = self._connection
        if self.expects_continue and not self.started and not self.disconnected:
            self.expects_continue = False
            connection.send_continue()
        if not self.has_news and not self.disconnected and not self.complete:
            connection.want_body()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        self.has_news = False
        pieces = self._body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._body = []
        self.waiting_bytes = 0
        return {"type": "http.request", "body": body, "more_body": not self.body_complete}

    async def send(self, message: dict[str, Any]) -> None:
        connection = self._connection
        if connection.write_paused and not self.disconnected:
            await connection.drained()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"a response begins with http.response.start, not {kind}")
            self._send_head(message["status"], message.get("headers", ()))
        elif self.complete:
            raise RuntimeError(f"{kind} came after the end of the response")
        elif kind != "http.response.body":
            raise RuntimeError(f"after http.response.start comes http.response.body, not {kind}")
        else:
            self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    def _send_head(self, status: int, headers: Any) -> None:
        connection = self._connection
        if self.expects_continue:
            self.keep_alive = False  # the client may or may not send the body now: what follows has no sure meaning
        out = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, connection.preamble]
        says_close = False
        for name, value in headers:
            line, kind = _header_line(name, value)
            if kind:
                if kind == "length":
                    self._has_length = True
                    self._left = int(value)
                elif kind == "close":
                    self.keep_alive = False
                    says_close = True
                else:  # framing is ours
                    continue
            out.append(line)
        if status in _WITHOUT_BODY or self._no_body:
            self._no_body = True
        elif not self._has_length:
            if self.scope["http_version"] == "1.1":
                self._chunked_response = True
                out.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # its end is the connection's end
        if not self.keep_alive and not says_close:
            out.append(b"connection: close\r\n")
        out.append(b"\r\n")
        self.started = True
        if self._has_length:
            self._head = b"".join(out)  # goes out together with the body, which is at hand
        else:
            connection.write(b"".join(out))

    def _send_body(self, body: bytes, *, last: bool) -> None:
        connection = self._connection
        if self._no_body:
            if self._head:
                connection.write(self._head)
                self._head = b""
        elif self._chunked_response:
            framed = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            if last:
                framed.append(b"0\r\n\r\n")
            if len(body) < _JOIN_BELOW_BYTES:
                connection.write(b"".join(framed))
            else:
                connection.write_parts(framed)
        else:
            if self._has_length:
                self._left -= len(body)
                if self._left < 0 or (last and self._left > 0):
                    raise RuntimeError("the response is not as long as its Content-Length says")
            if len(body) < _JOIN_BELOW_BYTES:
                connection.write(self._head + body)
            else:
                connection.write_parts([self._head, body])
            self._head = b""
        if last:
            self.complete = True
            self.tell()
            connection.response_complete(self)


def _check_header(name: bytes, value: bytes) -> tuple[bytes, str]:
    """(the header as a line, what it means for framing: "length", "close", "framing" or nothing)."""
    if not name or _NOT_IN_A_NAME.search(name) or _NOT_IN_A_VALUE.search(value):
        raise RuntimeError(f"{name!r} is no header that may be sent")
    name = name.lower()
    line = b"%b: %b\r\n" % (name, value)
    if name == b"content-length":
        return line, "length"
    if name == b"transfer-encoding":
        return line, "framing"
    if name == b"connection":
        return line, "close" if b"close" in value.lower() else "framing"
    return line, ""


_check_header_once = functools.lru_cache(maxsize=1024)(_check_header)

#: Longer values are seldom the same twice.
_REMEMBER_BELOW_BYTES = 64


def _header_line(name: bytes, value: bytes) -> tuple[bytes, str]:
    if len(value) < _REMEMBER_BELOW_BYTES and len(name) < _REMEMBER_BELOW_BYTES:
        return _check_header_once(name, value)
    return _check_header(name, value)
