"""Divide the calls that name no version among versions: to try a new one on some of them, or to roll back."""

import argparse
import re
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json
from serai.cli._table import show_table
from serai.cli._terminal import say, show_json

if TYPE_CHECKING:
    from serai import Share

EXAMPLE = """
Without parts it shows how they are divided now. While they are divided, or sent to one version, publishing changes
nothing for them; --newest ends that. 1 to 10 public versions, 1 to 100 percent each, 100 together.

example:
  serai route demo/hello
  serai route demo/hello 1.3.0=10 1.2.0=90
  serai route demo/hello 1.2.0
  serai route demo/hello --back
  serai route demo/hello --newest
"""

_PART = re.compile(r"(?P<version>[0-9]+\.[0-9]+\.[0-9]+)(?:=(?P<percent>[0-9]{1,3})%?)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "whose calls")
    parser.add_argument(
        "parts", nargs="*", type=_part, metavar="V=PERCENT", help="how much each version gets; V alone gets all"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--newest", action="store_true", help="all to the newest public version, whenever there is one")
    how.add_argument("--back", action="store_true", help="all to the public version before the newest that any run now")
    add_json(parser)
    add_connection_options(parser)


def _part(text: str) -> tuple[str, int]:
    match = _PART.fullmatch(text)
    if match is None or not 1 <= int(match["percent"] or 100) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: write 1.2.0=90 (1 to 100 percent), or 1.2.0 for all")
    return match["version"], int(match["percent"] or 100)


def run(args: argparse.Namespace) -> int:
    if args.parts and (args.newest or args.back):
        args.usage_error("name parts, or --newest, or --back")
    shares = dict(args.parts)
    if args.parts and (len(shares) < len(args.parts) or sum(shares.values()) != 100):
        args.usage_error(f"the parts of different versions must be 100 together, not {sum(p for _, p in args.parts)}")
    with connect(args) as client:
        algorithm = client.algo(str(args.algorithm))
        if args.newest:
            algorithm.route_to_newest()
            now: tuple[Share, ...] = ()
        elif args.back:
            now = algorithm.rollback()
        else:
            now = algorithm.route(shares) if shares else algorithm.routing()
    if args.json:
        show_json([share.to_dict() for share in now])
        return 0
    show_table(("VERSION", "CALLS"), [(share.version, f"{share.percent} %") for share in now])
    if not now:
        say(f"calls of {args.algorithm} without a version go to its newest public version")
    return 0
