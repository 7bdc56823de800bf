"""List, add and remove the users of this server; the operator's key only."""

import argparse

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_json, add_limit, first, is_meant
from serai.cli._table import show_table
from serai.cli._terminal import say, show_json, show_text

EXAMPLE = """
`add` makes a user with a key, and prints the key on stdout, once: it is what the user needs, as SERAI_API_KEY.
NAME is a letter, then letters, digits, - and _, 64 at most. `rm` takes users that own nothing any more.

example:
  serai accounts
  serai accounts add ada --email ada@example.com
  serai accounts rm ada
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", nargs="?", choices=("add", "rm"), help="what to do; left out: list them")
    parser.add_argument("name", nargs="?", metavar="NAME", help="with whom")
    parser.add_argument("--email", metavar="E", help="with add: where the user is reached")
    parser.add_argument("--fullname", metavar="TEXT", default="", help="with add: what people call the user")
    parser.add_argument("--yes", action="store_true", help="with rm: do not ask; needed where nobody can be asked")
    add_limit(parser)
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.verb is not None and not args.name:
        args.usage_error(f"who? serai accounts {args.verb} NAME")
    if args.verb == "add":
        return _add(args)
    if args.verb == "rm":
        return _remove(args)
    with connect(args) as client:
        found = first(client.users(), args.limit)
    if args.json:
        show_json([user.to_dict() for user in found])
    else:
        show_table(("NAME", "EMAIL", "FULL NAME"), [(user.name, user.email, user.fullname) for user in found])
    return 0


def _add(args: argparse.Namespace) -> int:
    if not args.email:
        args.usage_error(f"how is {args.name} reached? serai accounts add {args.name} --email ADDRESS")
    with connect(args) as client:
        handle = client.user(args.name)
        user = handle.create(args.email, args.fullname)
        key = handle.create_key("first key")
    if args.json:
        show_json(user.to_dict() | {"key": key.text})
        return 0
    say(f"{user.name} is there, with this key, which is shown once:")
    show_text(key.text or "")
    return 0


def _remove(args: argparse.Namespace) -> int:
    if not is_meant(args, f"remove {args.name}? Nobody will have that name again.", "nobody was removed"):
        return 1
    with connect(args) as client:
        client.user(args.name).delete()
    show_json({"removed": args.name}) if args.json else say(f"{args.name} is removed")
    return 0
