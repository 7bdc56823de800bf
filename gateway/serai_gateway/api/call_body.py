"""The input of a call: read within its limit, and checked for what it says it is."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serai.ipc.messages import ContentType
from serai_gateway.errors import InvalidRequest, TooLarge
from serai_gateway.pending import CallerGone
from serai_gateway.settings import MAX_BODY_BYTES
from serai_gateway.strict_json import LARGE_BYTES, NotJson, check_json

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def read_body(receive: Receive) -> bytes:
    """Raises TooLarge, and CallerGone when it is broken off."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _checked_size(body)
    parts, num_bytes = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        parts.append(message.get("body", b""))
        num_bytes += len(parts[-1])
        if num_bytes > MAX_BODY_BYTES:
            break
    return _checked_size(b"".join(parts))


def _checked_size(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes (10 MiB); send a smaller input")
    return body


async def check_input(body: bytes, content_type: ContentType, *, grammar_only: bool) -> None:
    """Raises InvalidRequest for JSON or text that is none. `grammar_only`: who runs it reads every number itself."""
    try:
        if content_type == "json":
            if len(body) < LARGE_BYTES:
                check_json(body, grammar_only=grammar_only)
            else:
                await asyncio.to_thread(check_json, body)
        elif content_type == "text":
            body.decode()
    except NotJson as error:
        hint = "; put a string in quotes, or send it as text/plain" if body[:1].isalpha() else ""
        raise InvalidRequest(f"invalid JSON: {error}{hint}") from error
    except UnicodeDecodeError as error:
        message = f"the body is declared text but is not UTF-8 (byte {error.start}); send application/octet-stream"
        raise InvalidRequest(message) from error
