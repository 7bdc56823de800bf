"""Logs of versions: what is kept of what is printed, where, how much of it, and who reads it while it grows."""

import asyncio
import json
import os
import resource
import signal
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import Logged, ReadLog, Refusal, decode
from serai_runner.logs import readers as log_readers
from serai_runner.logs.entries import (
    MAX_CALL_BYTES,
    MAX_CALL_LINES,
    MAX_LINE_BYTES,
    NEVER,
    Clock,
    last_time,
    lines_after,
)
from serai_runner.logs.file import LogFile, sweep
from serai_runner.logs.logbook import BURST_BYTES, READ_BYTES, Logbook
from serai_runner.logs.readers import MAX_FOLLOWERS, MAX_WAITING_BYTES, LogReaders

KEY = "acme/demo@1"


class Wakes:
    """Counts how often a flush was asked for."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> None:
        self.number += 1


class FakeTime:
    def __init__(self) -> None:
        self.now = 1_777_777_777.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "versions"


@pytest.fixture
def book(folder: Path, wakes: Wakes) -> Iterator[Logbook]:
    book = Logbook(folder, wakes, clock=FakeTime())
    yield book
    book.close()


def entries(lines: bytes) -> list[dict[str, Any]]:
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


def texts(book: Logbook, key: str = KEY, tail: int = 10_000) -> list[str]:
    return [entry.get("text", "") for entry in entries(book.read(key, tail))]


# What is kept


def test_each_line_that_a_call_prints_is_one_entry_with_its_call_and_replica(book: Logbook):
    book.printed(KEY, 3, "req-1", "first\n\nGrüße\n  third".encode())
    first, *_ = told = entries(book.read(KEY, 100))
    assert [entry.get("text", "") for entry in told] == ["first", "", "Grüße", "  third"]
    assert first == {
        "time": "2026-05-03T03:09:37.250000Z", "event": "output", "replica": 3, "call": "req-1", "text": "first",
    }  # fmt: skip


def test_no_two_entries_of_a_version_have_the_same_time_and_none_goes_back(book: Logbook, folder: Path):
    clock = FakeTime()
    other = Logbook(folder, Wakes(), clock=clock)
    other.printed(KEY, 1, "req-1", b"a\nb\nc\n")
    clock.now -= 3600
    other.printed(KEY, 1, "req-2", b"d\ne\n")
    other.close()
    book.printed(KEY, 1, "req-3", b"f\n")  # after a restart: the file remembers
    times = [entry["time"] for entry in entries(book.read(KEY, 100))]
    assert times == sorted(set(times)) and len(times) == 6


def test_a_clock_says_what_its_text_says():
    clock = Clock("2026-05-03T03:09:37.999999Z")
    assert clock.next(0.0) == "2026-05-03T03:09:38.000000Z"
    assert clock.next(0.0) == "2026-05-03T03:09:38.000001Z"
    assert Clock(NEVER).next(1.5) == "1970-01-01T00:00:01.500000Z"


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"\x1b[31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        (b"\x1b[2Jgone \x1b(Bnot", "gone not"),
        (b"10%\r55%\r100%", "100%"),
        (b"windows\r", "windows"),
        (b"\xff\xfe\xe2\x82", "\ufffd\ufffd\ufffd"),
        (b"bell\x07 nul\x00 c1\xc2\x9b tab\t", "bell\ufffd nul\ufffd c1\ufffd tab\t"),
        (b'{"a": "\\"}', '{"a": "\\"}'),
        ("\u2028 \u202e".encode(), "\u2028 \u202e"),
    ],
)
def test_text_steers_no_terminal_and_is_always_unicode(printed: bytes, text: str, book: Logbook):
    book.printed(KEY, 1, "req-1", printed + b"\n")
    assert texts(book) == [text]


def test_a_line_that_is_too_long_is_cut_with_a_mark(book: Logbook):
    book.printed(KEY, 1, "req-1", b"x" * (MAX_LINE_BYTES + 5) + b"\nnext\n")
    book.printed(KEY, 1, "req-1", "ü".encode() * MAX_LINE_BYTES)
    long, following, wide = texts(book)
    assert long == "x" * MAX_LINE_BYTES + " […5 more bytes in this line]"
    assert following == "next"
    assert wide == "ü" * (MAX_LINE_BYTES // 2) + f" […{MAX_LINE_BYTES} more bytes in this line]"


def test_of_a_long_output_the_middle_is_left_out_and_the_log_says_how_much(book: Logbook):
    data = b"".join(b"line %06d %s\n" % (number, b"x" * 100) for number in range(5000))
    book.printed(KEY, 1, "req-1", data)
    told = entries(book.read(KEY, 10_000))
    kept = [entry["text"] for entry in told if entry["event"] == "output"]
    assert kept[0].startswith("line 000000 ") and kept[-1].startswith("line 004999 ")
    kept_bytes = sum(len(text) + 1 for text in kept)
    assert MAX_CALL_BYTES - 300 < kept_bytes <= MAX_CALL_BYTES
    (mark,) = [entry["text"] for entry in told if entry["event"] == "omitted"]
    assert mark.startswith(f"{len(data) - kept_bytes} bytes that this call printed are left out here")


def test_of_very_many_lines_the_middle_is_left_out(book: Logbook):
    book.printed(KEY, 1, "req-1", b"".join(b"%d\n" % number for number in range(9999)))
    told = texts(book)
    assert len(told) == MAX_CALL_LINES + 1
    assert (told[0], told[499], told[501], told[-1]) == ("0", "499", "9499", "9998")
    left_out = sum(len(b"%d\n" % number) for number in range(500, 9499))
    assert told[500].startswith(f"{left_out} bytes that this call printed are left out here")


def test_an_exception_is_one_entry_with_its_type_message_and_stack_trace(book: Logbook):
    trace = "Traceback:\n" + "  frame\n" * 5000 + "ValueError: as asked\n"
    book.failed(KEY, 2, "req-7", "InputError", "as\x1b[1m asked", trace, 0.25)
    (entry,) = entries(book.read(KEY, 10))
    assert (entry["event"], entry["type"], entry["message"], entry["duration"]) == (
        "error", "InputError", "as asked", 0.25,
    )  # fmt: skip
    assert entry["stacktrace"].startswith("Traceback:\n") and entry["stacktrace"].endswith("ValueError: as asked\n")
    assert len(entry["stacktrace"]) < 17_000 and "characters left out" in entry["stacktrace"]


def test_what_becomes_of_a_replica_is_an_entry(book: Logbook):
    book.event(KEY, 4, "start")
    book.event(KEY, 4, "ready", duration_s=0.0312)
    book.event(KEY, 4, "crashed", "signal 11 (SIGSEGV)", call_id="req-2", stacktrace="last words\n")
    book.event(KEY, None, "backoff", "next start in 4 s")
    told = [{k: v for k, v in entry.items() if k != "time"} for entry in entries(book.read(KEY, 10))]
    assert told == [
        {"event": "start", "replica": 4},
        {"event": "ready", "replica": 4, "duration": 0.0312},
        {
            "event": "crashed",
            "replica": 4,
            "call": "req-2",
            "text": "signal 11 (SIGSEGV)",
            "stacktrace": "last words\n",
        },
        {"event": "backoff", "text": "next start in 4 s"},
    ]


def test_text_with_half_characters_does_not_stop_the_log(book: Logbook):
    book.event(KEY, 1, "crashed", "half \ud800 of one")
    assert texts(book) == ["half ? of one"]


# Where it is kept


def test_a_log_outlives_its_host_and_names_no_owner_in_the_file_system(book: Logbook, folder: Path):
    book.printed(KEY, 1, "req-1", b"hello\n")
    book.close()
    (file,) = [path for path in folder.rglob("*") if path.is_file()]
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert file.parent.name == file.name[:2] and len(file.stem) == 64
    assert texts(Logbook(folder, Wakes())) == ["hello"]


def test_a_key_that_looks_like_a_path_stays_in_the_folder(book: Logbook, folder: Path, tmp_path: Path):
    book.printed("../../../../tmp/x/\x00", 1, "req-1", b"hello\n")
    book.close()
    assert all(folder in path.parents for path in tmp_path.rglob("*.jsonl"))
    assert texts(book, "../../../../tmp/x/\x00") == ["hello"]


def test_lines_wait_for_the_flush_and_a_reader_sees_them_at_once(book: Logbook, folder: Path, wakes: Wakes):
    book.printed(KEY, 1, "req-1", b"one\n")
    book.printed(KEY, 1, "req-2", b"two\n")
    assert wakes.number == 1 and not folder.exists()
    assert texts(book) == ["one", "two"]
    book.printed(KEY, 1, "req-3", b"three\n")
    book.flush(1.0)
    assert texts(Logbook(folder, Wakes())) == ["one", "two", "three"]


def test_a_version_that_logs_nothing_has_no_file_and_no_state(book: Logbook, folder: Path, wakes: Wakes):
    for number in range(1000):
        book.printed(f"acme/demo{number}@1", 1, "req-1", b"")
        assert book.read(f"acme/demo{number}@1", 100) == b""
    assert not folder.exists() and wakes.number == 0


def test_versions_that_are_silent_again_cost_less_than_a_kilobyte_and_then_nothing(book: Logbook, wakes: Wakes):
    def remembered() -> int:
        return tracemalloc.get_traced_memory()[0]

    keys = [f"acme/demo{number}@{'0' * 40}" for number in range(500)]
    book.printed(KEY, 1, "req-1", b"hello\n")  # what is made once is made before
    book.flush(1.0)
    tracemalloc.start()
    try:
        before = remembered()
        for key in keys:
            book.printed(key, 1, "req-1", b"hello\n")
        book.flush(2.0)
        assert (remembered() - before) / len(keys) < 1000
        book.flush(3.0)
        assert (remembered() - before) / len(keys) < 100
    finally:
        tracemalloc.stop()
    for key in keys:
        assert texts(book, key) == ["hello"]
    assert wakes.number == 2


def test_a_file_is_rotated_and_reading_goes_on_into_the_old_one(folder: Path):
    book = Logbook(folder, Wakes(), clock=FakeTime(), file_bytes=2000)
    for number in range(100):
        book.printed(KEY, 1, "req-1", b"line %d\n" % number)
        book.flush(float(number))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 2 and all(path.stat().st_size <= 2000 for path in files)
    told = texts(book)
    assert 20 < len(told) < 50
    assert told == [f"line {number}" for number in range(100 - len(told), 100)]
    assert texts(book, tail=3) == ["line 97", "line 98", "line 99"]
    assert texts(book, tail=0) == []


def test_a_question_is_answered_with_whole_lines_within_a_bound(book: Logbook):
    for number in range(200):
        book.printed(KEY, 1, "req-1", b"%04d" % number + b"x" * 8000 + b"\n")
        book.flush(float(number))
    lines = book.read(KEY, 10_000)
    assert READ_BYTES - 20_000 < len(lines) <= READ_BYTES
    told = [entry["text"][:4] for entry in entries(lines)]
    assert told == [f"{number:04d}" for number in range(200 - len(told), 200)]


def test_a_write_that_was_cut_short_loses_its_own_line_only(book: Logbook, folder: Path):
    book.printed(KEY, 1, "req-1", b"whole\n")
    book.close()
    (file,) = folder.rglob("*.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"time":"2026-05-03T03:10:00.000000Z","event":"output","text":"to')
    again = Logbook(folder, Wakes(), clock=FakeTime())
    again.printed(KEY, 1, "req-2", b"after\n")
    assert texts(again) == ["whole", "after"]


def test_a_full_disk_loses_lines_and_nothing_else_and_the_log_says_so(folder: Path):
    book = Logbook(folder, Wakes(), clock=FakeTime())
    followed: list[bytes] = []
    book.follow(KEY, followed.append)
    book.printed(KEY, 1, "req-1", b"before\n")
    book.flush(1.0)
    with capture_logs() as said, _disk_full_at(next(folder.rglob("*.jsonl")).stat().st_size + 20):
        for number in range(5):
            book.printed(KEY, 1, "req-2", b"lost %d\n" % number)
            book.flush(2.0 + number)
    book.printed(KEY, 1, "req-3", b"after\n")
    book.flush(9.0)
    told = entries(book.read(KEY, 100))
    assert [entry["event"] for entry in told] == ["output", "omitted", "output"]
    assert told[1]["text"].startswith("5 lines (") and "disk" in told[1]["text"]
    assert told[0]["time"] < told[1]["time"] < told[2]["time"]
    assert book.num_lost == 5
    assert [entry["text"] for entry in entries(b"".join(followed))][1:6] == [f"lost {number}" for number in range(5)]
    assert [line["action"] for line in said] == ["log_lost"]


class _disk_full_at:
    """Files of this process cannot grow above so many bytes, as on a full disk."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes

    def __enter__(self) -> None:
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._num_bytes, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


