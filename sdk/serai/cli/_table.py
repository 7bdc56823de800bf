"""Tables for people: aligned columns, cut to the terminal where there is one."""

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime

from serai.cli._terminal import printable, wants_colour, write_text

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing where there are no rows: who calls says so."""
    if not rows:
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    first, *rest = table(head, rows, width)
    write_text("\n".join([f"{_DIM}{first}{_PLAIN}" if wants_colour() else first, *rest]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines, cut to `width` columns where one is given."""
    cells = [list(head), *([cell(text) for text in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("  ".join(f"{text:<{wide}}" for text, wide in zip(row, widths, strict=True)).rstrip() for row in cells)
    return [line[:width] for line in lines]


def cell(text: str) -> str:
    """One line of it, with nothing that could steer a terminal."""
    return " ".join(printable(text).split())


def local(time: datetime | None) -> str:
    """Local time to the minute."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time is not None else "-"
