"""What the host itself answers to a box that speaks HTTP, in the form that all errors of the platform have."""

import json
import uuid

#: Connections of one box at once: the 24 calls that one may have running, and some that clients keep for later.
MAX_CONNECTIONS = 32


class Refusal:
    """What we answer ourselves, in the form of the platform's errors."""

    def __init__(self, status: int, phrase: str, code: str, error_type: str, message: str, *, retriable: bool) -> None:
        self._line = f"HTTP/1.1 {status} {phrase}"
        self._more = "\r\nretry-after: 1" if status == 503 else ""
        self._error = {
            "message": message,
            "code": code,
            "type": phrase,
            "error_type": error_type,
            "status": status,
            "retriable": retriable,
        }

    def encode(self) -> bytes:
        request_id = f"req-{uuid.uuid4()}"
        body = json.dumps({"error": {**self._error, "request_id": request_id}}).encode()
        head = (
            f"{self._line}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nx-error-message: {self._error['message']}{self._more}\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + body


NO_CALL = Refusal(
    401,
    "Unauthorized",
    "unauthenticated",
    "AuthenticationError",
    "no call is running, so there is nobody in whose name to ask: call others from apply(), not while loading or after",
    retriable=False,
)
TOO_MANY = Refusal(
    503,
    "Service Unavailable",
    "too_many_connections",
    "SystemError",
    f"over {MAX_CONNECTIONS} connections from one replica: close some, or share one client between threads",
    retriable=True,
)
NO_GATEWAY = Refusal(
    503,
    "Service Unavailable",
    "unavailable",
    "SystemError",
    "the gateway is not there; it is being restarted",
    retriable=True,
)
