"""What the platform refuses, and the one table that maps it to HTTP.

    PlatformError
      ├── InvalidRequest        400   malformed or out of range
      ├── Unauthenticated       401   no key, or not a key of ours
      ├── Forbidden             403   known, but not allowed
      ├── NotFound              404   unknown, or private to somebody else: the same answer
      ├── MethodNotAllowed      405
      ├── Conflict              409   exists already, or changed meanwhile
      ├── TooLarge              413   over a size limit
      ├── UnsupportedType       415   content type or encoding
      ├── Unprocessable         422   well-formed but not acceptable
      ├── TooManyRequests       429   the caller's own limit
      ├── Internal              500   our bug, always
      ├── ReplicaCrashed        502   what ran the call died
      ├── Unavailable           503   we are overloaded, stopping or not ready
      ├── DeadlineExceeded      504
      └── NoSpace               507   our disk is full

An algorithm that fails is not in this tree: that is an outcome (HTTP 200 with an error object).
"""

import math
import re
from http import HTTPStatus

import msgspec

from serai.ipc.messages import Refusal

_NOT_PRINTABLE = re.compile(rb"[^ -~]")


class PlatformError(Exception):
    """The request could not be served."""

    status = 500
    code = "internal"
    #: Algorithmia's name for it, where it has one.
    error_type = "SystemError"
    retriable = False

    def __init__(self, message: str, *, retry_after_s: float = 0.0, headers: tuple[tuple[bytes, bytes], ...] = ()):
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.headers = headers


class InvalidRequest(PlatformError):
    status, code, error_type = 400, "invalid_request", "InputError"


class Unauthenticated(PlatformError):
    status, code, error_type = 401, "unauthenticated", "AuthenticationError"


class Forbidden(PlatformError):
    status, code, error_type = 403, "forbidden", "AuthorizationError"


class NotFound(PlatformError):
    status, code, error_type = 404, "not_found", "EntityNotFoundError"


class MethodNotAllowed(PlatformError):
    status, code, error_type = 405, "method_not_allowed", "InputError"


class Conflict(PlatformError):
    status, code, error_type = 409, "conflict", "InputError"


class TooLarge(PlatformError):
    status, code, error_type = 413, "too_large", "TooLargeError"


class UnsupportedType(PlatformError):
    status, code, error_type = 415, "unsupported_type", "InputError"


class Unprocessable(PlatformError):
    status, code, error_type = 422, "unprocessable", "InputError"


class TooManyRequests(PlatformError):
    status, code, error_type, retriable = 429, "too_many_requests", "RateLimitError", True


class Internal(PlatformError):
    status, code = 500, "internal"


class ReplicaCrashed(PlatformError):
    status, code, retriable = 502, "crashed", True


class Unavailable(PlatformError):
    status, code, retriable = 503, "unavailable", True


class DeadlineExceeded(PlatformError):
    status, code, error_type = 504, "deadline_exceeded", "TimeoutError"


class NoSpace(PlatformError):
    status, code = 507, "no_space"


#: How a daemon's refusal reads over HTTP.
_OF_REFUSAL: dict[str, type[PlatformError]] = {
    "busy": Unavailable,
    "draining": Unavailable,
    "unavailable": Unavailable,
    "deadline": DeadlineExceeded,
    "crashed": ReplicaCrashed,
    "invalid": InvalidRequest,
    "too_large": TooLarge,
}


def of_refusal(refusal: Refusal) -> PlatformError:
    error = _OF_REFUSAL[refusal.code](refusal.message, retry_after_s=refusal.retry_after_s)
    error.retriable = refusal.retriable
    return error


def error_object(
    *, message: str, code: str, error_type: str, status: int, retriable: bool, request_id: str
) -> dict[str, object]:
    """What every error of the platform says: message, what kind, whether to retry, and the id to quote."""
    return {
        "message": message,
        "code": code,
        "type": HTTPStatus(status).phrase,
        "error_type": error_type,
        "status": status,
        "retriable": retriable,
        "request_id": request_id,
    }


def describe(error: PlatformError, request_id: str) -> dict[str, object]:
    return error_object(
        message=error.message,
        code=error.code,
        error_type=error.error_type,
        status=error.status,
        retriable=error.retriable,
        request_id=request_id,
    )


def error_body(error: PlatformError, request_id: str) -> bytes:
    """The JSON of a platform error, as the body of an answer."""
    return msgspec.json.encode({"error": describe(error, request_id)})


def error_headers(error: PlatformError, request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode()), *error.headers]
    if error.status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Simple realm="serai"'))
    # Clients of the data API and Node's GET read the text from here.
    headers.append((b"x-error-message", _NOT_PRINTABLE.sub(b"?", error.message.encode("ascii", "replace"))[:500]))
    return headers
