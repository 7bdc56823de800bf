"""List the algorithms you may call: name, newest version, who may call it, and tagline."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_json, add_limit, first
from serai.cli._table import show_table
from serai.cli._terminal import say, show_json

if TYPE_CHECKING:
    from serai import AlgorithmInfo

EXAMPLE = """
VERSION is what a call without a version gets. Where there is none, your own say why: nothing was built yet, or what was
built is not published, and only you can call it.

example:
  serai algorithms
  serai algorithms image --json
  serai algorithms --mine
"""

_STATES = {"empty": "not built yet", "built": "not published"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", default="", metavar="QUERY", help="only those that match, 200 characters")
    owners = parser.add_mutually_exclusive_group()
    owners.add_argument("--owner", metavar="O", help="only those of this user or organization")
    owners.add_argument("--mine", action="store_true", help="only your own")
    add_limit(parser)
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        owner = client.user().info().name if args.mine else args.owner
        found = first(client.algorithms(args.query, owner), args.limit)
    if args.json:
        show_json([asdict(info) for info in found])
        return 0
    show_table(("NAME", "VERSION", "FOR", "TAGLINE"), [_row(info) for info in found])
    if not found:
        of = f" of {owner}" if owner else ""
        what = f" match {args.query!r}" if args.query else ""
        say(f"no algorithms{of}{what}" + (" yet: `serai new NAME` begins one" if args.mine and not args.query else ""))
    return 0


def _row(info: "AlgorithmInfo") -> tuple[str, str, str, str]:
    for_whom = "all" if info.visibility == "public" else "owner"
    return f"{info.owner}/{info.name}", info.version or _STATES.get(info.state, "-"), for_whom, info.tagline
