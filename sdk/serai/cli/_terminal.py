"""What commands print: results on stdout, everything else on stderr, nothing that could steer a terminal."""

import json
import os
import re
import sys
import textwrap
from typing import Any

from serai.errors import AlgorithmError, ApiError, SeraiError

#: C0 and C1 control characters but newline and tab, shown instead of obeyed: logs and messages come from strangers.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}

_JSON_TOKEN = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"(?=\s*:))|(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>\b(?:true|false|null)\b)|(?P<number>-?\d[\d.eE+-]*)"""
)
_COLOURS = {"key": "34", "string": "32", "word": "35", "number": "36"}


def printable(text: str) -> str:
    """The text with control characters spelled out."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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


def complain(error: SeraiError) -> None:
    """What went wrong, and what to do where the error knows."""
    if isinstance(error, AlgorithmError):
        say(f"{error.error_type}: {error.message}")
        if error.stacktrace:
            say(textwrap.indent(error.stacktrace.rstrip(), "    "))
        return
    say(f"serai: {error.message}")
    if not isinstance(error, ApiError):
        return
    facts = [error.code or "no code", f"HTTP {error.status}"]
    if error.request_id:
        facts.append(f"request {error.request_id}")
    if error.retriable:
        wait = f" in {error.retry_after_s:g} s" if error.retry_after_s else ""
        facts.append(f"try again{wait}")
    say(f"  ({', '.join(facts)})")
