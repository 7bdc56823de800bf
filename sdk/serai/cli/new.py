"""Make a folder with a working algorithm: run it as it is, then change src/."""

import argparse
import re
import shlex
from pathlib import Path

from serai.cli._connection import add_connection_options
from serai.cli._git import helper, helper_name, repository
from serai.cli._starters import LANGUAGES, module_name, starter
from serai.cli._terminal import say, show_text
from serai.cli.program import program
from serai.errors import SeraiError
from serai.settings import load_settings

__all__ = ["EXAMPLE", "add_arguments", "module_name", "run", "write_algorithm"]

EXAMPLE = """
It says how to publish with or without git. The address of the server is put into what it says; nobody is asked.

example:
  serai new classify --owner vision
  serai publish classify
  serai new slug --language javascript
"""

#: The account that a first `serai up` creates: what works on one's own machine without asking.
DEFAULT_OWNER = "operator"

#: As the server takes names: they are part of a URL.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME", help="what it is called in URLs: OWNER/NAME")
    parser.add_argument(
        "--owner", type=_name, default=DEFAULT_OWNER, metavar="O", help=f"who it belongs to (default {DEFAULT_OWNER})"
    )
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        default=LANGUAGES[0],
        help=f"what it is written in (default {LANGUAGES[0]}); c shows how any compiled language goes",
    )
    parser.add_argument("--dir", metavar="D", help="where to make it (default: ./NAME)")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    profile = getattr(args, "profile", None)
    settings = load_settings(getattr(args, "key", None), getattr(args, "address", None), profile)
    folder = Path(args.dir or args.name)
    write_algorithm(folder, args.owner, args.name, args.language)
    where = shlex.quote(str(folder))
    say(f"made {folder}; publish it with")
    show_text(f"{program()} publish {where if '/' not in where or where[0] in '/.' else f'./{where}'}")
    say("or with git, where every push is built before it is taken:")
    show_text("\n".join((
        f"cd {where}",
        "git init -q && git add . && git commit -q -m 'First version'",
        f"git config {helper_name(settings)} {shlex.quote(helper(settings, profile))}",
        f"git remote add origin {repository(settings, args.owner, args.name)}",
        "git push -u origin HEAD",
    )))  # fmt: skip
    say("and call it with")
    show_text(f"{program()} call {args.owner}/{args.name} -d HAL")
    return 0


def write_algorithm(folder: Path, owner: str, name: str, language: str = LANGUAGES[0]) -> None:
    """Write a working algorithm into a new or empty folder; SeraiError if there is something in it already."""
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise SeraiError(f"{folder} exists already; choose another place with --dir")
        for path, text in starter(language, owner, name).items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")
            if path.startswith("bin/"):
                place.chmod(0o755)
    except OSError as error:
        raise SeraiError(f"cannot write {folder}: {error.strerror or error}") from error


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a letter, then letters, digits, _ and -, at most 64 in all")
    return text
