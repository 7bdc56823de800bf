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
from serai.errors import Conflict, Forbidden, NotFound, SeraiError, Unauthorized

#: Command -> what it does in one line; the module has the command's name.
COMMANDS = {
    "up": "start everything on this machine",
    "call": "call an algorithm",
    "new": "make a folder with a working algorithm",
    "clone": "get the repository of an algorithm, ready to push",
    "publish": "publish the algorithm in a folder, or the last push of one",
    "algorithms": "list the algorithms you may call",
    "show": "show one algorithm: what it is, runs and needs",
    "versions": "list the versions of an algorithm, and deprecate one",
    "route": "divide calls among versions: roll back, try a new one on some",
    "builds": "list the builds of an algorithm, show their logs, start one",
    "logs": "show what an algorithm of yours printed, and how it failed",
    "secrets": "list, set and remove what only the algorithm may see",
    "delete": "delete an algorithm",
    "keys": "list, make and revoke API keys",
    "accounts": "list, add and remove users (operator)",
    "pool": "show what is in memory and why, and steer it",
    "credential": "give git the key, for clone and push",
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


#: Of the management API.
_NO_SUCH_ALGORITHM, _PUBLISHED_ALREADY, _NOT_AUTHORIZED = 1000, 1007, 2001

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
    args = command_parser(command).parse_args(arguments, options)
    try:
        return module.run(args)
    except SeraiError as error:
        as_json = getattr(args, "json", False)
        complain(error, as_json)
        if not as_json and (hint := _hint(error)):
            say(hint)
        return EXIT_ERROR


def _hint(error: SeraiError) -> str:
    """What to do about it, where the server cannot know that."""
    if isinstance(error, Unauthorized):
        return _WHERE_KEYS_COME_FROM
    if isinstance(error, Forbidden) and error.number == _NOT_AUTHORIZED:
        return "this is for its owner, or for the operator; `serai keys` says whose key this is"
    if isinstance(error, NotFound) and error.number == _NO_SUCH_ALGORITHM:
        return "it may be private to somebody else; `serai algorithms` lists what you may call"
    if isinstance(error, Conflict) and error.number == _PUBLISHED_ALREADY:
        return "`serai builds OWNER/NAME --compile` builds the same commit again, and `serai publish` then numbers that"
    return ""


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
