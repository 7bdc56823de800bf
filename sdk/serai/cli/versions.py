"""List the versions of an algorithm, newest first, or tell the callers of one that it is deprecated."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json, add_limit, first
from serai.cli._table import local, show_table
from serai.cli._terminal import say, show_json
from serai.errors import Forbidden, NotFound, Unauthorized

if TYPE_CHECKING:
    from serai import Algorithm, Version

EXAMPLE = """
CALLS is the part of the calls without a version that each gets; `serai route` changes it. A version without a number
was built, but not published: only its owner can call it, by its hash. A deprecated version still runs; its callers
are told.

example:
  serai versions demo/hello
  serai versions demo/hello --deprecate 1.0.0 --message "1.1.0 is faster"
  serai versions demo/hello --undeprecate 1.0.0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "of which algorithm")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--published", action="store_true", help="only those that have a number")
    what.add_argument("--deprecate", metavar="V", help="tell the callers of this version --message")
    what.add_argument("--undeprecate", metavar="V", help="tell them no more")
    parser.add_argument("--message", metavar="TEXT", help="with --deprecate: one line, at most 500 characters")
    add_limit(parser)
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if (args.deprecate is None) != (args.message is None):
        args.usage_error("--deprecate V and --message TEXT go together: callers are told why, and what to use instead")
    with connect(args) as client:
        algorithm = client.algo(str(args.algorithm))
        if args.deprecate is not None:
            version = algorithm.deprecate(args.deprecate, args.message)
            return _done(args, {"deprecated": version.number}, f"{args.algorithm}/{version.number} is deprecated")
        if args.undeprecate is not None:
            algorithm.undeprecate(args.undeprecate)
            said = f"{args.algorithm}/{args.undeprecate} is no longer deprecated"
            return _done(args, {"undeprecated": args.undeprecate}, said)
        found = first(algorithm.versions(True if args.published else None), args.limit)
        parts = _parts(algorithm)
    if args.json:
        show_json([version.to_dict() | {"percent": parts.get(version.number or "", 0)} for version in found])
        return 0
    show_table(("VERSION", "HASH", "FOR", "PUBLISHED", "CALLS", "NOTES"), [_row(one, parts) for one in found])
    if not found:
        say(f"{args.algorithm} has no versions yet: push to its repository, or `serai publish DIR`")
    return 0


def _done(args: argparse.Namespace, answer: Mapping[str, object], said: str) -> int:
    show_json(answer) if args.json else say(said)
    return 0


def _parts(algorithm: "Algorithm") -> dict[str, int]:
    """Number to percent of the calls that name none."""
    try:
        if shares := algorithm.routing():
            return {share.version: share.percent for share in shares}
    except (Forbidden, Unauthorized):  # it is somebody else's: what a call gets is all there is to know
        pass
    try:
        version = algorithm.info().version
    except NotFound:
        return {}
    return {version.number: 100} if version is not None and version.number else {}


def _row(version: "Version", parts: Mapping[str, int]) -> tuple[str, ...]:
    part = parts.get(version.number or "")
    notes = f"deprecated: {version.deprecation}" if version.deprecation is not None else version.notes
    return (
        version.number or "-",
        version.hash[:12],
        "all" if version.public else "owner",
        local(version.published_at),
        f"{part} %" if part else "-",
        notes,
    )
