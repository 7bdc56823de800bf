"""What can go wrong when you call Serai.

    SeraiError
      ├── AlgorithmError          the algorithm ran and failed: error_type, message, stacktrace
      ├── ConnectionFailed        no answer; `maybe_sent` says whether the call may have run all the same
      ├── BadAnswer               an answer came, but not one of Serai's
      ├── SettingsError           address, key or profile are missing or malformed
      ├── FolderError             a folder that cannot be published
      └── ApiError                the platform refused: status, code, number, message, request_id, retriable
            ├── InvalidRequest    400, 405, 415, 422
            ├── Unauthorized      401   no key, or not one of this server's
            ├── PaymentRequired   402   out of credit
            ├── Forbidden         403
            ├── NotFound          404   unknown, or private to somebody else
            ├── Conflict          409
            ├── TooLarge          413   over a size limit
            ├── RateLimited       429   your own limit: wait `retry_after_s`
            ├── ServerFault       500, 502 and other 5xx
            ├── Unavailable       503   the server's limit: wait `retry_after_s`
            └── DeadlineExceeded  504   the call's timeout passed

Catch broadly (`SeraiError`) or narrowly (`RateLimited`). Standard library only: algorithms may use these too.
Every one can be made from its message alone, so that they cross between processes.
"""

from __future__ import annotations

__all__ = [
    "AlgorithmError",
    "ApiError",
    "BadAnswer",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "FolderError",
    "Forbidden",
    "InvalidRequest",
    "NotFound",
    "PaymentRequired",
    "RateLimited",
    "SeraiError",
    "ServerFault",
    "SettingsError",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
]


class SeraiError(Exception):
    """Anything that this package raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AlgorithmError(SeraiError):
    """The algorithm ran and failed. Inside an algorithm, raise it to choose the `error_type` your callers see."""

    def __init__(
        self,
        message: str,
        error_type: str = "AlgorithmError",
        stacktrace: str = "",
        *,
        duration: float = 0.0,
        stdout: str | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stacktrace = stacktrace
        self.duration = duration  # seconds inside the algorithm
        self.stdout = stdout
        self.request_id = request_id


class ConnectionFailed(SeraiError):
    """No answer came.

    `maybe_sent` is False when the request certainly never left, so sending it again is safe.
    """

    def __init__(self, message: str, *, maybe_sent: bool = True) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class BadAnswer(SeraiError):
    """Something answered at this address, but not as a Serai does."""


class SettingsError(SeraiError):
    """Address, key or profile are missing or malformed."""


class FolderError(SeraiError):
    """This folder cannot be published."""


class ApiError(SeraiError):
    """The platform refused the request. With a `status` of 0 it was not even asked: what it said before is enough."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        retriable: bool = False,
        retry_after_s: float | None = None,
        number: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code  # a word: not_found
        self.number = number  # the management API's, as Algorithmia counted them: 1014
        self.request_id = request_id
        self.retriable = retriable
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.code or 'HTTP'} {self.status})" if self.status else self.message


class InvalidRequest(ApiError):
    """The server could not accept the request as it was written."""


class Unauthorized(ApiError):
    """No key was sent, or not one of this server's."""


class PaymentRequired(ApiError):
    """The account is out of credit."""


class Forbidden(ApiError):
    """The key is known but may not do this."""


class NotFound(ApiError):
    """Unknown, or private to somebody else."""


class Conflict(ApiError):
    """It exists already, or changed meanwhile."""


class TooLarge(ApiError):
    """Over a size limit of the server."""


class RateLimited(ApiError):
    """Over your own limit; wait `retry_after_s` seconds."""


class ServerFault(ApiError):
    """Something broke on the server's side."""


class Unavailable(ApiError):
    """The server is overloaded, stopping or not ready; wait `retry_after_s` seconds."""


class DeadlineExceeded(ApiError):
    """The call's timeout passed, or could not have been met."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: RateLimited,
    503: Unavailable,
    504: DeadlineExceeded,
}


def class_of_status(status: int) -> type[ApiError]:
    """The narrowest class for an HTTP status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 400 <= status < 500:
        return InvalidRequest
    return ServerFault if status >= 500 else ApiError
