"""List the algorithms you may call: name, newest version and tagline."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._terminal import printable, say, show_json, write_text

if TYPE_CHECKING:
    from serai import AlgorithmInfo

EXAMPLE = """
example:
  serai algorithms
  serai algorithms image --json
"""

#: Rows without --limit: more than a screen holds, and one page of the server's listing.
DEFAULT_LIMIT = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", default="", metavar="QUERY", help="only those that match")
    parser.add_argument("--limit", type=int, default=DEFAULT_LIMIT, help=f"at most so many (default {DEFAULT_LIMIT})")
    parser.add_argument("--json", action="store_true", help="as a JSON list, for programs")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    limit = max(args.limit, 0)
    with connect(args) as client:
        found = list(islice(client.algorithms(args.query), limit + 1))
    shown = found[:limit]
    if args.json:
        show_json([asdict(info) for info in shown])
    elif shown:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        write_text(table(shown, width))
    if not found:
        say("no algorithms" + (f" match {args.query!r}" if args.query else " yet: `serai new NAME` begins one"))
    elif len(found) > limit:
        say(f"there are more than {limit}: give a QUERY or a larger --limit")
    return 0


def table(infos: Sequence["AlgorithmInfo"], width: int | None) -> str:
    """Aligned columns; lines are cut to `width` columns where one is given."""
    rows = [("NAME", "VERSION", "TAGLINE"), *(_row(info) for info in infos)]
    name_width, version_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = (f"{name:<{name_width}}  {version:<{version_width}}  {tagline}".rstrip() for name, version, tagline in rows)
    return "\n".join(line[:width] for line in lines)


def _row(info: "AlgorithmInfo") -> tuple[str, str, str]:
    mark = " (private)" if info.visibility == "private" else ""
    return _cell(f"{info.owner}/{info.name}{mark}"), _cell(info.version or "-"), _cell(info.tagline)


def _cell(text: str) -> str:
    return " ".join(printable(text).split())
