"""What an algorithm yields: sent one by one to a caller who wants that, else collected into a JSON array."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from serai import _wire
from serai_runner.inside import coroutines, errors, values
from serai_runner.inside.inbox import Inbox, Running, SharedInbox

if TYPE_CHECKING:
    from serai_runner.inside.native import Replica

#: Reports of progress are for people: more than this many a second are left out.
_MAX_REPORTS_PER_S = 20.0
_MAX_TEXT_BYTES = 1000


class Cancelled(BaseException):
    """The caller has left."""


class Caller:
    """The caller of a call that streams."""

    def __init__(self, replica: Replica, inbox: Inbox | SharedInbox, running: Running) -> None:
        self._replica = replica
        self._inbox = inbox
        self._running = running
        self._next_report = 0.0
        self._is_done = False

    def send(self, item: Any) -> None:
        """Raises Cancelled, or values.ResultRefused for what cannot be sent."""
        kind, body = values.encode_result(item)
        if not self._inbox.await_room(self._running):
            raise Cancelled
        self._running.sent(len(body))
        self._replica.send([_wire.ITEM, self._running.id, kind], body)

    def report(self, fraction: float, text: str, now: float) -> None:
        if now < self._next_report and (fraction < 1.0 or self._is_done):
            return
        self._is_done = fraction >= 1.0  # which is told at once, and once
        self._next_report = now + 1 / _MAX_REPORTS_PER_S
        self._replica.send([_wire.PROGRESS, self._running.id, fraction, errors.clip(text, _MAX_TEXT_BYTES)])


def consume(generator: Any, caller: Caller | None) -> tuple[str, bytes | memoryview]:
    """Run the generator to its end. Raises what it raises, and values.ResultRefused."""
    things = coroutines.iterate(generator) if isinstance(generator, types.AsyncGeneratorType) else generator
    try:
        if caller is None:
            return "json", _collect(things)
        for item in things:
            caller.send(item)
        return "void", b""
    finally:
        things.close()  # pyright: ignore[reportAttributeAccessIssue]  # generators, both


def _collect(things: Iterable[Any]) -> bytes:
    """The items as one JSON array, given up as soon as it is too large: a generator may never end."""
    parts, num_bytes = [], 2
    for item in things:
        if isinstance(item, (bytes, bytearray, memoryview)):
            raise values.ResultRefused("it yields bytes, which JSON has none of: call it as a stream")
        part = values.encode_json(item)
        num_bytes += len(part) + 1
        if num_bytes > values.MAX_RESULT_BYTES:
            raise values.ResultTooLarge(f"it yields more than {values.MAX_RESULT_BYTES} bytes: call it as a stream")
        parts.append(part)
    return b"[" + b",".join(parts) + b"]"
