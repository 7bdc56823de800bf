"""Where to call and with which key: arguments, then the environment, then `~/.serai/config.toml`, then this machine.

[profiles.default]
address = "https://serai.example.org"
key = "sim…"
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serai.errors import SettingsError

#: Where `serai up` listens when it is not told otherwise.
DEFAULT_ADDRESS = "http://127.0.0.1:8000"

#: First one that is set wins. The second of each is what Algorithmia's clients read.
_ADDRESS_VARIABLES = ("SERAI_ADDRESS", "ALGORITHMIA_API")
_KEY_VARIABLES = ("SERAI_API_KEY", "ALGORITHMIA_API_KEY")

_PROFILE_FIELDS = {"address", "key"}
_KEY_FORM = re.compile(r"[!-~]{1,4096}")


@dataclass(frozen=True, slots=True)
class Settings:
    """An address and the key for it. The key stays out of `repr`, and so out of logs."""

    address: str
    key: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.address)


def load_settings(
    key: str | None = None,
    address: str | None = None,
    profile: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Find address and key.

    An argument beats a profile that was named, that beats the environment, and that beats `profiles.default`. A
    profile's key goes to that profile's address only. The operator's key of this machine is used where nothing else
    gives one and the address is loopback.

    Raises:
        SettingsError: a value is malformed or the named profile does not exist.
    """
    environ = os.environ if environ is None else environ
    folder = _user_home(environ) / ".serai"
    chosen = _profile(folder / "config.toml", profile)
    named = chosen if profile is not None else {}
    found_address = address or named.get("address") or _first(environ, _ADDRESS_VARIABLES)
    found_address = check_address(found_address or chosen.get("address") or DEFAULT_ADDRESS)
    found_key = (
        key or _key_of(named, found_address) or _first(environ, _KEY_VARIABLES) or _key_of(chosen, found_address)
    )
    if not found_key and is_loopback(found_address):
        found_key = _operator_key(Path(environ.get("SERAI_HOME") or folder))
    return Settings(found_address, _check_key(found_key) if found_key else None)


def check_address(address: str) -> str:
    """The address without a trailing slash, or a SettingsError that says what is wrong with it."""
    address = address.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"address {address!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(f"address {address!r} must be a URL like {DEFAULT_ADDRESS} or https://serai.example.org")
    if parts.username is not None or parts.query or parts.fragment:
        raise SettingsError("an address is scheme, host, port and path only; give the key as SERAI_API_KEY or --key")
    return address


def is_loopback(address: str) -> bool:
    """Whether the address names this machine without asking a name server."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_key(key: str) -> str:
    key = key.strip()
    if not _KEY_FORM.fullmatch(key):
        raise SettingsError("the API key is empty or has spaces, line breaks or non-ASCII characters in it")
    return key


def _user_home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _key_of(profile: dict[str, str], address: str) -> str | None:
    """A profile's key, unless it belongs to another server than the one about to be called."""
    own = profile.get("address")
    return profile.get("key") if own is None or check_address(own) == address else None


def _operator_key(home: Path) -> str | None:
    try:
        return (home / "operator.key").read_text("ascii").strip() or None
    except (OSError, ValueError):  # not there, or not ours to read
        return None


def _profile(path: Path, name: str | None) -> dict[str, str]:
    profiles = _profiles(path)
    wanted = "default" if name is None else name
    if wanted not in profiles:
        if name is None:
            return {}
        known = ", ".join(sorted(profiles)) or "none"
        raise SettingsError(f"no profile {name!r} in {path}; there: {known}")
    profile = profiles[wanted]
    if not isinstance(profile, dict) or not all(isinstance(value, str) for value in profile.values()):
        raise SettingsError(f"{path}: profiles.{wanted} must be a table of strings")
    if unknown := sorted(profile.keys() - _PROFILE_FIELDS):
        raise SettingsError(f"{path}: profiles.{wanted} has unknown {', '.join(unknown)}; known are address and key")
    return profile


def _profiles(path: Path) -> dict[str, Any]:
    try:
        profiles = tomllib.loads(path.read_text("utf-8")).get("profiles", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    if not isinstance(profiles, dict):
        raise SettingsError(f"{path}: profiles must be tables like [profiles.default]")
    return profiles
