"""List the builds of an algorithm, newest first; show what one said; build what was pushed last."""

import argparse
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json, add_limit, first
from serai.cli._table import local, show_table
from serai.cli._terminal import say, show_json, show_text
from serai.errors import SeraiError

if TYPE_CHECKING:
    from serai import Algorithm, Build

EXAMPLE = """
A push is built by itself; --compile builds the same commit once more, for instance to publish it again, and exits
with 1 where that fails. The log of a build is there when it has ended. Builds have 15 minutes.

example:
  serai builds demo/hello
  serai builds demo/hello --log
  serai builds demo/hello --log 3f2a91c0
  serai builds demo/hello --compile
"""

#: How much of an id the table shows; --log takes as much.
_SHORT = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "of which algorithm; its owner only")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--log", nargs="?", const="", metavar="ID", help="print what this build said, or the newest one; 8 digits do"
    )
    what.add_argument("--compile", action="store_true", help="build the head of the default branch, and print its log")
    add_limit(parser)
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        algorithm = client.algo(str(args.algorithm))
        if args.log is not None:
            build = _find(algorithm, args.log)
            return _show_log(build, algorithm.build_log(build.id), args.json)
        if args.compile:
            build = algorithm.compile()
            return _show_log(build, build.log or "", args.json) or int(build.status == "failed")
        found = first(algorithm.builds(), args.limit)
    if args.json:
        show_json([build.to_dict() for build in found])
        return 0
    show_table(("ID", "STATUS", "COMMIT", "STARTED", "TOOK", "VERSION"), [_row(build) for build in found])
    if not found:
        say(f"{args.algorithm} was never built: push to its repository, or `serai publish DIR`")
    return 0


def _find(algorithm: "Algorithm", id: str) -> "Build":
    """By the beginning of its id. Raises SeraiError."""
    for build in algorithm.builds():
        if build.id.startswith(id.lower()):
            return build
    name = algorithm.reference
    raise SeraiError(f"{name} has no build {id}; `serai builds {name}` lists them" if id else f"{name} was never built")


def _show_log(build: "Build", log: str, as_json: bool) -> int:
    if as_json:
        show_json(build.to_dict() | {"log": log})
        return 0
    show_text(log)
    say(f"build {build.id}: {build.status}")
    return 0


def _row(build: "Build") -> tuple[str, ...]:
    took = f"{(build.finished_at - build.started_at).total_seconds():.1f} s" if build.finished_at else "-"
    return build.id[:_SHORT], build.status, build.commit[:12], local(build.started_at), took, build.version or "-"
