"""Make a folder with a working algorithm: run it as it is, then change src/."""

import argparse
import re
import shlex
import sys
from pathlib import Path

from serai.cli._terminal import say, show_text
from serai.cli.program import program
from serai.errors import SeraiError

EXAMPLE = """
example:
  serai new classify --owner vision
  serai publish classify
"""

#: The account that a first `serai up` creates: what works on one's own machine without asking.
DEFAULT_OWNER = "operator"

#: As the server takes names: they are part of a URL.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_MANIFEST = """\
[algorithm]
owner = "{owner}"
name = "{name}"
tagline = "Says hello"
language = "python"
{entry}
[limits]
timeout = "30s"
memory = "512MiB"
concurrency = 1                     # calls that one process handles at once

[permissions]
network = false
calls = false                       # may call other algorithms

[sample]
input = "HAL"
"""

_SOURCE = '''\
def apply(input):
    """Called once for each input: a str, bytes, or whatever the JSON says. What it returns is the result."""
    return f"Hello, {input}"
'''

_README = """\
# {name}

Says hello to whoever is named.

```
serai call {owner}/{name} -d HAL
```

`src/{module}.py` is the algorithm, `requirements.txt` the packages it needs, `algorithm.toml` all the rest.
"""

_IGNORED = "__pycache__/\n.venv/\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME", help="what it is called in URLs: OWNER/NAME")
    parser.add_argument(
        "--owner", type=_name, default=DEFAULT_OWNER, metavar="O", help=f"who it belongs to (default {DEFAULT_OWNER})"
    )
    parser.add_argument("--dir", metavar="D", help="where to make it (default: ./NAME)")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.dir or args.name)
    write_algorithm(folder, args.owner, args.name)
    say(f"made {folder}; publish and call it with")
    show_text(f"{program()} publish {shlex.quote(str(folder))}\n{program()} call {args.owner}/{args.name} -d HAL")
    return 0


def write_algorithm(folder: Path, owner: str, name: str) -> None:
    """Write a working algorithm into a new or empty folder; SeraiError if there is something in it already."""
    module = module_name(name)
    entry = "" if module == name else f'entry = "{module}"  # src/{module}.py\n'
    texts = {
        "algorithm.toml": _MANIFEST.format(owner=owner, name=name, entry=entry),
        f"src/{module}.py": _SOURCE,
        "README.md": _README.format(owner=owner, name=name, module=module),
        "requirements.txt": "",
        ".gitignore": _IGNORED,
    }
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise SeraiError(f"{folder} exists already; choose another place with --dir")
        (folder / "src").mkdir(parents=True)
        for path, text in texts.items():
            (folder / path).write_text(text, "utf-8")
    except OSError as error:
        raise SeraiError(f"cannot write {folder}: {error.strerror or error}") from error


def module_name(name: str) -> str:
    """The module under src/: the algorithm's name, unless Python could not import it or means another by it."""
    module = name.replace("-", "_")
    return f"{module}_algorithm" if module in sys.stdlib_module_names or module == "serai" else module


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a letter, then letters, digits, _ and -, at most 64 in all")
    return text