def test_a_folder_that_cannot_be_made_loses_lines_and_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_text("")
    book = Logbook(tmp_path / "file" / "versions", Wakes())
    book.printed(KEY, 1, "req-1", b"hello\n")
    book.flush(1.0)
    assert book.num_lost == 1 and book.read(KEY, 10) == b""


def test_all_logs_together_stay_within_their_bound_and_the_oldest_go_first(folder: Path):
    for number in range(40):
        file = LogFile(folder, f"acme/demo@{number}")
        file.append(b'{"time":"","event":"output"}\n' * 300, 1 << 20)
        path = next(path for path in folder.rglob("*.jsonl") if path.stat().st_mtime > 1e9)
        os.utime(path, (number, number))  # the newest so far is the one that has not been dated
    left = sweep(folder, 100_000)
    assert left <= 100_000
    kept = [number for number in range(40) if LogFile(folder, f"acme/demo@{number}").read_end(1, 1000)]
    assert kept == list(range(40 - len(kept), 40)) and len(kept) >= 8


def test_the_logbook_sweeps_by_itself(folder: Path):
    book = Logbook(folder, Wakes(), total_bytes=200_000)
    for number in range(300):
        book.printed(f"acme/demo@{number}", 1, "req-1", b"x" * 3000 + b"\n")
        book.flush(float(number))
        book.close()  # waits for a sweep that is under way
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(max(path.stat().st_size, 4096) for path in files) < 300_000
    assert texts(book, "acme/demo@299") == ["x" * 3000]


