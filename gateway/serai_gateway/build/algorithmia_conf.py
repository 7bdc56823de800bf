"""Repositories as Algorithmia had them: algorithmia.conf instead of algorithm.toml."""

import json
from pathlib import Path
from typing import Any

from serai_gateway.build.errors import InvalidManifest
from serai_gateway.build.languages import Language, parse_conf_language
from serai_gateway.build.manifest import Manifest, Permissions
from serai_gateway.build.sections import refuse
from serai_gateway.catalogue import CatalogueError, check_name

FILE = "algorithmia.conf"


def parse_conf(text: str, files: Path) -> Manifest:
    """The content of an algorithmia.conf, for the tree that lies in `files`. Raises InvalidManifest."""
    try:
        conf = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidManifest(f"{FILE}: is not JSON") from None
    if not isinstance(conf, dict):
        raise InvalidManifest(f'{FILE}: is not an object like {{"username": …, "algoname": …, "language": …}}')
    name = _name(conf, "algoname")
    language = _language(conf)
    return Manifest(
        owner=_name(conf, "username"),
        name=name,
        kind="algorithmia",
        language=language.name,
        python=language.python,
        entry=_entry(name, language.name, files),
        # Algorithmia gave both unless an author took them away on the web page. Calls are made by the client that
        # the repository already uses; network is more here than it was there.
        permissions=Permissions(network=False, calls=True),
    )


def _name(conf: dict[str, Any], key: str) -> str:
    value = conf.get(key)
    if not isinstance(value, str):
        raise refuse(key, "is missing or not text", FILE)
    try:
        return check_name(value)
    except CatalogueError as error:
        raise refuse(key, str(error), FILE) from None


def _language(conf: dict[str, Any]) -> Language:
    # Algorithmia's own templates misspelt the key, and its platform read both.
    key = "language" if "language" in conf else "langauge"
    language = conf.get(key)
    if not isinstance(language, str):
        raise refuse("language", "is missing or not text", FILE)
    try:
        return parse_conf_language(language)
    except ValueError as error:
        raise refuse(key, str(error), FILE) from None


def _entry(name: str, language: str, files: Path) -> str:
    """The file under src/: named like the algorithm, or the newer templates' `Algorithm`."""
    suffix = {"python": ".py", "javascript": ".js"}.get(language)
    if suffix:
        for entry in (name, "Algorithm"):
            if (files / "src" / f"{entry}{suffix}").is_file():
                return entry
    if any((files / "bin" / program).is_file() for program in (("pipe",) if suffix else ("pipe", "build"))):
        return name if suffix else ""
    if suffix:
        raise InvalidManifest(f"{FILE}: algoname: there is no src/{name}{suffix} and no src/Algorithm{suffix}")
    raise refuse(
        "language",
        f'"{language}" needs bin/pipe in the repository, which runs the algorithm, or bin/build, which makes it; '
        'without them "python3" and "javascript" can run here',
        FILE,
    )
