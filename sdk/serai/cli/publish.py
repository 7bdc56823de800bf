"""Publish the algorithm in a folder: what `git push` does, without git. The build's log appears while it runs."""

import argparse
import json
import shlex
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._terminal import say, show_text
from serai.cli.program import program

if TYPE_CHECKING:
    from serai._responses import PublishedVersion

#: Longest sample input that is shown in full.
_MAX_SAMPLE = 80

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


def _sample(version: "PublishedVersion") -> str:
    """The sample input of its manifest, where that fits on a line, as the shell takes it."""
    sample = version.details.get("sample")
    if sample is None:
        return "INPUT"
    text = sample if isinstance(sample, str) else json.dumps(sample, ensure_ascii=False)
    return shlex.quote(text) if len(text) <= _MAX_SAMPLE and text.isprintable() else "INPUT"


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        version = client.publish(args.directory, args.visibility, on_log=say)
    say("published; call it with")
    say(f"  {program()} call {version.owner}/{version.name} -d {_sample(version)}")
    show_text(str(version))
    return 0
