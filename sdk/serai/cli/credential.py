"""Give git the API key as the password, where it asks for one: a credential helper. `serai clone` sets it up."""

import argparse
import sys
from urllib.parse import urlsplit

from serai.cli._connection import add_connection_options
from serai.cli._terminal import write_text
from serai.settings import load_settings

EXAMPLE = """
Git says on stdin which server it is about. Only where that is the one of --address (or of the settings) it is given the
key; for all others, and without a key, nothing is said, and git asks you. Nothing is stored.

example:
  serai credential get --address http://127.0.0.1:8000

in a repository:
  git config credential.http://127.0.0.1:8000.helper '!serai credential --address http://127.0.0.1:8000'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operation", metavar="get|store|erase", help="as git says it; only get does something")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.operation != "get":
        return 0
    asked: dict[str, str] = {}
    for line in sys.stdin:
        name, _, value = line.rstrip("\n").partition("=")
        asked[name] = value
    settings = load_settings(*(getattr(args, name, None) for name in ("key", "address", "profile")))
    parts = urlsplit(settings.address)
    is_ours = (asked.get("protocol"), asked.get("host", "").lower()) == (parts.scheme, parts.netloc.lower())
    if is_ours and settings.key is not None:
        write_text(f"username={asked.get('username') or 'key'}\npassword={settings.key}")
    return 0
