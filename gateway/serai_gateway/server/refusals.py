"""What the server itself says no to, before any application is asked: one class, one JSON form."""

import http
import json

from serai_gateway.errors import error_object
from serai_gateway.request_id import new_request_id

#: Algorithmia's name of what went wrong, where it has one.
_ERROR_TYPES = {408: "TimeoutError", 413: "TooLargeError", 414: "TooLargeError", 431: "TooLargeError"}
_ERROR_TYPES_BY_CLASS = {4: "InputError", 5: "SystemError"}

#: Seconds after which a client that met a full server may come back. A guess: connections turn over within it.
RETRY_AFTER_S = 1


class Refused(Exception):
    """A request that is answered with an error and ends its connection.

    Args:
        status: HTTP status.
        code: stable name of the rule that was broken, for programs and metrics.
        message: for people; names the limit and the way out, never anything internal.
        retriable: the same request may succeed later.
    """

    def __init__(self, status: int, code: str, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retriable = retriable


def malformed(code: str, message: str) -> Refused:
    """A 400: the bytes are no request that has one meaning."""
    return Refused(400, code, message)


def body_too_large(limit: int) -> Refused:
    message = f"the body is over {limit} bytes ({limit / (1 << 20):g} MiB), the limit here: send less"
    return Refused(413, "body_too_large", message)


def response_bytes(refused: Refused, preamble: bytes) -> bytes:
    """A whole HTTP response with the JSON that every error of the platform has.

    Args:
        preamble: header lines that every response has, each with its CRLF.
    """
    phrase = http.HTTPStatus(refused.status).phrase
    request_id = new_request_id()
    error = error_object(
        message=refused.message,
        code=refused.code,
        error_type=_ERROR_TYPES.get(refused.status) or _ERROR_TYPES_BY_CLASS[refused.status // 100],
        status=refused.status,
        retriable=refused.retriable,
        request_id=request_id,
    )
    body = json.dumps({"error": error}).encode()
    lines = [
        f"content-type: application/json\r\ncontent-length: {len(body)}",
        f"x-request-id: {request_id}\r\nx-error-message: {refused.message}",
    ]
    if refused.status == 503:
        lines.append(f"retry-after: {RETRY_AFTER_S}")
    head = "\r\n".join((*lines, "connection: close\r\n\r\n"))
    return b"".join((f"HTTP/1.1 {refused.status} {phrase}\r\n".encode(), preamble, head.encode("ascii"), body))