def test_an_empty_folder_and_none_at_all_are_swept(folder: Path):
    assert sweep(folder, 10) == 0
    folder.mkdir(parents=True)
    assert sweep(folder, 10) == 0


# A version that prints without end


def test_a_flood_costs_no_more_than_its_rate_and_the_rest_is_counted(book: Logbook):
    followed: list[bytes] = []
    book.follow(KEY, followed.append)
    chunk = b"y" * 99 + b"\n"
    for step in range(50):  # ten seconds
        for _ in range(50):
            book.printed(KEY, 1, "req-1", chunk * 100)
        book.flush(1000.0 + step * 0.2)
    told = b"".join(followed)
    assert len(told) < BURST_BYTES + 10.5 * (1 << 20)
    marks = [entry["text"] for entry in entries(told) if entry["event"] == "omitted"]
    assert 5 <= len(marks) <= 11 and "1024 KiB a second" in marks[0]
    kept = sum(entry["event"] == "output" for entry in entries(told))
    spoken_of = sum(int(mark.split()[0]) for mark in marks)
    book.flush(2000.0)
    book.flush(3000.0)
    (*_, last) = entries(b"".join(followed))
    if last["event"] == "omitted" and last["text"] != marks[-1]:
        spoken_of += int(last["text"].split()[0])
    assert kept + spoken_of == 50 * 50 * 100


