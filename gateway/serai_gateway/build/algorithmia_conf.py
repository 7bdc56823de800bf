"""Repositories as Algorithmia had them: algorithmia.conf instead of algorithm.toml."""

import json
import re
from pathlib import Path
from typing import Any

from serai_gateway.build.errors import InvalidManifest
from serai_gateway.build.manifest import Manifest, Permissions
from serai_gateway.build.sections import refuse
from serai_gateway.catalogue import CatalogueError, check_name

FILE = "algorithmia.conf"

#: What runs on our Python 3. "python" is the name that both Pythons had; old code fails at its first print.
_PYTHON = re.compile(r"(python|python-?3([.-]?\d+)*|anaconda-?3)([_-].*)?\Z", re.IGNORECASE)
_PYTHON_2 = re.compile(r"(python|anaconda)-?2", re.IGNORECASE)


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
        language=language,
        entry=_entry(name, files),
        # Algorithmia gave both unless an author took them away on the web page.
        permissions=Permissions(network=False, calls=False),
    )


def _name(conf: dict[str, Any], key: str) -> str:
    value = conf.get(key)
    if not isinstance(value, str):
        raise refuse(key, "is missing or not text", FILE)
    try:
        return check_name(value)
    except CatalogueError as error:
        raise refuse(key, str(error), FILE) from None


def _language(conf: dict[str, Any]) -> str:
    # Algorithmia's own templates misspelt the key, and its platform read both.
    key = "language" if "language" in conf else "langauge"
    language = conf.get(key)
    if not isinstance(language, str):
        raise refuse("language", "is missing or not text", FILE)
    if _PYTHON_2.match(language):
        raise refuse(key, f'"{language[:40]}" is Python 2, which cannot run here; port it and write "python3"', FILE)
    if not _PYTHON.match(language):
        raise refuse(key, f'"{language[:40]}" cannot run here; "python3" can', FILE)
    return language


def _entry(name: str, files: Path) -> str:
    """The module under src/: named like the algorithm, or the newer templates' `Algorithm`."""
    for module in (name, "Algorithm"):
        if (files / "src" / f"{module}.py").is_file():
            return module
    raise InvalidManifest(f"{FILE}: algoname: there is no src/{name}.py and no src/Algorithm.py")
