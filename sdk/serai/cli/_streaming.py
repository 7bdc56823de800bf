"""What `serai call --stream` shows while a call runs: items on stdout, how it is doing on stderr."""

import base64
import json
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from serai.cli._terminal import colour_json, printable, say, wants_colour, write_bytes
from serai.errors import SeraiError

if TYPE_CHECKING:
    from serai import Algorithm, Progress, Response, Waiting
    from serai._requests import Payload

#: Cells of the progress bar; the rest of the line is for what the algorithm says.
_BAR_CELLS = 24

_CLEAR_LINE = "\r\x1b[K"


def follow(algorithm: "Algorithm", payload: "Payload", printer: "Printer") -> "Response":
    """Call, and show what comes until it ends. Leaving early, also by Ctrl-C, cancels the call."""
    status = StatusLine()

    def on_progress(progress: "Progress") -> None:
        if not printer.progress(progress) and printer.leaves_line_free:
            status.progress(progress)

    def on_waiting(waiting: "Waiting") -> None:
        if not printer.waiting(waiting) and printer.leaves_line_free:
            status.waiting(waiting)

    with ExitStack() as stack:
        stack.callback(printer.rest)
        stack.callback(status.clear)
        stream = stack.enter_context(algorithm.stream(payload, on_progress=on_progress, on_waiting=on_waiting))
        for item in stream:
            status.clear()
            printer.item(item)
        return stream.response()


class Printer:
    """Writes items to stdout, or to a file that is made when the first one comes.

    Text as it is, so that pieces of a text make the text; other JSON as one line each; bytes as they are, to a file or
    a pipe. With `as_json` every event is a line of JSON.
    """

    def __init__(self, output: str | None, as_json: bool) -> None:
        self._path = None if output is None else Path(output)
        self._file: BinaryIO | None = None
        self._as_json = as_json
        self._is_terminal = output is None and sys.stdout.isatty()
        self._ends_line = True  # what has been written

    @property
    def leaves_line_free(self) -> bool:
        """Whether the status line has a place of its own."""
        return self._ends_line or not self._is_terminal

    def item(self, value: Any) -> None:
        if self._as_json:
            self.line({"binary": _base64(value)} if isinstance(value, bytes) else {"item": value})
        elif isinstance(value, str):
            self._write_text(value)
        elif isinstance(value, bytes):
            if self._is_terminal:
                raise SeraiError("the algorithm yields binary data; write it with -o FILE or to a pipe")
            self._write(value)
        else:
            self._end_line()
            self.line(value)

    def progress(self, progress: "Progress") -> bool:
        """Whether it was written: only where everything is JSON."""
        if self._as_json:
            self.line({"progress": {"fraction": progress.fraction, "text": progress.text}})
        return self._as_json

    def waiting(self, waiting: "Waiting") -> bool:
        if self._as_json:
            about = {"state": waiting.state, "position": waiting.position, "estimate_s": waiting.estimate_s}
            self.line({"waiting": about})
        return self._as_json

    def line(self, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False)
        if self._is_terminal:
            text = printable(text)
            text = colour_json(text) if wants_colour() else text
        self._write(text.encode("utf-8", "backslashreplace") + b"\n")

    def rest(self) -> None:
        """No item comes any more, or none for now: what follows on a terminal is not ours."""
        if self._is_terminal:
            self._end_line()

    def close(self) -> None:
        """With a file that is complete, though it may be empty."""
        self._write(b"")
        if self._file is not None:
            self._file.close()

    def _end_line(self) -> None:
        if not self._ends_line:
            self._write(b"\n")
            self._ends_line = True

    def _write_text(self, text: str) -> None:
        shown = printable(text) if self._is_terminal else text
        if shown:
            self._write(shown.encode("utf-8", "backslashreplace"))
            self._ends_line = shown.endswith("\n")

    def _write(self, data: bytes) -> None:
        if self._path is None:
            write_bytes(data)
            return
        try:
            if self._file is None:
                self._file = self._path.open("wb")
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise SeraiError(f"cannot write {self._path}: {error.strerror or error}") from error


class StatusLine:
    """How the call is doing: one line of a terminal, written over and over; elsewhere a line when it has to wait."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._wants_colour = self._is_terminal and not os.environ.get("NO_COLOR")
        self._is_shown = False
        self._said = ""

    def waiting(self, waiting: "Waiting") -> None:
        if self._is_terminal:
            self._show(describe_waiting(waiting))
        elif waiting.state != self._said:  # its position changes often, and a log keeps every line
            self._said = waiting.state
            say(describe_waiting(waiting))

    def progress(self, progress: "Progress") -> None:
        if not self._is_terminal:
            return
        if progress.fraction is None:
            self._show(_one_line(progress.text))
            return
        num_full = round(progress.fraction * _BAR_CELLS)
        full, rest = "#" * num_full, "." * (_BAR_CELLS - num_full)
        bar = f"\x1b[32m{full}\x1b[0m{rest}" if self._wants_colour else full + rest
        self._show(f"{progress.fraction:5.0%} {_one_line(progress.text)}", f"[{bar}]", _BAR_CELLS + 2)

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._write(_CLEAR_LINE)

    def _show(self, text: str, before: str = "", num_cells: int = 0) -> None:
        """A line that was too long would not be written over but scroll."""
        room = shutil.get_terminal_size().columns - 1 - num_cells
        self._write(_CLEAR_LINE + before + text[: max(0, room)].rstrip())
        self._is_shown = True

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def describe_waiting(waiting: "Waiting") -> str:
    parts = ["starting" if waiting.state == "starting" else "waiting"]
    if waiting.position:
        parts.append(f"{waiting.position} call{'s' * (waiting.position != 1)} before this one")
    if waiting.estimate_s is not None:
        parts.append(f"about {waiting.estimate_s:.{1 if waiting.estimate_s < 10 else 0}f} s")
    return ", ".join(parts)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