def test_a_crash_is_told_in_the_middle_of_a_flood(book: Logbook):
    for _ in range(100):
        book.printed(KEY, 1, "req-1", b"y" * 60_000)
    book.event(KEY, 1, "crashed", "memory limit 512 MiB exceeded")
    assert entries(book.read(KEY, 1))[0]["text"] == "memory limit 512 MiB exceeded"


def test_one_versions_flood_leaves_the_others_their_own_rate(book: Logbook):
    for _ in range(100):
        book.printed(KEY, 1, "req-1", b"y" * 60_000)
    book.printed("acme/other@1", 1, "req-1", b"hello\n")
    assert texts(book, "acme/other@1") == ["hello"]


# Following


def test_who_follows_gets_each_line_once_and_at_once(book: Logbook, wakes: Wakes):
    book.printed(KEY, 1, "req-1", b"before\n")
    followed: list[bytes] = []
    read = book.read(KEY, 10)
    unfollow = book.follow(KEY, followed.append)
    book.printed(KEY, 1, "req-2", b"one\ntwo\n")
    book.event(KEY, 1, "idle")
    assert [entry.get("text") for entry in entries(read)] == ["before"]
    assert [len(entries(lines)) for lines in followed] == [2, 1]  # what one call prints comes in one piece
    unfollow()
    unfollow()
    book.printed(KEY, 1, "req-3", b"three\n")
    assert len(followed) == 2


