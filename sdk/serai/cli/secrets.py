"""List, set and remove the secrets of an algorithm: variables that its own processes see, and nobody else."""

import argparse
import getpass
import sys

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json
from serai.cli._table import local, show_table
from serai.cli._terminal import say, show_json
from serai.errors import SeraiError

EXAMPLE = """
KEY is a letter or _, then letters, digits and _, 128 at most; a value is text of 8 KiB at most. `set KEY` alone asks
for the value without showing it, or takes it from stdin, without the newline at its end. In `set KEY=VALUE` others on
this machine can see it, and your shell remembers it. The next call has it; nothing ever shows it again.

example:
  serai secrets demo/hello
  serai secrets demo/hello set TOKEN
  serai secrets demo/hello set REGION=eu-west --description "where the data is"
  serai secrets demo/hello rm TOKEN
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "of which algorithm; its owner only")
    parser.add_argument("verb", nargs="?", choices=("set", "rm"), help="what to do; left out: list them")
    parser.add_argument("variable", nargs="?", metavar="KEY[=VALUE]", help="with which; VALUE with set only")
    parser.add_argument("--name", metavar="TEXT", help="with set: what people call it (the KEY), 128 characters")
    parser.add_argument("--description", metavar="TEXT", help="with set: what it is for, 1000 characters")
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.verb is not None and not args.variable:
        args.usage_error(f"which secret? serai secrets {args.algorithm} {args.verb} KEY")
    if args.verb != "set" and (args.name is not None or args.description is not None):
        args.usage_error("--name and --description go with set")
    if args.verb == "set":
        return _set(args)
    if args.verb == "rm":
        return _remove(args)
    with connect(args) as client:
        found = client.algo(str(args.algorithm)).secrets()
    if args.json:
        show_json([secret.to_dict() for secret in found])
        return 0
    rows = [(secret.key, secret.name, local(secret.modified_at), secret.description) for secret in found]
    show_table(("KEY", "NAME", "CHANGED", "DESCRIPTION"), rows)
    if not found:
        say(f"{args.algorithm} has no secrets: `serai secrets {args.algorithm} set KEY` makes one")
    return 0


def _set(args: argparse.Namespace) -> int:
    key, has_value, value = args.variable.partition("=")
    if not has_value:
        value = _read(key)
    with connect(args) as client:
        algorithm = client.algo(str(args.algorithm))
        secret = algorithm.set_secret(key, value, name=args.name, description=args.description)
    show_json(secret.to_dict()) if args.json else say(f"{key} is set for the next calls of {args.algorithm}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    with connect(args) as client:
        client.algo(str(args.algorithm)).delete_secret(args.variable)
    show_json({"removed": args.variable}) if args.json else say(f"{args.variable} is gone")
    return 0


def _read(key: str) -> str:
    """From the terminal, which does not show it, else from stdin. Raises SeraiError."""
    if sys.stdin.isatty():
        return getpass.getpass(f"value of {key} (not shown): ", sys.stderr)
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise SeraiError("the value on stdin is no text; write binary data in base64") from error
