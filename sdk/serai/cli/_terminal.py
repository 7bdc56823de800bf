"""What commands print: results on stdout, everything else on stderr, nothing that could steer a terminal."""

import json
import os
import re
import sys
import textwrap
from typing import Any, TextIO

from serai.errors import AlgorithmError, ApiError, SeraiError

#: C0 and C1 control characters but newline and tab, shown instead of obeyed: logs and messages come from strangers.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
#: And what turns the direction of writing: a line would show something else than it says.
_VISIBLE |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}

_JSON_TOKEN = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"(?=\s*:))|(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>\b(?:true|false|null)\b)|(?P<number>-?\d[\d.eE+-]*)"""
)
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_COLOURS = {"key": "34", "string": "32", "word": "35", "number": "36"}


def printable(text: str) -> str:
    """The text with control characters spelled out."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def wants_colour() -> bool:
    return _colours(sys.stdout)


def _colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def colour_json(text: str) -> str:
    """Indented JSON with the colours of a terminal."""
    return _JSON_TOKEN.sub(lambda match: f"\x1b[{_COLOURS[str(match.lastgroup)]}m{match[0]}\x1b[0m", text)


def show_json(value: Any) -> None:
    text = printable(pretty_json(value)) if sys.stdout.isatty() else pretty_json(value)
    write_text(colour_json(text) if wants_colour() else text)


def show_text(text: str) -> None:
    write_text(printable(text) if sys.stdout.isatty() else text)


def write_text(text: str) -> None:
    """To stdout, as UTF-8 whatever the locale, ending in a newline."""
    write_bytes((text if text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace"))


def write_bytes(data: bytes) -> None:
    """All of it, to stdout. Under PYTHONUNBUFFERED stdout is a bare file whose write may take only a part."""
    sys.stdout.flush()
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """A line for the person, not for the next program."""
    print(printable(text), file=sys.stderr, flush=True)


def confirm(question: str) -> bool:
    """Whether somebody at a terminal says yes."""
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def complain(error: SeraiError, as_json: bool = False) -> None:
    """What went wrong, and what to do where the error knows; for programs, one line of JSON."""
    if as_json:
        print(json.dumps({"error": _fields(error)}), file=sys.stderr, flush=True)
        return
    what = error.message
    if isinstance(error, AlgorithmError):
        what = f"{error.error_type}: {what}"
    lead = f"{_RED}serai:{_PLAIN}" if _colours(sys.stderr) else "serai:"
    print(f"{lead} {printable(what)}", file=sys.stderr, flush=True)
    if isinstance(error, AlgorithmError) and error.stacktrace:
        say(textwrap.indent(error.stacktrace.rstrip(), "    "))
    if facts := _facts(error):
        say(f"  ({', '.join(facts)})")


def _facts(error: SeraiError) -> list[str]:
    """What identifies it to whoever runs the server, and whether to try again."""
    if isinstance(error, AlgorithmError):
        return [f"request {error.request_id}"] if error.request_id else []
    if not isinstance(error, ApiError) or not error.status:
        return []
    facts = [error.code or "no code", f"HTTP {error.status}"]
    if error.request_id:
        facts.append(f"request {error.request_id}")
    if error.retriable:
        wait = f" in {error.retry_after_s:g} s" if error.retry_after_s else ""
        facts.append(f"try again{wait}")
    return facts


def _fields(error: SeraiError) -> dict[str, Any]:
    """All that is known of it; what is not known is left out."""
    names = (
        "message", "status", "code", "number", "error_type", "stacktrace", "request_id", "retriable", "retry_after_s",
        "maybe_sent",
    )  # fmt: skip
    known = {name: getattr(error, name, None) for name in names}
    return {"type": type(error).__name__} | {name: value for name, value in known.items() if value not in (None, "", 0)}
