"""Delete an algorithm with its versions, repository, builds, secrets and logs. There is no way back."""

import argparse

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json, is_meant
from serai.cli._terminal import say, show_json

EXAMPLE = """
One that was ever published for all is only the operator's to delete: others count on it. Deprecate its versions
instead.

example:
  serai delete demo/hello
  serai delete demo/hello --yes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "which one")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can be asked")
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    question = f"delete {args.algorithm} with all its versions, its repository and its secrets?"
    if not is_meant(args, question, "nothing was deleted"):
        return 1
    with connect(args) as client:
        client.algo(str(args.algorithm)).delete()
    show_json({"deleted": str(args.algorithm)}) if args.json else say(f"{args.algorithm} is deleted")
    return 0
