"""package.json and package-lock.json, as far as we install from them: names and versions, from the package index. Pure.

What npm gets is written anew from what we have understood. So an author's scripts, registries, workspaces and the like
reach it in no way, and two repositories with the same packages share one installation.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from serai_gateway.build.errors import InvalidRequirements

FILE = "package.json"
#: In the order in which npm looks for them.
LOCK_FILES = ("npm-shrinkwrap.json", "package-lock.json")
#: Packages that a package.json may name.
MAX_PACKAGES = 500
#: Nesting of a lock file of the old kind, and of overrides.
_MAX_DEPTH = 30

_SECTIONS = ("dependencies", "optionalDependencies", "peerDependencies")
_NAME = re.compile(r"(@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_][A-Za-z0-9._~-]*\Z", re.ASCII)
_RANGE = re.compile(r"[0-9A-Za-z*^~<>=|+ .-]{0,256}\Z", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,256}\Z", re.ASCII)
_ARCHIVE = re.compile(r"\.(tgz|tar|tar\.gz)\Z", re.IGNORECASE)
_PLACE = re.compile(r"node_modules/((?:@[^/]+/)?[^/]+)(?:/node_modules/((?:@[^/]+/)?[^/]+))*\Z")
_PLACE_SIGNS = re.compile(r"[:/\\]")
_ELSEWHERE = "is an address or a folder; only names and versions from the package index are installed"


class Packages(NamedTuple):
    """The two files for npm; without a lock file npm takes the newest versions that fit."""

    package: str
    lock: str | None


def parse_packages(text: str, lock: str | None = None, lock_file: str = LOCK_FILES[1]) -> Packages | None:
    """What an author's package.json and lock file ask for; None when that is nothing. Raises InvalidRequirements."""
    document = _object(text, FILE)
    if document.get("workspaces"):
        raise InvalidRequirements(
            f"{FILE}: workspaces are not installed; list what the algorithm needs in dependencies"
        )
    asked: dict[str, Any] = {}
    for section in _SECTIONS:
        packages = _dictionary(document.get(section), f"{FILE}: {section}")
        for name, wanted in packages.items():
            _check_package(name, wanted, section, text)
        if packages:
            asked[section] = packages
    if sum(map(len, asked.values())) > MAX_PACKAGES:
        raise InvalidRequirements(f"{FILE}: more than {MAX_PACKAGES} packages")
    if not asked:
        return None
    overrides = _dictionary(document.get("overrides"), f"{FILE}: overrides")
    _check_overrides(overrides, text, 0)
    optional = document.get("peerDependenciesMeta")
    if isinstance(optional, dict) and "peerDependencies" in asked:
        asked["peerDependenciesMeta"] = optional
    package = {"name": "algorithm", "version": "0.0.0", "private": True, **asked}
    if overrides:
        package["overrides"] = overrides
    return Packages(_written(package), None if lock is None else _written(_clean_lock(lock, lock_file, package)))


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=1)


