"""Publish the algorithm in a folder: what `git push` does, without git. The build's log appears while it runs."""

import argparse

from serai.cli._connection import add_connection_options, connect
from serai.cli._terminal import say, show_text

EXAMPLE = """
Sent are the folder's regular files, except .git, __pycache__ and .venv.
The log goes to stderr, the published name to stdout.

example:
  serai publish classify --private
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="the folder (default: this one)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--public", dest="visibility", action="store_const", const="public", help="anyone may call it")
    who.add_argument("--private", dest="visibility", action="store_const", const="private", help="only its owner may")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        version = client.publish(args.directory, args.visibility, on_log=say)
    say("published; call it with")
    say(f"  serai call {version.owner}/{version.name} -d ...")
    show_text(str(version))
    return 0
