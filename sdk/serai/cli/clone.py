"""Get the repository of an algorithm with git, which then knows your key: change, commit, `git push`."""

import argparse
import os
import shutil
import sys

from serai.cli._connection import add_connection_options
from serai.cli._git import helper, helper_name, repository
from serai.cli._named import add_algorithm
from serai.errors import SeraiError
from serai.settings import load_settings

EXAMPLE = """
For your own algorithms, and for others whose source is open. The key is not written anywhere: git asks `serai
credential` for it, which finds it where every command does.

example:
  serai clone demo/hello
  serai clone demo/hello somewhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "whose")
    parser.add_argument("directory", nargs="?", metavar="DIR", help="where to put it (default: ./NAME)")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    """Becomes git."""
    git = shutil.which("git")
    if git is None:
        raise SeraiError("git is not installed: install it with your system's package manager")
    profile = getattr(args, "profile", None)
    settings = load_settings(getattr(args, "key", None), getattr(args, "address", None), profile)
    if getattr(args, "key", None):
        os.environ["SERAI_API_KEY"] = args.key
    source = repository(settings, args.algorithm.owner, args.algorithm.name)
    config = f"{helper_name(settings)}={helper(settings, profile)}"
    folder = args.directory or args.algorithm.name
    sys.stdout.flush()
    os.execv(git, [git, "clone", "--config", config, "--", source, folder])  # noqa: S606
