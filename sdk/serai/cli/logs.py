"""Show what an algorithm of yours printed, how it failed, and what became of its processes."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from serai._requests import parse_reference
from serai.cli._connection import add_connection_options, connect
from serai.cli._terminal import printable, say, wants_colour, write_bytes

if TYPE_CHECKING:
    from serai._logs import LogEntry
    from serai.errors import SeraiError

EXAMPLE = """
A line is the local time, the process (#3), and what it printed; errors come with their stack trace. Each version has a
log of its own; without --version it is that of the version that a call would run.

example:
  serai logs demo/hello
  serai logs demo/hello -f -n 20
  serai logs demo/hello --version 1.0.2 --json
"""

DEFAULT_TAIL = 100

_DIM, _RED, _YELLOW, _CYAN, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"
#: What is wrong is red, what may be is yellow; all other news of processes is dim.
_COLOURS = {
    "output": "", "error": _RED, "failed": _RED, "crashed": _RED, "killed": _RED, "backoff": _YELLOW,
    "omitted": _YELLOW, "cut": _YELLOW,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("algorithm", metavar="OWNER/NAME", help="whose log; OWNER/NAME/VERSION is understood, too")
    parser.add_argument("--version", metavar="V", help="1.2.0, 1.2.*, latest or a git hash")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument(
        "-n", "--tail", type=_lines, default=DEFAULT_TAIL, metavar="N", help=f"the newest N lines ({DEFAULT_TAIL})"
    )
    parser.add_argument("--json", action="store_true", help="each line as the server has it, a JSON object")
    add_connection_options(parser)


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 10_000):
        raise argparse.ArgumentTypeError("must be a number of lines between 0 and 10000")
    return int(text)


def run(args: argparse.Namespace) -> int:
    name = _name(args)
    outage = _Outage()
    is_empty = True
    with connect(args) as client:
        for entry in client.logs(name, tail=args.tail, follow=args.follow, on_break=outage.begin):
            is_empty = False
            outage.end()
            _show(entry, args.json)
    if is_empty and args.tail:
        say(f"{name} has logged nothing yet: what it prints is here after its next call, and -f waits for it")
    return 0


def _name(args: argparse.Namespace) -> str:
    try:
        reference = parse_reference(args.algorithm)
        if args.version is None:
            return str(reference)
        if reference.version is not None:
            args.usage_error("name the version once: OWNER/NAME/VERSION or --version V")
        return str(parse_reference(f"{reference}/{args.version}"))
    except ValueError as error:
        args.usage_error(str(error))
        raise  # not reached: usage_error exits


class _Outage:
    """Says that the server has gone, and that it is back, each once."""

    def __init__(self) -> None:
        self._is_on = False

    def begin(self, error: "SeraiError | None") -> None:
        if not self._is_on:
            self._is_on = True
            say(f"serai: the log was interrupted ({error.message if error else 'the server stopped'}); waiting for it")

    def end(self) -> None:
        if self._is_on:
            self._is_on = False
            say("serai: the log goes on")


def _show(entry: "LogEntry", as_json: bool) -> None:
    text = json.dumps(entry.details, ensure_ascii=False) if as_json else "\n".join(_drawn(entry, wants_colour()))
    data = text if not as_json else printable(text) if sys.stdout.isatty() else text
    write_bytes(f"{data}\n".encode("utf-8", "backslashreplace"))


def _drawn(entry: "LogEntry", colour: bool) -> Iterator[str]:
    """Lines for people. What comes from the author has its control characters spelled out, terminal or not."""
    first, *rest = _said(entry).split("\n")
    paint = _COLOURS.get(entry.event, _DIM) if colour else ""
    replica = "" if entry.replica is None else f"#{entry.replica}"
    lead, who = (f"{_DIM}", f"{_PLAIN}{_CYAN}{replica:<4}{_PLAIN}") if colour else ("", f"{replica:<4}")
    yield f"{lead}{_local(entry.time)} {who} {_painted(first, paint)}".rstrip()
    for line in rest:
        yield _painted(f"    {line}", paint)


def _said(entry: "LogEntry") -> str:
    if entry.event == "output":
        return printable(entry.text)
    if entry.event == "error":
        said = f"{entry.error_type}: {entry.message}" + (f" ({entry.call})" if entry.call else "")
    else:
        took = "" if entry.duration is None else f" after {entry.duration:.3g} s"
        said = f"[{entry.event}{took}]" + (f" {entry.text}" if entry.text else "")
    if entry.stacktrace:
        said = f"{said}\n{entry.stacktrace.rstrip()}"
    return printable(said)


def _local(time: str) -> str:
    """Local time to the millisecond; what is no time as it is."""
    try:
        moment = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return printable(time)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"


def _painted(text: str, colour: str) -> str:
    return f"{colour}{text}{_PLAIN}" if colour and text else text
