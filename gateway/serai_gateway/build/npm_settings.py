"""What this machine's operator has told npm: which index packages come from, and how it is reached.

npm itself is asked, where it will run: it knows best what its files and variables come to.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from serai_gateway.build.box import run_in_box
from serai_gateway.build.environment import clean_environment
from serai_gateway.build.errors import BuildError
from serai_gateway.build.index_proxy import Index, places_of

#: Where the step that fetches finds files of this machine.
SETTINGS = "/opt/index"
#: Names of further hosts that the index sends npm to, "host" or "host:port", with commas between.
HOSTS_VARIABLE = "SERAI_PACKAGE_HOSTS"
#: Settings of npm that are ours to decide.
_OURS = re.compile(
    r"npm_config_(ignore_scripts|allow_.*|cache|prefix|userconfig|globalconfig|.*dir|(https_)?proxy|noproxy)\Z",
    re.IGNORECASE,
)
_CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "NPM_CONFIG_CAFILE")
_TRUST = ("/etc/ssl", "/etc/pki", "/etc/ca-certificates")
#: A line of an .npmrc about one host: its credentials, mostly.
_HOST_LINE = re.compile(r"\s*(//[^\s=]+?)/?:[A-Za-z_-]+\s*=")
_ASK = ("npm", "config", "list", "--json", "--cache=/tmp/npm")


class NpmSettings(NamedTuple):
    variables: dict[str, str]
    read_only: list[tuple[Path, str]]  # files that it sees, and where
    config: Path | None  # the operator's .npmrc


def npm_settings() -> NpmSettings:
    """What npm is to see of this machine while it fetches."""
    variables: dict[str, str] = {}
    mounts: list[tuple[Path, str]] = []
    for name, value in _settings_of(clean_environment()):
        if name.upper() in _CERTIFICATES:
            place = f"{SETTINGS}/{len(mounts)}"
            mounts.append((Path(value), place))
            value = place
        variables[name] = value
    # Whom this machine trusts: a box without a network has no such files of its own.
    mounts += [(Path(place), place) for place in _TRUST if os.path.isdir(place)]
    config = Path(os.environ.get("NPM_CONFIG_USERCONFIG") or os.path.expanduser("~/.npmrc"))
    if config.is_file():
        mounts.append((config, f"{SETTINGS}/npmrc"))
        variables["npm_config_userconfig"] = f"{SETTINGS}/npmrc"
    return NpmSettings(variables, mounts, config if config.is_file() else None)


def ask_npm(settings: NpmSettings, folder: Path, home: Path) -> Index:
    """The index as npm understands these settings. Raises BuildError."""
    lines: list[str] = []
    done = run_in_box(home, "npm config", _ASK, folder, lines.append, variables=settings.variables,
                      read_only=settings.read_only, timeout_s=60.0)  # fmt: skip
    try:
        told = json.loads("\n".join(lines[lines.index("{") : len(lines) - lines[::-1].index("}")]))
    except ValueError:
        raise BuildError(
            f"npm does not say which package index it uses; this is the server's fault:\n{done.tail}"
        ) from None
    return index_of(told, settings.config.read_text() if settings.config else "", dict(os.environ))


def index_of(told: dict[str, object], config: str, environment: dict[str, str]) -> Index:
    """What npm may reach, by what it has told (`npm config list --json`), its file, and the variables. Pure."""
    named = [value for name, value in told.items() if name == "registry" or name.endswith(":registry")]
    named += [found[1] for found in map(_HOST_LINE.match, config.splitlines()) if found]
    named += [name.strip() for name in environment.get(HOSTS_VARIABLE, "").split(",")]
    places = {place for address in named if isinstance(address, str) for place in places_of(address)}
    return Index(frozenset(places), dict(_proxies(told, environment)))


def _proxies(told: dict[str, object], environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """npm's own settings go before those of the machine."""

    def first(*names: str) -> str:
        lower = {name.lower(): value for name, value in environment.items()}
        values = [
            told.get(name) or lower.get(f"npm_config_{name.replace('-', '_')}") or lower.get(name) for name in names
        ]
        return next((value for value in values if isinstance(value, str)), "")

    yield "http", first("proxy", "http_proxy", "all_proxy")
    yield "https", first("https-proxy", "proxy", "https_proxy", "http_proxy", "all_proxy")
    without = told.get("noproxy")
    is_list = isinstance(without, list)
    yield "no", ",".join(map(str, without)) if is_list and any(without) else first("noproxy", "no_proxy")


def _settings_of(environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environment.items():
        if name.upper() in _CERTIFICATES:
            if os.path.exists(value):
                yield name, os.path.abspath(value)
        elif name.lower().startswith("npm_config_") and not _OURS.match(name):
            yield name, value
