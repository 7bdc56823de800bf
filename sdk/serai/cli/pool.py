"""Show what the pool holds in memory and why, or steer one model of it. For the operator's key."""

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING

from serai._requests import POOL_VERBS, steer_request
from serai.cli._connection import add_connection_options, connect
from serai.cli._pool_picture import draw
from serai.cli._terminal import say, show_json, wants_colour, write_bytes, write_text
from serai.errors import BadAnswer

if TYPE_CHECKING:
    from serai import Client

EXAMPLE = """
Bars are to scale: a letter for each model, + for those too small for one, # for what workers take without models,
/ reserved for loads and runs, . free. In the table - is no figure: in no device's memory, or not called yet.

load brings a model into memory, pin keeps it there until unpin, unload or a restart of the pool.

example:
  serai pool
  serai pool --watch 1
  serai pool pin vision/classify
"""

#: Seconds between two looks where --watch does not say.
_INTERVAL_S = 2.0
#: Cursor home, and nothing after it.
_CLEAR = b"\x1b[H\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", nargs="?", choices=POOL_VERBS, help="what to do; left out: show the pool")
    parser.add_argument("model", nargs="?", metavar="OWNER/NAME[/MODEL]", help="with which model")
    parser.add_argument("--version", metavar="V", help="of which version (default: what a call would run)")
    parser.add_argument("--all", action="store_true", help="show all models, also if many are not in memory")
    parser.add_argument("--json", action="store_true", help="what the server says, as JSON")
    parser.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=_INTERVAL_S,
        metavar="S",
        help=f"look again every S seconds ({_INTERVAL_S:g}) until interrupted",
    )
    add_connection_options(parser)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be between 0.1 and 3600 seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    if args.verb is not None:
        return _steer(args)
    if args.version is not None:
        args.usage_error("--version goes with load, unload, pin or unpin")
    with connect(args) as client:
        _show(client, args)
        while args.watch is not None:
            time.sleep(args.watch)
            _show(client, args)
    return 0


def _steer(args: argparse.Namespace) -> int:
    model = args.model or ""
    if args.watch is not None or args.all:
        args.usage_error(f"--watch and --all show the pool; they do not go with {args.verb}")
    try:
        steer_request(args.verb, model, args.version)  # wrong usage is told before anybody is asked
    except ValueError as error:
        args.usage_error(str(error) if model else f"which model? serai pool {args.verb} OWNER/NAME[/MODEL]")
        raise  # not reached: usage_error exits
    with connect(args) as client:
        answer = client.steer(args.verb, model, args.version)
    if args.json:
        show_json(answer)
        return 0
    done = {"load": "loaded", "unload": "unloaded", "pin": "pinned", "unpin": "no longer pinned"}[args.verb]
    say(f"{model} is {done}")
    return 0


def _show(client: "Client", args: argparse.Namespace) -> None:
    pool = client.pool()
    if args.json:
        show_json(pool)
        return
    on_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    try:
        picture = draw(pool, width, colour=wants_colour(), show_all=args.all)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswer("this server describes its pool in another way; is the client as new as the server?") from error
    if args.watch is not None and on_terminal:
        write_bytes(_CLEAR)
    write_text(picture if args.watch is None or on_terminal else picture + "\n")
