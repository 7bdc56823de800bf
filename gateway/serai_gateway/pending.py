"""A call on its way to a daemon: what was sent, who waits for the answer, how long already, and what came before it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serai.ipc.frames import Buffer
from serai.ipc.messages import (
    WINDOW,
    WINDOW_BYTES,
    Call,
    Command,
    Commanded,
    Failure,
    Infer,
    Inferred,
    Item,
    Progress,
    Refusal,
    Result,
    VersionSpec,
    Waiting,
)
from serai.ipc.secrets import NO_SECRETS, Secrets

#: Awaited on slow calls: when it returns, the caller has left.
Gone = Callable[[], Awaitable[Any]]

Reply = Result | Failure | Refusal | Inferred | Commanded

#: What comes before the reply to a call with `wants_items`.
Event = Item | Progress | Waiting

#: Written items are acknowledged from this many, or this many bytes, on: early enough that the replica never has to
#: wait for a reader that keeps up, seldom enough that short items cost no frame each.
_ACKNOWLEDGED_ITEMS = WINDOW // 2
_ACKNOWLEDGED_BYTES = WINDOW_BYTES // 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What a daemon is told of a call beside its input, and who waits for it."""

    deadline: float  # time.monotonic()
    call_id: str
    payer: str
    wants_stdout: bool = False
    root: str = ""  # as in `Call`
    depth: int = 0
    gone: Gone | None = None
    secrets: Secrets = NO_SECRETS  # of the algorithm, for its replicas
    only_load: bool = False  # as in `Call`


class CallerGone(Exception):
    """The caller closed the connection: nobody is left to answer."""


class Inbox:
    """The events of one call between their arrival and their writing: at most a window of items, the latest news.

    (1) An item stays until it is taken; it counts until it is acknowledged.
    (2) Of progress and waiting, what was said before and not taken since the last item is out of date, and is dropped.
    """

    __slots__ = ("_bytes_held", "_bytes_taken", "_events", "_num_held", "_num_taken", "_taken")

    def __init__(self) -> None:
        self._events: deque[tuple[Event, bytes]] = deque()
        self._num_held = self._bytes_held = 0  # items that came and are not acknowledged
        self._num_taken = self._bytes_taken = 0  # of those, written
        self._taken = -1  # bytes of the item that is being written; -1: none is

    def put(self, event: Event, payload: bytes) -> bool:
        """False: the sender does not keep to the window, and nothing more should be taken from it."""
        if isinstance(event, Item):  # (1)
            if self._num_held >= WINDOW or (self._num_held and self._bytes_held >= WINDOW_BYTES):
                return False
            self._num_held += 1
            self._bytes_held += len(payload)
        else:  # (2)
            self._drop_outdated(type(event))
        self._events.append((event, payload))
        return True

    def take(self) -> tuple[Event, bytes] | None:
        if not self._events:
            return None
        event, payload = self._events.popleft()
        if isinstance(event, Item):
            self._taken = len(payload)
        return event, payload

    def acknowledge(self) -> int:
        """Say that what was taken has been written; how many items the sender should be told of now."""
        if self._taken >= 0:
            self._num_taken += 1
            self._bytes_taken += self._taken
            self._taken = -1
        if self._num_taken < _ACKNOWLEDGED_ITEMS and self._bytes_taken < _ACKNOWLEDGED_BYTES:
            return 0
        num_items = self._num_taken
        self._num_held -= num_items
        self._bytes_held -= self._bytes_taken
        self._num_taken = self._bytes_taken = 0
        return num_items

    def _drop_outdated(self, kind: type[Event]) -> None:
        for at in range(len(self._events) - 1, -1, -1):
            event = self._events[at][0]
            if isinstance(event, Item):
                return
            if isinstance(event, kind):
                del self._events[at]
                return


class Pending:
    """A call on its way, or what else has a version and a deadline."""

    __slots__ = (
        "answer",
        "call",
        "gone",
        "inbox",
        "news",
        "payload",
        "secrets",
        "sent_at",
        "spec",
        "was_defined_again",
        "watcher",
    )

    def __init__(
        self,
        spec: VersionSpec,
        call: Call | Infer | Command,
        payload: Buffer,
        gone: Gone | None,
        secrets: Secrets = NO_SECRETS,
    ) -> None:
        self.spec = spec
        self.secrets = secrets
        self.call = call
        self.payload = payload
        self.answer: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self.sent_at = 0.0  # time.monotonic() when it was sent
        self.gone = gone
        self.inbox: Inbox | None = None  # only for who wants items
        self.news: asyncio.Event | None = None
        self.watcher: asyncio.Task[None] | None = None
        self.was_defined_again = False

    def settle(self, message: Reply, payload: bytes) -> None:
        watcher, self.watcher = self.watcher, None  # its cancellation refers to us, and a cycle of those is never freed
        if watcher is not None:
            watcher.cancel()
        if not self.answer.done():
            self.answer.set_result((message, payload))
            self.tell()

    def tell(self) -> None:
        """There is something new for who reads the stream."""
        if self.news is not None:
            self.news.set()

    def abandon(self) -> None:
        """The caller has gone. Not an exception: its traceback would refer to us, and we to it."""
        self.settle(_GONE, b"")

    async def reply(self) -> tuple[Any, bytes]:
        """Raises CallerGone when the caller left before there was one."""
        message, payload = await self.answer
        if message is _GONE:
            raise CallerGone
        return message, payload


#: Takes the place of a reply that nobody waits for any more.
_GONE = Refusal(0, "crashed", "the caller has gone")


class CallStream:
    """What a call with `wants_items` sends until it ends, for one reader.

    Asking for the next event says that the one before has been written: that is what the sender waits for.
    """

    def __init__(self, pending: Pending, acknowledge: Callable[[int], None]) -> None:
        self._pending = pending
        self._acknowledge = acknowledge
        self._inbox = pending.inbox = Inbox()
        self._news = pending.news = asyncio.Event()

    async def next(self, quiet_s: float) -> tuple[Event | Reply, bytes] | None:
        """The next event, or the reply, which is the last; None: for `quiet_s` there was nothing.

        Raises CallerGone as soon as the caller has left, whatever lies here.
        """
        num_items = self._inbox.acknowledge()
        if num_items and not self._pending.answer.done():
            self._acknowledge(num_items)
        found = await self._look()
        if found is not None:
            return found
        self._news.clear()
        try:
            async with asyncio.timeout(quiet_s):
                await self._news.wait()
        except TimeoutError:
            return None
        return await self._look()

    async def _look(self) -> tuple[Event | Reply, bytes] | None:
        reply = await self._pending.reply() if self._pending.answer.done() else None
        return self._inbox.take() or reply
