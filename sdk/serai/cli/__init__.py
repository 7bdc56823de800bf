"""The `serai` command. One module a command; only the one that is asked for is imported."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from serai import __version__
from serai.cli._connection import VALUED_OPTIONS, add_connection_options
from serai.cli._terminal import complain, say
from serai.errors import SeraiError, Unauthorized

#: Command -> what it does in one line; the module has the command's name.
COMMANDS = {
    "up": "start everything on this machine",
    "call": "call an algorithm",
    "new": "make a folder with a working algorithm",
    "publish": "publish the algorithm in a folder",
    "algorithms": "list the algorithms you may call",
    "logs": "show what an algorithm of yours printed, and how it failed",
    "pool": "show what is in memory and why, and steer it",
    "version": "say which version this is",
}

EXIT_ERROR = 1
EXIT_USAGE = 2
#: 128 and the number of the signal, as shells report SIGINT and SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141

_EXAMPLES = """
example:
  serai up
  serai call demo/hello -d HAL

`serai COMMAND --help` says more about each.
"""


_WHERE_KEYS_COME_FROM = (
    "the key is taken from --key, SERAI_API_KEY or a profile; for a server on this machine also from operator.key "
    "in SERAI_HOME (default ~/.serai)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 output not read."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a reader that has gone shows here, not in the interpreter's exit
    except SystemExit as done:  # argparse, after --help or wrong usage
        return done.code if isinstance(done.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_PIPE_CLOSED
    except SeraiError as error:
        complain(error)
        if isinstance(error, Unauthorized):
            say(_WHERE_KEYS_COME_FROM)
        return EXIT_ERROR
    return status


def _run(argv: list[str]) -> int:
    before, rest = _split(argv)
    parser = _top_parser()
    options = parser.parse_args(before)
    if not rest:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    command, *arguments = rest
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"no command {command!r}; {hint}")
    module = import_module(f"serai.cli.{command}")
    if command == "up":
        if before:
            parser.error("`serai up` takes its options after the word up")
        return module.start(arguments)
    return module.run(command_parser(command).parse_args(arguments, options))


def command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command other than `up`, whose options belong to the server."""
    module = import_module(f"serai.cli.{command}")
    parser = argparse.ArgumentParser(
        prog=f"serai {command}",
        description=module.__doc__,
        epilog=module.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.set_defaults(usage_error=parser.error)  # for what only shows once the arguments are seen together
    return parser


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Options before the command, and the command with all that follows it."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 2 if argv[at] in VALUED_OPTIONS else 1
    return argv[:at], argv[at:]


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="serai",
        usage="serai [--address URL] [--key KEY] [--profile NAME] COMMAND ...",
        description="Call algorithms, publish them, and run the server they live on.",
        epilog=f"commands:\n{commands}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"serai {__version__}")
    add_connection_options(parser)
    return parser


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing on the closed pipe."""
    with suppress(OSError, ValueError):  # under a test it may be no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
