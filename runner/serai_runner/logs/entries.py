"""The lines of a version's log: one JSON object each, made from what an author's code printed or what became of it.

    {"time":"2026-05-04T10:11:12.131415Z","event":"output","replica":3,"call":"req-1","text":"loaded"}

`time` comes first and always has the same length, so lines can be compared without reading the rest. Pure.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

#: Of one call's output so much is kept, half of it from the beginning and half from the end: what a program is about
#: and how it ended.
MAX_CALL_BYTES = 64 * 1024
#: As many lines at most: a line of one letter costs a hundred bytes here.
MAX_CALL_LINES = 1000
#: Longer lines are cut. What people print for people is shorter.
MAX_LINE_BYTES = 8 * 1024
#: Of a stack trace; like output, its beginning and its end.
MAX_TRACE_CHARACTERS = 16 * 1024
#: Of a name or a type.
_MAX_WORD_CHARACTERS = 200

#: Colours, cursor movements and titles. A sequence that does not end within its line loses its first sign only.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()*+#%][0-~]|[=>@-Z\\^_`-~])")
#: What else a terminal would obey: all controls but tab and newline, the second set of them included.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_SECOND_US = 1_000_000
_TIME_AT = len(b'{"time":"')
TIME_LENGTH = len("2026-05-04T10:11:12.131415Z")
#: Before every time.
NEVER = "0000-00-00T00:00:00.000000Z"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line."""

    time: str  # UTC; within a version no two are the same, and they never go back
    event: str  # "output", "error", "omitted", or what happened to a replica: "start", "ready", "crashed", …
    replica: int | None = None
    call: str = ""  # "req-…"
    text: str = ""
    type: str = ""  # of an error
    message: str = ""
    stacktrace: str = ""
    duration: float | None = None  # seconds


encode_entry = msgspec.json.Encoder().encode


class Clock:
    """Times for entries: microseconds since 1970 that only go forward, and as text."""

    __slots__ = ("_second", "_second_us", "last_us")

    def __init__(self, last: str = NEVER) -> None:
        self.last_us = _microseconds(last)
        self._second_us = -_SECOND_US  # when the second began whose text we have
        self._second = ""

    def next(self, now_s: float) -> str:
        now_us = int(now_s * _SECOND_US)
        if now_us <= self.last_us:
            now_us = self.last_us + 1
        self.last_us = now_us
        rest_us = now_us - self._second_us
        if not 0 <= rest_us < _SECOND_US:
            second, rest_us = divmod(now_us, _SECOND_US)
            self._second_us = now_us - rest_us
            self._second = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._second}{rest_us:06d}Z"


def time_of(line: bytes) -> str:
    """The time of one encoded entry."""
    return line[_TIME_AT : _TIME_AT + TIME_LENGTH].decode("ascii", "replace")


def last_time(lines: bytes) -> str:
    """The time of the last of some encoded lines; NEVER if there is none."""
    at = lines.rfind(b"\n", 0, -1) + 1
    text = time_of(lines[at:])
    return text if is_time(text) else NEVER


def is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def lines_after(lines: bytes, since: str) -> bytes:
    """The lines that are newer than `since`."""
    at = 0
    while at < len(lines) and time_of(lines[at : at + _TIME_AT + TIME_LENGTH]) <= since:
        at = lines.find(b"\n", at) + 1 or len(lines)
    return lines[at:]


def split_output(data: bytes) -> Iterator[tuple[str, str]]:
    """(event, text) for each line of what a call printed: "output", and "omitted" where something was left out."""
    if len(data) <= MAX_CALL_BYTES:
        head, middle, tail = data, 0, b""
    else:
        head, tail = data[: MAX_CALL_BYTES // 2], data[-MAX_CALL_BYTES // 2 :]
        head, tail = head[: head.rfind(b"\n") + 1] or head, tail[tail.find(b"\n") + 1 :]
        middle = len(data) - len(head) - len(tail)
    first, last = _lines(head), _lines(tail)
    if len(first) + len(last) > MAX_CALL_LINES:
        lines, half = first + last, MAX_CALL_LINES // 2
        middle = len(data) - sum(map(len, lines[:half])) - sum(map(len, lines[-half:])) - MAX_CALL_LINES
        first, last = lines[:half], lines[-half:]
    for line in first:
        yield "output", clean_line(line)
    if middle:
        yield "omitted", f"{middle} bytes that this call printed are left out here: {_KEPT}"
    for line in last:
        yield "output", clean_line(line)


def clean_line(line: bytes) -> str:
    """A line as text that steers no terminal. Of a line that was written over with "\\r", what was seen last."""
    if b"\r" in line:
        line = line.rstrip(b"\r")
        line = line[line.rfind(b"\r") + 1 :]
    cut = len(line) - MAX_LINE_BYTES
    if cut > 0:
        kept = line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\ufffd")
        return f"{_without_controls(kept)} […{cut} more bytes in this line]"
    return _without_controls(line.decode("utf-8", "replace"))


def clean_text(text: str, max_characters: int = MAX_LINE_BYTES) -> str:
    """Text of several lines: controls other than newline and tab removed; too long: its beginning and its end."""
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    if len(text) > max_characters:
        third = max_characters // 3
        left_out = len(text) - max_characters
        text = f"{text[:third]}\n[… {left_out} characters left out]\n{text[third - max_characters :]}"
    return _without_controls(text)


def clean_word(text: str) -> str:
    return clean_text(text[:_MAX_WORD_CHARACTERS])


def omitted_text(num_lines: int, num_bytes: int, why: str) -> str:
    return f"{num_lines} lines ({num_bytes} bytes) are left out here: {why}"


_KEPT = f"of one call {MAX_CALL_BYTES // 1024} KiB and {MAX_CALL_LINES} lines are kept"
_EPOCH = datetime.fromtimestamp(0, UTC)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _without_controls(text: str) -> str:
    if text.isprintable():  # nearly always
        return text
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    return _CONTROLS.sub("\ufffd", text)


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return (moment - _EPOCH) // timedelta(microseconds=1)
