"""Answers of the protocol as HTTP: JSON, perhaps followed by raw bytes; errors as {"error": "…"}."""

from dataclasses import dataclass
from typing import Any

import msgspec

from serai.ipc.frames import Buffer
from serai_gateway.api.calls import Send
from serai_gateway.errors import PlatformError, error_headers

_JSON = b"application/json"

#: Smaller answers go out as one piece.
_JOIN_BELOW_BYTES = 16 * 1024
#: Larger ones are on their caller's account until they are read. As `bodies.ALWAYS_BYTES`: below, nobody is refused.
_LARGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a JSON text and what follows it."""

    status: int
    body: bytes
    binary: Buffer | None = None
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(value), headers=((b"cache-control", b"no-store"),))


def error_answer(error: PlatformError, request_id: str) -> Answer:
    headers = [pair for pair in error_headers(error, request_id) if pair[0] not in (b"content-type", b"x-request-id")]
    return Answer(error.status, msgspec.json.encode({"error": error.message}), headers=tuple(headers))


async def send_answer(send: Send, answer: Answer, request_id: str) -> None:
    """Returns when the caller has read all of a large answer, next to nothing excepted."""
    body, binary = answer.body, answer.binary
    if binary is not None and len(binary) < _JOIN_BELOW_BYTES:
        body, binary = b"".join((body, binary)), None
    num_bytes = len(body) + (0 if binary is None else len(binary))
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % num_bytes),
        (b"x-request-id", request_id.encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    is_large = num_bytes >= _LARGE_BYTES
    await send({"type": "http.response.body", "body": body, "more_body": binary is not None or is_large})
    if binary is not None:
        await send({"type": "http.response.body", "body": binary, "more_body": is_large})
    if is_large:  # the server takes the last piece when the caller has read those before it: that is what we wait for
        await send({"type": "http.response.body", "body": b""})