def test_a_follower_may_leave_within_its_callback(book: Logbook):
    seen: list[bytes] = []
    leaving: list[Callable[[], None]] = []

    def once(lines: bytes) -> None:
        seen.append(lines)
        leaving[0]()

    leaving.append(book.follow(KEY, once))
    book.follow(KEY, seen.append)
    book.printed(KEY, 1, "req-1", b"one\n")
    book.printed(KEY, 1, "req-2", b"two\n")
    assert len(seen) == 3


def test_a_silent_version_is_kept_in_memory_while_somebody_follows_it(book: Logbook):
    followed: list[bytes] = []
    unfollow = book.follow(KEY, followed.append)
    for now in range(1, 5):
        book.flush(float(now))
    book.printed(KEY, 1, "req-1", b"hello\n")
    assert len(followed) == 1
    unfollow()
    book.flush(10.0)
    book.flush(11.0)
    assert not book._logs


def test_lines_after_a_time_are_those_that_a_reader_has_not_had(book: Logbook):
    book.printed(KEY, 1, "req-1", b"a\nb\nc\n")
    lines = book.read(KEY, 10)
    second = entries(lines)[1]["time"]
    assert [entry["text"] for entry in entries(lines_after(lines, second))] == ["c"]
    assert lines_after(lines, last_time(lines)) == b"" and lines_after(lines, NEVER) == lines
    assert last_time(b"") == NEVER


# Over a gateway's connection


class Link(FrameProtocol):
    """The host's end of a connection."""

    def frame_received(self, header: bytes, payload: bytes) -> None:
        raise AssertionError("nobody sends to it here")


