"""The algorithm that a command is about, and options that several commands have."""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from serai._requests import parse_reference
from serai.cli._terminal import confirm, say

if TYPE_CHECKING:
    from serai._requests import Reference

T = TypeVar("T")

#: Rows without --limit: more than a screen holds, and one page of the server's lists.
DEFAULT_LIMIT = 100


def add_algorithm(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("algorithm", type=algorithm_name, metavar="OWNER/NAME", help=help)


def algorithm_name(text: str) -> "Reference":
    """For argparse: a name without a version."""
    try:
        reference = parse_reference(text)
    except ValueError:
        reference = None
    if reference is None or reference.version is not None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an algorithm: write OWNER/NAME")
    return reference


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for programs; errors, too, on stderr")


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=_rows, default=DEFAULT_LIMIT, metavar="N", help=f"N rows at most (default {DEFAULT_LIMIT})"
    )


def _rows(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError("must be a number of rows from 1 to 1000000")
    return int(text)


def first(found: Iterable[T], limit: int) -> list[T]:
    """The first `limit`; a word on stderr where there are more."""
    some = list(islice(found, limit + 1))
    if len(some) > limit:
        say(f"there are more than {limit}: --limit N shows more")
    return some[:limit]


def is_meant(args: argparse.Namespace, question: str, otherwise: str) -> bool:
    """Whether `--yes` was given, or somebody at the terminal says so; if not, `otherwise` is said."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        args.usage_error("nobody is at a terminal to be asked: --yes says that it is meant")
    if confirm(question):
        return True
    say(otherwise)
    return False
