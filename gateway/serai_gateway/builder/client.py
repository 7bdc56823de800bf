"""The way to the builder, for gateway workers: requests go out, lines of logs and ends come back by id."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from serai.ipc.link import Link
from serai_gateway.builder.messages import Compile, Ended, FirstParty, Publish, Push, Release, Said, decode, encode
from serai_gateway.catalogue import Account, Algorithm

#: How long a request waits for the builder to be there: a killed one is back within a second.
CONNECT_WAIT_S = 5.0

_GONE = "the builder was restarted with the build in it: push or publish again"
_NOT_THERE = "the builder is not there; it is being restarted: try again"

Event = Said | Ended


def socket_path(home: Path) -> Path:
    return home / "run" / "builder.sock"


class BuilderClient:
    """`start` it on the loop that uses it."""

    def __init__(self, home: Path) -> None:
        self._link = Link(socket_path(home), self._on_frame, lambda: None, self._on_lost)
        self._inboxes: dict[int, asyncio.Queue[Event]] = {}
        self._next_id = 0

    def start(self) -> None:
        self._link.start()

    async def close(self) -> None:
        await self._link.close()

    def push(
        self, algorithm: Algorithm, account: Account, commit: str, expected: str, quarantine: str
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Build what is pushed. Its algorithm's turn is kept until the context is left."""
        return self._ask(Push(self._number(), algorithm.id, account.name, commit, expected, quarantine))

    def publish(
        self, account: Account, folder: Path, *, public: bool
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Build and publish the `archive` in `folder`, which the builder removes. Goes on if nobody listens."""
        return self._ask(Publish(self._number(), account.name, str(folder), public))

    async def compile(self, algorithm: Algorithm, account: Account) -> Ended:
        """Build the head; returns when that has ended."""
        async with self._ask(Compile(self._number(), algorithm.id, account.name)) as events:
            async for event in events:
                if isinstance(event, Ended):
                    return event
        raise AssertionError("a request ends with its end")

    def first_party(self) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._ask(FirstParty(self._number()), wait_s=60.0)

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id

    @contextlib.asynccontextmanager
    async def _ask(
        self, message: Push | Publish | Compile | FirstParty, wait_s: float = CONNECT_WAIT_S
    ) -> AsyncIterator[AsyncIterator[Event]]:
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._inboxes[message.id] = inbox
        try:
            if not (await self._link.wait_open(wait_s) and self._link.send(encode(message))):
                inbox.put_nowait(Ended(message.id, "busy", _NOT_THERE))
            yield _until_end(inbox)
        finally:
            del self._inboxes[message.id]
            if isinstance(message, Push):
                self._link.send(encode(Release(message.id)))

    def _on_frame(self, header: bytes, payload: bytes) -> None:
        message: Any = decode(header)
        inbox = self._inboxes.get(message.id)
        if inbox is not None and isinstance(message, Said | Ended):
            inbox.put_nowait(message)

    def _on_lost(self) -> None:
        for number, inbox in self._inboxes.items():
            inbox.put_nowait(Ended(number, "busy", _GONE))


async def _until_end(inbox: "asyncio.Queue[Event]") -> AsyncIterator[Event]:
    while True:
        event = await inbox.get()
        yield event
        if isinstance(event, Ended):
            return
