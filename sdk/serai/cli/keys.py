"""List, make and revoke API keys: yours, or those of an organization or, for the operator, of any user."""

import argparse
from typing import TYPE_CHECKING

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_json
from serai.cli._table import local, show_table
from serai.cli._terminal import say, show_json, show_text
from serai.errors import SeraiError

if TYPE_CHECKING:
    from serai import Client, Key, OrganizationHandle, UserHandle

EXAMPLE = """
`add` prints the key on stdout, once: nobody can show it again. A key makes none that may do more than itself.
`rm` takes an ID, or as much of it as the list shows.

example:
  serai keys
  serai keys add laptop
  serai keys add website --calls-only --algorithm demo/hello --algorithm vision/*
  serai keys rm 3f2a91c0
  serai keys --organization acme
"""

_SHORT = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", nargs="?", choices=("add", "rm"), help="what to do; left out: list them")
    parser.add_argument("what", nargs="?", metavar="LABEL|ID", help="with add what it is for, with rm which one")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", metavar="U", default="me", help="whose (your own); others are the operator's to see")
    whose.add_argument("--organization", metavar="O", help="those of an organization that you own")
    parser.add_argument("--calls-only", action="store_true", help="with add: it may call, not push or publish")
    parser.add_argument(
        "--algorithm",
        action="append",
        default=[],
        metavar="OWNER/NAME",
        help="with add: it may call only these, or OWNER/*; 100 at most (all that your own key may call)",
    )
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.verb is not None and args.what is None:
        args.usage_error("what is it for? serai keys add LABEL" if args.verb == "add" else "which? serai keys rm ID")
    if args.verb != "add" and (args.calls_only or args.algorithm):
        args.usage_error("--calls-only and --algorithm go with add")
    with connect(args) as client:
        holder = _holder(client, args)
        if args.verb == "add":
            return _add(holder, args)
        if args.verb == "rm":
            return _remove(holder, args)
        found = holder.keys()
    if args.json:
        show_json([key.to_dict() for key in found])
    else:
        show_table(("ID", "OWNER", "LABEL", "KEY", "MAY", "MADE", "ALGORITHMS"), [_row(key) for key in found])
        if not found:
            say(f"no keys of {args.organization or args.user} yet: `serai keys add LABEL` makes one")
    return 0


def _holder(client: "Client", args: argparse.Namespace) -> "UserHandle | OrganizationHandle":
    return client.organization(args.organization) if args.organization else client.user(args.user)


def _add(holder: "UserHandle | OrganizationHandle", args: argparse.Namespace) -> int:
    key = holder.create_key(args.what, manage=not args.calls_only, algorithms=args.algorithm)
    if args.json:
        show_json(key.to_dict())
        return 0
    say(f"a key of {key.owner} that may {_may(key)}; it is shown once:")
    show_text(key.text or "")
    return 0


def _remove(holder: "UserHandle | OrganizationHandle", args: argparse.Namespace) -> int:
    keys = holder.keys()
    fitting = [key for key in keys if key.id.startswith(args.what.lower())]
    if len(fitting) != 1:
        which = "several keys begin" if fitting else "no key begins"
        raise SeraiError(f"{which} with {args.what!r}; `serai keys` lists them")
    holder.revoke_key(fitting[0].id)
    show_json({"revoked": fitting[0].id}) if args.json else say(f"{fitting[0].mask} ({fitting[0].label}) is revoked")
    return 0


def _row(key: "Key") -> tuple[str, ...]:
    algorithms = ", ".join(key.algorithms)
    return key.id[:_SHORT], key.owner, key.label, key.mask, _may(key), local(key.created_at), algorithms


def _may(key: "Key") -> str:
    return " and ".join(what for what, it_may in (("call", key.may_call), ("manage", key.may_manage)) if it_may) or "-"