class Gateway(FrameProtocol):
    """The other end: what came, by question."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.refused: dict[int, Refusal] = {}
        self.news = asyncio.Event()

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Logged):
            assert message.id not in self.ended, "nothing comes after the end"
            self.lines[message.id] = self.lines.get(message.id, b"") + payload
            if message.is_end:
                self.ended.add(message.id)
        else:
            assert isinstance(message, Refusal)
            self.refused[message.id] = message
        self.news.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self.news.clear()
                await self.news.wait()


async def connected(book: Logbook) -> tuple[LogReaders, Link, Gateway]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    link, gateway = Link(), Gateway()
    await loop.create_unix_connection(lambda: link, sock=ours)
    await loop.create_unix_connection(lambda: gateway, sock=theirs)
    return LogReaders(book, link), link, gateway


def test_a_question_without_follow_has_one_answer(book: Logbook):
    async def main() -> None:
        readers, link, gateway = await connected(book)
        book.printed(KEY, 1, "req-1", b"a\nb\n")
        readers.on_read_log(ReadLog(7, KEY, 1))
        readers.on_read_log(ReadLog(8, "acme/silent@1"))
        await gateway.until(lambda: gateway.ended == {7, 8})
        assert [entry["text"] for entry in entries(gateway.lines[7])] == ["b"] and gateway.lines[8] == b""
        assert not readers.on_cancel(7)
        link.close()
        gateway.close()

    asyncio.run(main())


def test_a_follow_goes_on_until_it_is_cancelled_or_the_connection_ends(book: Logbook):
    async def main() -> None:
        readers, link, gateway = await connected(book)
        book.printed(KEY, 1, "req-1", b"before\n")
        readers.on_read_log(ReadLog(7, KEY, follow=True))
        readers.on_read_log(ReadLog(8, KEY, 0, follow=True))
        readers.on_read_log(ReadLog(9, "acme/silent@1", follow=True))
        book.printed(KEY, 1, "req-2", b"after\n")
        await gateway.until(lambda: gateway.lines.get(8, b"") != b"")
        assert [entry["text"] for entry in entries(gateway.lines[7])] == ["before", "after"]
        assert [entry["text"] for entry in entries(gateway.lines[8])] == ["after"]
        assert gateway.lines[9] == b""  # told that it follows, though there is nothing yet
        assert readers.on_cancel(7) and not readers.on_cancel(7)
        readers.close()
        book.printed(KEY, 1, "req-3", b"for nobody\n")
        book.flush(1.0)
        book.flush(2.0)
        assert not book._logs and not gateway.ended
        link.close()
        gateway.close()

    asyncio.run(main())


def test_one_who_does_not_read_is_cut_with_a_last_line_and_finds_the_rest_later(book: Logbook):
    async def main() -> None:
        readers, link, gateway = await connected(book)
        assert gateway.transport is not None and link.transport is not None
        readers.on_read_log(ReadLog(7, KEY, follow=True))
        await gateway.until(lambda: 7 in gateway.lines)
        gateway.transport.pause_reading()  # type: ignore[attr-defined]
        number = 0
        while readers._followers:
            assert link.transport.get_write_buffer_size() < MAX_WAITING_BYTES + 200_000
            book.printed(KEY, 1, "req-1", b"%06d" % number + b"x" * 8000 + b"\n")
            book.flush(float(number))
            number += 1
        gateway.transport.resume_reading()  # type: ignore[attr-defined]
        await gateway.until(lambda: 7 in gateway.ended)
        *had, cut = entries(gateway.lines[7])
        assert cut["event"] == "cut" and "too slow" in cut["text"] and cut["time"] == had[-1]["time"]
        rest = entries(lines_after(book.read(KEY, 10_000), cut["time"]))
        assert [entry["text"][:6] for entry in had + rest] == [f"{each:06d}" for each in range(number)]
        link.close()
        gateway.close()

    asyncio.run(main())


def test_followers_over_one_connection_have_a_bound(book: Logbook):
    async def main() -> None:
        readers, link, gateway = await connected(book)
        for number in range(MAX_FOLLOWERS + 1):
            readers.on_read_log(ReadLog(number, KEY, follow=True))
        await gateway.until(lambda: bool(gateway.refused))
        assert gateway.refused[MAX_FOLLOWERS].code == "busy" and gateway.refused[MAX_FOLLOWERS].retriable
        readers.on_read_log(ReadLog(999, KEY))  # who only looks is served
        await gateway.until(lambda: 999 in gateway.ended)
        readers.close()
        link.close()
        gateway.close()

    asyncio.run(main())


def test_the_bounds_of_a_connection_hold_what_one_question_brings():
    assert READ_BYTES * 2 <= log_readers.MAX_WAITING_BYTES
