"""Publish the algorithm in a folder: what `git push` does, without git. The build's log appears while it runs."""

import argparse
import json
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.cli._connection import add_connection_options, connect
from serai.cli._terminal import say, show_text
from serai.cli.program import program

if TYPE_CHECKING:
    from serai._responses import PublishedVersion

#: Longest sample input that is shown in full.
_MAX_SAMPLE = 80

EXAMPLE = """
Sent are the folder's regular files, except .git, __pycache__ and .venv.
The log goes to stderr, the published name to stdout.

example:
  serai publish classify --private
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="the folder (default: this one)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--public", dest="visibility", action="store_const", const="public", help="anyone may call it")
    who.add_argument("--private", dest="visibility", action="store_const", const="private", help="only its owner may")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        version = client.publish(args.directory, args.visibility, on_log=say)
    for line in _how_to_call(version, _manifest(Path(args.directory))):
        say(line)
    show_text(str(version))
    return 0


def _how_to_call(version: "PublishedVersion", manifest: dict[str, Any]) -> list[str]:
    """What to type next. An algorithm without code takes no text, and with several models no calls at all."""
    name = f"{version.owner}/{version.name}"
    models = [] if manifest.get("algorithm", {}).get("language") else list(manifest.get("models", {}))
    if len(models) > 1:
        paths = [f"  POST /v2/models/{name}/{model}/infer" for model in models]
        return ["published; it has no code, so each of its models is called by itself (docs/v2.md says how):", *paths]
    call, sample = f"  {program()} call {name} -d", _sample(version)
    if sample:
        return ["published; call it with", f"{call} {sample}"]
    if models:
        return [
            "published; call it with the JSON numbers of its input, as many and as deeply nested as its shape says,",
            f"{call} '[[…]]'",
            f"with a dictionary of them by name where it has several; GET /v2/models/{name} tells names and shapes",
        ]
    return ["published; call it with", f"{call} INPUT"]


def _sample(version: "PublishedVersion") -> str:
    """The sample input of its manifest, where that fits on a line, as the shell takes it; else empty."""
    sample = version.details.get("sample")
    if sample is None:
        return ""
    text = sample if isinstance(sample, str) else json.dumps(sample, ensure_ascii=False)
    return shlex.quote(text) if len(text) <= _MAX_SAMPLE and text.isprintable() else ""


def _manifest(folder: Path) -> dict[str, Any]:
    """What was published, as far as its algorithm.toml says so."""
    try:
        return tomllib.loads((folder / "algorithm.toml").read_text("utf-8-sig"))
    except (OSError, ValueError):  # an algorithmia.conf; or it has just been changed
        return {}
