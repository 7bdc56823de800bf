"""A call's answer as server-sent events: why it waits, how far it is, what it yields, and how it ends.

    event: waiting     {"state": "queued" | "starting", "position": 3, "estimate_s": 0.4 | null}
    event: progress    {"fraction": 0.25 | null, "text": "…"}
    event: item        the item, as JSON; a text as a JSON string
    event: binary      an item of bytes: a JSON string with its base64
    event: result      the last: the body that a call without events is answered with, and `metadata.num_items`
    event: error       or this: the body of its error

The data of an event is one line of JSON. A comment comes after each 15 s of silence. Nothing is sent before the first
event, so what is refused before it begins is an ordinary error of HTTP.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

import msgspec

from serai.ipc.messages import Failure, Item, Progress, Result, Waiting
from serai_gateway.pending import CallStream, Reply
from serai_gateway.settings import MAX_BODY_BYTES
from serai_gateway.strict_json import LARGE_BYTES, NotJson, check_json

Headers = list[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONTENT_TYPE = b"text/event-stream; charset=utf-8"

#: A sign of life so often. Proxies give a silent answer up after 30 to 60 s.
QUIET_S = 15.0

#: How many values of `Accept` are remembered; callers repeat themselves.
_REMEMBERED = 512

_encode = msgspec.json.encode


class BrokenItem(Exception):
    """What the algorithm yielded is not what it says it is, or too large."""

    def __init__(self, message: str, error_type: str = "AlgorithmError") -> None:
        super().__init__(message)
        self.error_type = error_type

    def as_failure(self) -> Failure:
        return Failure(0, self.error_type, str(self))


def is_wanted(headers: Headers) -> bool:
    """Whether `Accept` names text/event-stream. `*/*` does not: who does not ask for events gets one answer."""
    return any(name == b"accept" and _names_events(value) for name, value in headers)


@lru_cache(_REMEMBERED)
def _names_events(accept: bytes) -> bool:
    for entry in accept.lower().split(b","):
        kind, *parameters = (part.strip() for part in entry.split(b";"))
        if kind == b"text/event-stream":
            return not any(part.replace(b" ", b"").rstrip(b"0.") == b"q=" for part in parameters)
    return False


class EventWriter:
    """Writes events to one caller; the answer begins with the first of them."""

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = headers
        self.has_begun = False
        self.num_items = 0

    async def write(self, name: str, data: bytes, *, is_last: bool = False) -> None:
        """Returns when the caller has read all but what lies in a few buffers."""
        await self._write(b"event: %b\ndata: %b\n\n" % (name.encode(), data), is_last)

    async def write_comment(self) -> None:
        await self._write(b": still here\n\n", False)

    async def write_item(self, item: Item, payload: bytes) -> None:
        """Raises BrokenItem."""
        num_bytes = len(payload)
        if num_bytes > MAX_BODY_BYTES:
            text = f"an item has {num_bytes} bytes, over the limit of {MAX_BODY_BYTES} (10 MiB); yield less at once"
            raise BrokenItem(text, "TooLargeError")
        data = (
            item_data(item, payload) if num_bytes < LARGE_BYTES else await asyncio.to_thread(item_data, item, payload)
        )
        self.num_items += 1
        await self.write("binary" if item.content_type == "binary" else "item", data)

    async def _write(self, data: bytes, is_last: bool) -> None:
        if not self.has_begun:
            self.has_begun = True
            headers = [
                (b"content-type", CONTENT_TYPE),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),  # nginx would hand events on in large pieces
                *self._headers,
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})


async def write_events(stream: CallStream, writer: EventWriter, quiet_s: float = QUIET_S) -> tuple[Reply, bytes]:
    """Write all that comes before the end, and return the end.

    Raises:
        BrokenItem: an item is not what it says it is.
        CallerGone: nobody reads any more.
    """
    while True:
        news = await stream.next(quiet_s)
        if news is None:
            await writer.write_comment()
            continue
        message, payload = news
        if isinstance(message, Item):
            await writer.write_item(message, payload)
        elif isinstance(message, Progress):
            fraction = min(message.fraction, 1.0) if message.fraction >= 0 else None  # NaN is not
            await writer.write("progress", _encode({"fraction": fraction, "text": message.text}))
        elif isinstance(message, Waiting):
            estimate_s = round(message.estimate_s, 3) if message.estimate_s > 0 else None
            await writer.write(
                "waiting",
                _encode({"state": message.state, "position": message.position, "estimate_s": estimate_s}),
            )
        else:
            return message, payload


def item_data(item: Item, payload: bytes) -> bytes:
    """The item as one line of JSON. Raises BrokenItem."""
    kind = item.content_type
    try:
        if kind == "json":
            check_json(payload)
            return _one_line(payload)
        if kind == "text":
            return _encode(payload.decode())
    except NotJson as error:
        raise BrokenItem(f"item is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise BrokenItem("item is not UTF-8 text; yield bytes for binary data") from error
    return b'"%b"' % base64.b64encode(payload) if kind == "binary" else b"null"


def with_num_items(envelope: bytes, message: Result | Failure, num_items: int) -> bytes:
    """The same envelope in one line, whose metadata, at its end, says how many items came before a result."""
    if isinstance(message, Failure):
        return envelope
    assert envelope.endswith(b"}}"), "metadata is the last thing in it"
    return b'%b,"num_items":%d}}' % (_one_line(envelope[:-2]), num_items)


def _one_line(json: bytes) -> bytes:
    """In JSON these stand between values only."""
    return json.replace(b"\r", b" ").replace(b"\n", b" ")
