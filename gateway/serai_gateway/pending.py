"""A call on its way to a daemon: what was sent, who waits for the answer, and how long already."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from serai.ipc.frames import Buffer
from serai.ipc.messages import (
    Call,
    Command,
    Commanded,
    Failure,
    Infer,
    Inferred,
    Refusal,
    Result,
    VersionSpec,
)

#: Awaited on slow calls: when it returns, the caller has left.
Gone = Callable[[], Awaitable[Any]]

Reply = Result | Failure | Refusal | Inferred | Commanded


class Pending:
    """A call on its way, or what else has a version and a deadline."""

    __slots__ = ("answer", "call", "gone", "payload", "sent_at", "spec", "was_defined_again", "watcher")

    def __init__(self, spec: VersionSpec, call: Call | Infer | Command, payload: Buffer, gone: Gone | None) -> None:
        self.spec = spec
        self.call = call
        self.payload = payload
        self.answer: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self.sent_at = time.monotonic()
        self.gone = gone
        self.watcher: asyncio.Task[None] | None = None
        self.was_defined_again = False

    def settle(self, message: Reply, payload: bytes) -> None:
        watcher, self.watcher = self.watcher, None  # its cancellation refers to us, and a cycle of those is never freed
        if watcher is not None:
            watcher.cancel()
        if not self.answer.done():
            self.answer.set_result((message, payload))
