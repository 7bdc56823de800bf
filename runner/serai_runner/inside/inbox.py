"""What the host sends a replica, sorted: calls for whoever is free, the rest for the call that it speaks of."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from serai import _wire

Frame = tuple[list[Any], bytes]


class Running:
    """A call that streams, as others may speak to it."""

    def __init__(self, call_id: int) -> None:
        self.id = call_id
        self._on_their_way: deque[int] = deque()  # sizes of items that the caller has not taken
        self.is_cancelled = False
        self.interrupt: Callable[[], None] | None = None  # what stops it from another thread
        self.changed = threading.Condition()

    def take(self, header: list[Any]) -> None:
        with self.changed:
            if header[0] == _wire.MORE:
                for _ in range(min(header[2], len(self._on_their_way))):
                    self._on_their_way.popleft()
            else:
                self.is_cancelled = True
            self.changed.notify()
        if self.is_cancelled and self.interrupt is not None:
            self.interrupt()

    def sent(self, num_bytes: int) -> None:
        with self.changed:
            self._on_their_way.append(num_bytes)

    @property
    def has_room(self) -> bool:
        num = len(self._on_their_way)
        return num == 0 or (num < _wire.WINDOW and sum(self._on_their_way) < _wire.WINDOW_BYTES)


class Inbox:
    """For one thread: it reads when it needs something. Nobody reads while the author's code runs, so the host kills
    a replica whose call was cancelled."""

    def __init__(self, reader: _wire.FrameReader) -> None:
        self._read = reader.read
        self._early: deque[Frame] = deque()  # calls that came while another streamed

    def next_call(self) -> Frame | None:
        """None when the host has closed."""
        if self._early:
            return self._early.popleft()
        read = self._read
        while True:
            frame = read()
            if frame is None or frame[0][0] == _wire.CALL:
                return frame
            # else: it speaks of a call that has been answered

    def begin(self, call_id: int, streams: bool) -> Running | None:
        """None: nobody can say anything to this call."""
        return Running(call_id) if streams else None

    def end(self, running: Running | None) -> None:
        pass  # nobody else knows it

    def await_room(self, running: Running) -> bool:
        """Wait until another item may be sent; False: the caller does not want any more."""
        while not running.has_room and not running.is_cancelled:
            frame = self._read()
            if frame is None:
                running.is_cancelled = True
            elif frame[0][0] == _wire.CALL:
                self._early.append(frame)
            elif frame[0][1] == running.id:
                running.take(frame[0])
        return not running.is_cancelled


class SharedInbox:
    """For several threads: one of its own reads for all (`read_all`), so a cancellation reaches a call at once."""

    def __init__(self, reader: _wire.FrameReader) -> None:
        self._read = reader.read
        self._calls: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()

    def read_all(self, num_threads: int) -> None:
        """Until the host closes. Runs in the main thread, the others take calls."""
        while (frame := self._read()) is not None:
            if frame[0][0] == _wire.CALL:
                self._calls.put(frame)
                continue
            with self._lock:
                running = self._running.get(frame[0][1])
            if running is not None:
                running.take(frame[0])
        for _ in range(num_threads):
            self._calls.put(None)

    def next_call(self) -> Frame | None:
        return self._calls.get()

    def begin(self, call_id: int, streams: bool) -> Running | None:
        running = Running(call_id)
        with self._lock:
            self._running[call_id] = running
        return running

    def end(self, running: Running | None) -> None:
        assert running is not None, "every call of this inbox is one"
        with self._lock:
            self._running.pop(running.id, None)

    def await_room(self, running: Running) -> bool:
        with running.changed:
            running.changed.wait_for(lambda: running.has_room or running.is_cancelled)
        return not running.is_cancelled