def _object(text: str, file: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidRequirements(f"{file}: is not JSON{where}") from None
    return _dictionary(document, file)


def _dictionary(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequirements(f'{where}: is not an object like {{"name": "^1.2.3"}}')
    return value


def _check_package(name: str, wanted: Any, section: str, text: str) -> None:
    if not _NAME.match(name) or len(name) > 214 or name.lower() == "node_modules":
        raise _refuse(name, wanted, section, text, "is not the name of a package")
    if not isinstance(wanted, str) or not _is_version(wanted):
        raise _refuse(name, wanted, section, text, _ELSEWHERE)


def _is_version(wanted: str) -> bool:
    """Whether npm looks this up in its index: a range of versions, a tag, or either of another package (`npm:`)."""
    if wanted.startswith("npm:"):
        name, _, wanted = wanted.removeprefix("npm:").rpartition("@")
        if not name or not _NAME.match(name):
            return False
    return bool(_RANGE.match(wanted)) and not wanted.startswith(".") and not _ARCHIVE.search(wanted)


def _check_overrides(overrides: dict[str, Any], text: str, depth: int) -> None:
    for name, wanted in overrides.items():
        if isinstance(wanted, dict) and depth < _MAX_DEPTH:
            _check_overrides(wanted, text, depth + 1)
        elif not isinstance(wanted, str) or not (_is_version(wanted) or _is_reference(wanted)):
            raise _refuse(name, wanted, "overrides", text, _ELSEWHERE)


def _is_reference(wanted: str) -> bool:
    """To the version that the package.json itself asks for."""
    return wanted.startswith("$") and bool(_NAME.match(wanted[1:]))


def _refuse(name: str, wanted: Any, section: str, text: str, reason: str) -> InvalidRequirements:
    shown = f"{json.dumps(name)[:100]}: {json.dumps(wanted)[:100]}"
    number = next((at for at, line in enumerate(text.splitlines(), 1) if _says(line, name, wanted)), None)
    line = f" line {number}" if number else ""
    return InvalidRequirements(f"{FILE}{line}: {section}: {shown} {reason}")


def _says(line: str, name: str, wanted: Any) -> bool:
    return f'"{name}"' in line and (not isinstance(wanted, str) or wanted in line)


def _clean_lock(text: str, file: str, package: dict[str, Any]) -> dict[str, Any]:
    """A lock file that names versions and their checksums, and no addresses: npm asks its own index for them."""
    document = _object(text, file)
    version = document.get("lockfileVersion")
    if version == 1:
        dependencies = _dictionary(document.get("dependencies"), f"{file}: dependencies")
        return {"lockfileVersion": 1, "requires": True, "dependencies": _clean_old(dependencies, file, 0)}
    if version not in (2, 3) or not isinstance(document.get("packages"), dict):
        raise InvalidRequirements(f"{file}: lockfileVersion is none of 1, 2 and 3; make it again with `npm install`")
    packages: dict[str, Any] = {"": package}
    for place, entry in document["packages"].items():
        if place == "" or (isinstance(entry, dict) and entry.get("dev")):
            continue
        found = _PLACE.match(place)
        if not found or ".." in place.split("/") or not isinstance(entry, dict) or entry.get("link"):
            raise InvalidRequirements(f"{file}: {json.dumps(place)[:100]} {_ELSEWHERE}")
        packages[place] = _clean_entry(found[2] or found[1], entry, file)
        for section in _SECTIONS:
            _check_asked(place, entry.get(section), file)
    return {"name": "algorithm", "version": "0.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}


def _clean_old(dependencies: dict[str, Any], file: str, depth: int) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for name, entry in dependencies.items():
        if not isinstance(entry, dict) or depth > _MAX_DEPTH:
            raise InvalidRequirements(f"{file}: {json.dumps(name)[:100]} is not a package")
        if entry.get("dev"):
            continue
        clean[name] = _clean_entry(name, entry, file)
        _check_asked(name, entry.get("requires"), file)
        if "dependencies" in entry:
            below = _dictionary(entry["dependencies"], f"{file}: {name[:100]}")
            clean[name]["dependencies"] = _clean_old(below, file, depth + 1)
    return clean


def _clean_entry(name: str, entry: dict[str, Any], file: str) -> dict[str, Any]:
    """One package of a lock file, called `name` in node_modules."""
    real, version = entry.get("name", name), entry.get("version")
    if isinstance(version, str) and version.startswith("npm:"):  # the old kind's way to write another name
        real, _, version = version.removeprefix("npm:").rpartition("@")
    is_named = isinstance(real, str) and isinstance(version, str) and _NAME.match(real) and _VERSION.match(version)
    if not is_named or not _NAME.match(name):
        raise InvalidRequirements(f"{file}: {json.dumps(name)[:100]} {_ELSEWHERE}")
    resolved = entry.get("resolved")
    if resolved not in (None, False, True) and not _is_of_an_index(str(resolved), str(real), str(version)):
        raise InvalidRequirements(f"{file}: {json.dumps(name)[:100]}: {json.dumps(resolved)[:150]} {_ELSEWHERE}")
    return {key: value for key, value in entry.items() if key != "resolved"}


def _check_asked(name: str, packages: Any, file: str) -> None:
    """What a package of a lock file asks for: what the file itself lacks, npm would get from wherever that says."""
    for asked, wanted in packages.items() if isinstance(packages, dict) else ():
        if not _NAME.match(asked) or not isinstance(wanted, str) or not (_is_version(wanted) or _is_plain(wanted)):
            shown = f"{json.dumps(name)[:100]}: {json.dumps(asked)[:100]}: {json.dumps(wanted)[:100]}"
            raise InvalidRequirements(f"{file}: {shown} {_ELSEWHERE}")


def _is_plain(wanted: str) -> bool:
    """Whether that is at most a range that we do not understand: packages may write what they like there."""
    return not _PLACE_SIGNS.search(wanted) and not wanted.startswith(".") and not _ARCHIVE.search(wanted)


def _is_of_an_index(address: str, name: str, version: str) -> bool:
    """Whether that is where an index, whichever, keeps this version. Its checksum says that ours has the same."""
    path = f"{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    return address.startswith(("https://", "http://")) and address.replace("%2f", "/").endswith(f"/{path}")


def installed_from_elsewhere(text: str) -> Iterator[str]:
    """By the list that npm leaves in node_modules: packages that did not come from an index. Raises ValueError."""
    for place, entry in json.loads(text).get("packages", {}).items():
        resolved = entry.get("resolved", "https://")
        if entry.get("link") or not str(resolved).startswith(("https://", "http://")):
            yield place
        for section in ("dependencies", "optionalDependencies"):
            for name, wanted in (entry.get(section) or {}).items():
                if not (_is_version(str(wanted)) or _is_plain(str(wanted))):
                    yield f"{name}, which {place} wants from {wanted},"
