"""Logs of versions, as the runner host sends them: a question, then lines until their end or until nobody asks."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

from serai.ipc.frames import MAX_HEADER_BYTES
from serai.ipc.messages import Cancel, Define, Logged, ReadLog, VersionSpec, encode
from serai_gateway.errors import Unavailable
from serai_runner.logs.entries import Entry, encode_entry, last_time

#: Ids of questions begin above those of calls, which share the connection and its `Cancel`.
_FIRST_ID = 1 << 40

#: Lines that may wait here for a reader; who is slower than a log grows is cut, and asks again with what it has.
#: Twice what one question is answered with.
MAX_WAITING_BYTES = 2 << 20

_CUT = "this reader was too slow and is cut off here: ask again for what came since"


class LogStream:
    """The answer to one question. Close it, whatever happens."""

    def __init__(self, number: int, feed: "LogFeed") -> None:
        self._number = number
        self._feed = feed
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._has_ended = False
        self._news = asyncio.Event()
        self.was_lost = False  # it ended because the runner host did

    async def read(self) -> bytes | None:
        """What has come since, whole lines, perhaps none; None: it has ended."""
        while not self._lines and not self._has_ended:
            self._news.clear()
            await self._news.wait()
        if not self._lines:
            return None
        lines = b"".join(self._lines)
        self._lines.clear()
        self._waiting_bytes = 0
        return lines

    def close(self) -> None:
        self._feed.forget(self._number, is_over=self._has_ended)
        self._has_ended = True

    # The feed's side

    def put(self, lines: bytes, *, is_end: bool) -> None:
        if self._waiting_bytes > MAX_WAITING_BYTES:
            # With the time of the last line that it gets: who asks again for what came since then, misses nothing.
            lines = encode_entry(Entry(last_time(self._lines[-1]), "cut", text=_CUT)) + b"\n"
            self._feed.forget(self._number, is_over=is_end)
            is_end = True
        if lines or not is_end:
            self._lines.append(lines)
            self._waiting_bytes += len(lines)
        self._has_ended = self._has_ended or is_end
        self._news.set()


class LogFeed:
    """The open questions on one link.

    Args:
        send: sends a frame without payload; False when there is no connection.
    """

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        self._send = send
        self._streams: dict[int, LogStream] = {}
        self._ids = itertools.count(_FIRST_ID)

    def ask(self, spec: VersionSpec, tail: int, *, follow: bool) -> LogStream:
        """The newest `tail` lines of a version, and with `follow` all that come after.

        Raises:
            Unavailable: the runner host is not there.
        """
        number = next(self._ids)
        definition = encode(Define(spec))
        if len(definition) <= MAX_HEADER_BYTES:  # else it never ran; the answer is empty
            self._send(definition)
        if not self._send(encode(ReadLog(number, spec.key, tail, follow))):
            raise Unavailable("the runner host is not there; it is being restarted", retry_after_s=1.0)
        stream = self._streams[number] = LogStream(number, self)
        return stream

    def on_logged(self, message: Logged, lines: bytes) -> None:
        stream = self._streams.get(message.id)
        if stream is None:  # late: nobody asks any more
            return
        if message.is_end:
            del self._streams[message.id]
        stream.put(lines, is_end=message.is_end)

    def on_lost(self) -> None:
        """The connection has gone: what came so far is all."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.was_lost = True
            stream.put(b"", is_end=True)

    def forget(self, number: int, *, is_over: bool) -> None:
        if self._streams.pop(number, None) is not None and not is_over:
            self._send(encode(Cancel(number)))
