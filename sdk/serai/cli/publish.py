"""Publish the algorithm in a folder, without git, while the build's log appears; or what `git push` built last."""

import argparse
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_json
from serai.cli._terminal import say, show_json, show_text
from serai.cli.program import program

if TYPE_CHECKING:
    from serai._responses import PublishedVersion

#: Longest sample input that is shown in full.
_MAX_SAMPLE = 80

#: An algorithm's name; a folder that looks like one is written with ./ before it.
_ALGORITHM = re.compile(r"algo://[^/]+/[^/]+|[A-Za-z][A-Za-z0-9_-]*/[A-Za-z][A-Za-z0-9_-]*")

EXAMPLE = """
A folder is built, committed and published at once; its number follows from what has changed. Sent are its regular
files, except .git, __pycache__, .venv and node_modules. An algorithm (OWNER/NAME) has been built by `git push`:
publishing gives that build its number. A folder whose path looks like OWNER/NAME is written ./like/this.
The log goes to stderr, the published name to stdout.

example:
  serai publish classify --private
  serai publish vision/classify --minor --public --notes "twice as fast"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default=".", metavar="DIR|OWNER/NAME", help="a folder (this one), or what was pushed last"
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--public", dest="visibility", action="store_const", const="public", help="anyone may call it")
    who.add_argument(
        "--private",
        dest="visibility",
        action="store_const",
        const="private",
        help="only its owner may (default: private for a folder, as the algorithm is for OWNER/NAME)",
    )
    numbers = parser.add_mutually_exclusive_group()
    for number in ("major", "minor", "revision"):
        numbers.add_argument(
            f"--{number}",
            dest="number",
            action="store_const",
            const=number,
            help=f"of OWNER/NAME: one more in its {number} number" + " (default)" * (number == "revision"),
        )
    parser.add_argument("--notes", metavar="TEXT", help="of OWNER/NAME: what is new, 10000 characters; - reads stdin")
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    if _ALGORITHM.fullmatch(args.what) is None:
        if args.number or args.notes is not None:
            args.usage_error("--major, --minor, --revision and --notes go with OWNER/NAME, not with a folder")
        return _publish_folder(args)
    if Path(args.what).is_dir():
        args.usage_error(f"there is a folder {args.what}: write ./{args.what}, or algo://{args.what} for the algorithm")
    return _publish_pushed(args)


def _publish_folder(args: argparse.Namespace) -> int:
    with connect(args) as client:
        version = client.publish(args.what, args.visibility, on_log=say)
    if args.json:
        show_json(dict(version.details))
        return 0
    for line in _how_to_call(version, _manifest(Path(args.what))):
        say(line)
    show_text(str(version))
    return 0


def _publish_pushed(args: argparse.Namespace) -> int:
    public = None if args.visibility is None else args.visibility == "public"
    notes = sys.stdin.read() if args.notes == "-" else args.notes or ""
    with connect(args) as client:
        algorithm = client.algo(args.what)
        version = algorithm.publish(args.number or "revision", public=public, notes=notes)
    if args.json:
        show_json(version.to_dict())
        return 0
    for alert in version.alerts:
        say(alert)
    name = f"{algorithm.reference.owner}/{algorithm.reference.name}"
    say(f"{_published(version.public)}; call it with")
    sample = version.sample_input
    is_short = 0 < len(sample) <= _MAX_SAMPLE and sample.isprintable()
    what = _callable_name(name, version.number or version.hash, version.public)
    say(f"  {program()} call {what} -d {shlex.quote(sample) if is_short else 'INPUT'}")
    show_text(f"{name}/{version.number}")
    return 0


def _how_to_call(version: "PublishedVersion", manifest: dict[str, Any]) -> list[str]:
    """What to type next. An algorithm without code takes no text, and with several models no calls at all."""
    name, is_public = f"{version.owner}/{version.name}", version.details.get("visibility") == "public"
    published = _published(is_public)
    models = [] if manifest.get("algorithm", {}).get("language") else list(manifest.get("models", {}))
    if len(models) > 1:
        paths = [f"  POST /v2/models/{name}/{model}/infer" for model in models]
        return [
            f"{published}; it has no code, so each of its models is called by itself (docs/v2.md says how):",
            *paths,
        ]
    call = f"  {program()} call {_callable_name(name, version.version, is_public)} -d"
    if sample := _sample(version):
        return [f"{published}; call it with", f"{call} {sample}"]
    if models:
        return [
            f"{published}; call it with the JSON numbers of its input, as many and as deeply nested as its shape says,",
            f"{call} '[[…]]'",
            f"with a dictionary of them by name where it has several; GET /v2/models/{name} tells names and shapes",
        ]
    return [f"{published}; call it with", f"{call} INPUT"]


def _published(is_public: bool) -> str:
    return f"published for {'all' if is_public else 'its owner'}"


def _callable_name(name: str, number: str, is_public: bool) -> str:
    """With its number where a call without one may get another version: a public one goes first."""
    return name if is_public else f"{name}/{number}"


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
