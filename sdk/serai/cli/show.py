"""Show one algorithm: what it is and may do, what calls run, and where its repository is."""

import argparse
from typing import TYPE_CHECKING, Any

from serai.cli._connection import add_connection_options, connect
from serai.cli._named import add_algorithm, add_json
from serai.cli._table import cell, local
from serai.cli._terminal import say, show_json, show_text, wants_colour, write_text
from serai.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from serai import AlgorithmDetails, Share

EXAMPLE = """
What only its owner may know is left out for others.

example:
  serai show demo/hello
  serai show demo/hello --json
"""

#: Characters of the sample input that are shown.
_MAX_SAMPLE = 80

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_algorithm(parser, "which one")
    add_json(parser)
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        algorithm = client.algo(str(args.algorithm))
        about = algorithm.info()
        shares = _shares(algorithm)
        if args.json:
            show_json(about.to_dict() | {"routing": [share.to_dict() for share in shares], "git": algorithm.git_url})
            return 0
        _show(_lines(about, shares, algorithm.git_url))
    if about.summary:
        show_text(f"\n{about.summary}")
    if about.version is None:
        say("nothing was built yet: push to its repository, or `serai publish DIR`")
    return 0


def _shares(algorithm: Any) -> "tuple[Share, ...]":
    try:
        return algorithm.routing()
    except (Forbidden, Unauthorized):  # it is somebody else's
        return ()


def _lines(about: "AlgorithmDetails", shares: "tuple[Share, ...]", git_url: str) -> list[tuple[str, str]]:
    version, build, settings = about.version, about.build, about.settings
    lines = [("name", f"{about.owner}/{about.name}"), ("label", about.label), ("tagline", about.tagline)]
    if version is not None:
        for_whom = "all" if version.public else "its owner"
        number = version.number or f"{version.hash[:12]}, not published"
        lines += [("version", f"{number}, for {for_whom}"), ("commit", version.hash)]
        lines += [("published", local(version.published_at)), ("notes", version.notes)]
        lines += [("deprecated", version.deprecation or ""), ("sample", _short(version.sample_input))]
    lines.append(("calls go to", ", ".join(f"{share.version} {share.percent} %" for share in shares)))
    may = {"network": settings.get("network_access") == "full", "call others": settings.get("pipeline_enabled") is True}
    lines.append(("may", ", ".join(what for what, it_may in may.items() if it_may) or "no network, no calls to others"))
    lines += [("language", str(settings.get("language", ""))), ("license", str(settings.get("license", "")))]
    lines.append(("source", f"{settings.get('source_visibility', '')}, {git_url}"))
    if build is not None:
        lines.append(("build", f"{build.status}, {local(build.started_at)}, {build.id}"))
    return [(name, text) for name, text in lines if text and text != "-"]


def _short(sample: str) -> str:
    """Samples may be whole pictures; --json has them."""
    return sample if len(sample) <= _MAX_SAMPLE else f"{sample[:_MAX_SAMPLE]}…"


def _show(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    dim, plain = (_DIM, _PLAIN) if wants_colour() else ("", "")
    write_text("\n".join(f"{dim}{name:<{width}}{plain}  {cell(text)}" for name, text in lines))
