"""What authors may read of their versions: one bounded log each, on disk across restarts, followed while it grows.

Owned by the host's one loop. Nothing here waits: lines are kept in memory until `flush`, which the host calls every
`FLUSH_S` while there is something to write. A version that logs nothing costs nothing; one that is silent again is
forgotten, and its file remembers.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from serai_runner.logs.entries import (
    MAX_TRACE_CHARACTERS,
    NEVER,
    Clock,
    Entry,
    clean_text,
    clean_word,
    encode_entry,
    is_time,
    omitted_text,
    split_output,
    time_of,
)
from serai_runner.logs.file import LogFile, sweep

#: Between two writes. Short enough that a crash of the host loses next to nothing, long enough that a version that
#: prints with each of a thousand calls a second costs five writes.
FLUSH_S = 0.2
#: Of one file; a version has two.
FILE_BYTES = 1 << 20
#: Of all files together, and after how many written bytes that is looked at again.
TOTAL_BYTES = 1 << 30
_SWEEP_EVERY = 16
#: At the very end, for a sweep that is under way; it takes milliseconds, unless the disk is slow.
_SWEEP_WAIT_S = 2.0
#: A version may log so much a second, and so much at once: what a person could still make something of.
RATE_BYTES_PER_S = 1 << 20
BURST_BYTES = 1 << 20
#: What happens to replicas and calls is logged even when output has used up the rate, within this.
_RESERVE_BYTES = 128 * 1024
#: Of a log that one question is answered with.
READ_BYTES = 1 << 20
#: A late flush gives a version no more to spend than this.
_MOST_REFILL_S = 2 * FLUSH_S
#: A flood is spoken of once in this time.
_OMITTED_EVERY_S = 1.0
#: Lines in memory, all versions together; more is written at once.
_MAX_WAITING_BYTES = 8 << 20

_TOO_MUCH = f"a version may log {RATE_BYTES_PER_S >> 10} KiB a second"
_NOT_WRITTEN = "the server's disk did not take them"

Follower = Callable[[bytes], object]


class _Log:
    """A version that has logged lately or is followed."""

    __slots__ = (
        "clock", "file", "followers", "is_silent", "left_bytes", "left_lines", "left_since", "lost_at", "lost_bytes",
        "lost_lines", "tokens", "waiting",
    )  # fmt: skip

    def __init__(self, file: LogFile) -> None:
        self.file = file
        last = time_of(file.last_line())
        self.clock = Clock(last if is_time(last) else NEVER)
        self.waiting: list[bytes] = []  # lines, not written yet
        self.tokens: float = BURST_BYTES
        self.is_silent = False  # since the last flush
        self.left_lines = self.left_bytes = 0  # over the rate, and not spoken of yet
        self.left_since: float | None = None  # as of the first flush after; None: nothing is left out
        self.lost_lines = self.lost_bytes = 0  # not written, and not spoken of in the file
        self.lost_at = NEVER
        self.followers: dict[object, Follower] = {}


class Logbook:
    """All logs of one host.

    Args:
        folder: where the files are; made when there is something to write.
        wake: called when `flush` is wanted in `FLUSH_S`, and then not again before it was called. A flush that leaves
            something to do wakes again by itself.
    """

    def __init__(
        self,
        folder: Path,
        wake: Callable[[], object],
        *,
        clock: Callable[[], float] = time.time,
        file_bytes: int = FILE_BYTES,
        total_bytes: int = TOTAL_BYTES,
    ) -> None:
        self.num_lost = 0  # lines that could not be written
        self._folder = folder
        self._wake = wake
        self._clock = clock
        self._file_bytes = file_bytes
        self._total_bytes = total_bytes
        self._logs: dict[str, _Log] = {}
        self._is_awake = False
        self._flushed_at = 0.0
        self._waiting_bytes = 0
        self._to_sweep = 0  # bytes until the next sweep; the first write begins with one
        self._sweeper: threading.Thread | None = None
        self._disk_fails = False
        self._log = structlog.get_logger()

    # What happens

    def printed(self, key: str, replica: int | None, call_id: str, data: bytes) -> None:
        """All that one call of version `key` printed, both streams, in one piece. Of a long piece the middle is left
        out.
        """
        if not data:
            return
        log = self._log_of(key)
        if log.tokens <= 0:
            self._leave_out(log, data.count(b"\n") or 1, len(data))
            return
        now, lines = self._clock(), []
        for event, text in split_output(data):
            lines.append(encode_entry(Entry(log.clock.next(now), event, replica, call_id, text)) + b"\n")
        self._add(log, lines)

    def failed(
        self,
        key: str,
        replica: int | None,
        call_id: str,
        error_type: str,
        message: str,
        stacktrace: str = "",
        duration_s: float = 0.0,
    ) -> None:
        """A call ended with an exception."""
        log = self._log_of(key)
        trace = clean_text(stacktrace, MAX_TRACE_CHARACTERS)
        self._note(log, "error", replica, call_id, type=clean_word(error_type), message=clean_text(message),
                   stacktrace=trace, duration=round(duration_s, 7) or None)  # fmt: skip

    def event(
        self,
        key: str,
        replica: int | None,
        name: str,
        text: str = "",
        *,
        call_id: str = "",
        stacktrace: str = "",
        duration_s: float = 0.0,
    ) -> None:
        """What became of a replica: "start", "ready" (with how long it took), "failed" (to start: why, and what it
        printed as `stacktrace`), "crashed", "killed", "idle", "backoff" (until when).
        """
        log = self._log_of(key)
        trace = clean_text(stacktrace, MAX_TRACE_CHARACTERS)
        self._note(log, clean_word(name), replica, call_id, text=clean_text(text), stacktrace=trace,
                   duration=round(duration_s, 7) or None)  # fmt: skip

    # Reading

    def read(self, key: str, tail: int) -> bytes:
        """The newest `tail` lines, within READ_BYTES; b"" where there are none."""
        log = self._logs.get(key)
        if log is not None:
            self._write(log)
        return (log.file if log is not None else LogFile(self._folder, key)).read_end(max(0, tail), READ_BYTES)

    def follow(self, key: str, callback: Follower) -> Callable[[], None]:
        """Have `callback` called with every line that comes from now on, one or several whole ones at a time.

        Returns:
            What ends it; may be called within `callback`, and more than once.
        """
        log = self._log_of(key)
        handle = object()
        log.followers[handle] = callback

        def unfollow() -> None:
            if log.followers.pop(handle, None) is not None:
                self._want_flush()  # which forgets the version

        return unfollow

    # Time

    def flush(self, now: float) -> None:
        """Write what waits, and forget versions that are silent. `now`: seconds of any clock that only goes forward."""
        elapsed_s, self._flushed_at = min(now - self._flushed_at, _MOST_REFILL_S), now
        self._is_awake = False
        is_wanted = False
        for key, log in list(self._logs.items()):
            log.tokens = min(BURST_BYTES, log.tokens + RATE_BYTES_PER_S * elapsed_s)
            self._speak_of_omitted(log, now)
            self._write(log)
            if log.tokens < BURST_BYTES or log.left_lines:
                is_wanted = True
            elif log.is_silent and not log.followers:
                del self._logs[key]
            log.is_silent = True
        if is_wanted:
            self._want_flush()

    def close(self) -> None:
        """Write all that there is."""
        for log in self._logs.values():
            self._speak_of_omitted(log, float("inf"))
            self._write(log)
        if self._sweeper is not None:
            self._sweeper.join(_SWEEP_WAIT_S)

    def _log_of(self, key: str) -> _Log:
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = _Log(LogFile(self._folder, key))
        return log

    def _note(self, log: _Log, event: str, replica: int | None, call_id: str, **fields: str | float | None) -> None:
        entry = Entry(log.clock.next(self._clock()), event, replica, call_id, **fields)  # pyright: ignore[reportArgumentType]
        line = encode_entry(entry) + b"\n"
        if log.tokens > -_RESERVE_BYTES:
            self._add(log, [line])
        else:
            self._leave_out(log, 1, len(line))

    def _add(self, log: _Log, lines: list[bytes]) -> None:
        num_bytes = sum(map(len, lines))
        log.tokens -= num_bytes
        log.is_silent = False
        log.waiting += lines
        self._waiting_bytes += num_bytes
        if log.followers:
            together = b"".join(lines)
            for follower in tuple(log.followers.values()):
                follower(together)
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            for other in self._logs.values():
                self._write(other)
        self._want_flush()

    def _want_flush(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def _leave_out(self, log: _Log, num_lines: int, num_bytes: int) -> None:
        log.left_lines += num_lines
        log.left_bytes += num_bytes
        self._want_flush()

    def _speak_of_omitted(self, log: _Log, now: float) -> None:
        if not log.left_lines:
            return
        if log.left_since is None:
            log.left_since = now
        if now - log.left_since >= _OMITTED_EVERY_S or now == float("inf"):
            text = omitted_text(log.left_lines, log.left_bytes, _TOO_MUCH)
            log.left_lines = log.left_bytes = 0
            log.left_since = None
            self._add(log, [encode_entry(Entry(log.clock.next(self._clock()), "omitted", text=text)) + b"\n"])

    def _write(self, log: _Log) -> None:
        if not log.waiting:
            return
        lines, log.waiting = log.waiting, []
        together = b"".join(lines)
        self._waiting_bytes -= len(together)
        if log.lost_lines:  # followers had them, so this is for the file alone
            text = omitted_text(log.lost_lines, log.lost_bytes, _NOT_WRITTEN)
            together = encode_entry(Entry(log.lost_at, "omitted", text=text)) + b"\n" + together
        if self._to_sweep <= 0:
            self._sweep()
        try:
            self._to_sweep -= log.file.append(together, self._file_bytes)
        except OSError as error:
            self._not_written(log, lines, error)
        else:
            self._disk_fails = False
            log.lost_lines = log.lost_bytes = 0

    def _not_written(self, log: _Log, lines: list[bytes], error: OSError) -> None:
        self.num_lost += len(lines)
        if not log.lost_lines:
            log.lost_at = time_of(lines[0])
        log.lost_lines += len(lines)
        log.lost_bytes += sum(map(len, lines))
        if not self._disk_fails:  # once, not five times a second
            self._disk_fails = True
            with contextlib.suppress(OSError):  # our own log may lie on the same disk
                self._log.warning("logs of versions are lost", action="log_lost", error=str(error))

    def _sweep(self) -> None:
        if self._sweeper is not None and self._sweeper.is_alive():
            return
        self._to_sweep = self._total_bytes // _SWEEP_EVERY
        self._sweeper = threading.Thread(target=sweep, args=(self._folder, self._total_bytes), daemon=True)
        self._sweeper.start()
