"""What a JavaScript algorithm requires: package.json installed by npm into an environment of its own, in two steps.

The first reaches the package index and runs nothing of a package, the second runs the packages' own install scripts
without network. Both run in a sandbox; what the first is told of this machine's index the second cannot see.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import deque
from pathlib import Path

from serai_gateway.build import environments, manifest, package_json
from serai_gateway.build.box import run_in_box
from serai_gateway.build.built_tree import take_built
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, FetchFailed
from serai_gateway.build.index_proxy import SOCKET, IndexProxy
from serai_gateway.build.npm_settings import SETTINGS, ask_npm, npm_settings
from serai_gateway.build.package_json import FILE, LOCK_FILES, Packages, parse_packages
from serai_gateway.build.tree import remove_tree
from serai_runner.sandbox.base import ALGORITHM, ENVIRONMENT

#: Largest lock file: of the largest web applications they have some megabytes.
MAX_LOCK_BYTES = 16 << 20
#: Raise it when the way we install changes, so that old environments are made anew.
_FORMAT = 1
#: What a code folder's `node_modules` is a link to: so Node finds packages there for `require` and for `import`.
LINK = f"{ENVIRONMENT}/node_modules"

_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--cache=/tmp/npm")
_FETCH = (
    *_QUIET, "--ignore-scripts", "--omit=dev", "--fetch-retries=2", "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000", "--allow-git=none", "--allow-file=none", "--allow-directory=none",
    # The last three npm knows since version 11. We look at what was installed, too, and nobody gets past our proxy: an
    # index may keep its archives elsewhere, which npm would take for addresses.
    "--allow-remote=all",
)  # fmt: skip
_OFFLINE = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ERR_SOCKET_TIMEOUT", "ENETUNREACH")
#: Of what Node says of a file that is no JavaScript: its own frames and version, which are no author's affair.
_OF_NODE = ("    at ", "Node.js v")
_MAX_SHOWN_CHARS = 2000
#: Where npm keeps a log of its own, which goes with the sandbox.
_OF_NPM = re.compile(r"A complete log of this run can be found in|/tmp/npm/_logs/")
#: Lines for the message of a failure, and lines that npm's reason is looked for in: dumps of objects come with it.
_NUM_SAID, _NUM_ERRORS = 8, 100
#: Runs npm with our proxy as its only way out.
_RELAY = Path(__file__).parent / "relay.js"


def ensure_node_environment(files: Path, home: Path, log: Log) -> str | None:
    """The key of the environment for the package.json in `files`, made now if it is not there; None without packages.

    Raises:
        InvalidRequirements: a package that we do not install.
        FetchFailed: the package index did not answer.
        BuildError: there is no such package or version, a script of one fails, or Node or a sandbox is missing.
    """
    packages = _read(files)
    if packages is None:
        return None
    key = _key(packages, node_version(home))

    def fill(part: Path) -> None:
        part.mkdir()
        _fetch(packages, part, home, log)
        _run_scripts(part, home, log)
        _keep_packages(part)
        take_built(part, ALGORITHM)

    environments.ensure(key, home, log, fill)
    return key


def link_packages(files: Path) -> None:
    """Put the link to the environment's packages in the place of what the author may have there."""
    _clear(files / "node_modules").symlink_to(LINK)


def copy_packages(packages: Path, files: Path) -> None:
    """Put a copy there instead: npm takes a link away, and an author's own build may change what it finds."""
    shutil.copytree(packages, _clear(files / "node_modules"), symlinks=True)


def _clear(place: Path) -> Path:
    if place.is_dir() and not place.is_symlink():
        remove_tree(place)
    place.unlink(missing_ok=True)
    return place


def node_version(home: Path) -> str:
    """Node's version and what its native modules depend on. Raises BuildError where there is no Node, or no npm."""
    ask = "[process.version, process.versions.modules, process.platform, process.arch].join(' ')"
    words = ["sh", "-c", 'command -v npm > /dev/null && exec node -p "$1"', "sh", ask]
    (home / "tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / "tmp", prefix="node-") as folder:
        done = run_in_box(home, "node", words, Path(folder), lambda line: None, timeout_s=60.0)
    if done.code != 0 or not done.tail.startswith("v"):
        said = f": {done.tail}" if done.tail else ""
        raise BuildError(
            f"JavaScript needs Node.js and npm where this server runs algorithms; they are not there{said}"
        )
    return done.tail


def check_javascript(files: Path, entry: str, home: Path) -> None:
    """Raises BuildError if `src/<entry>.js` is not there, or is no JavaScript."""
    path = f"src/{entry}.js"
    if not (files / path).is_file():
        raise BuildError(f"there is no {path}; the file is named like the algorithm, or by entry = …")
    said: list[str] = []
    done = run_in_box(home, "node", ["node", "--check", path], files, said.append, timeout_s=60.0)
    if done.code != 0:
        shown = "\n".join(line for line in said if not line.startswith(_OF_NODE)).replace(ALGORITHM + "/", "")
        raise BuildError(f"{path} is not JavaScript:\n{shown[:_MAX_SHOWN_CHARS]}")


def _read(files: Path) -> Packages | None:
    if not (files / FILE).is_file():
        return None
    text = manifest.read_text(files / FILE)
    for name in LOCK_FILES:
        if (files / name).is_file():
            return parse_packages(text, manifest.read_text(files / name, MAX_LOCK_BYTES), name)
    return parse_packages(text)


def _key(packages: Packages, node: str) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, "node", node, *packages]).encode()).hexdigest()


def _fetch(packages: Packages, part: Path, home: Path, log: Log) -> None:
    (part / FILE).write_text(packages.package)
    command = "install"
    if packages.lock is not None:
        (part / LOCK_FILES[1]).write_text(packages.lock)
        command = "ci"
    log(f"npm {command}, without scripts")
    said, settings = _Said(log), npm_settings()
    proxy = IndexProxy(ask_npm(settings, part, home))
    with tempfile.TemporaryDirectory(dir=home / "tmp", prefix="index-") as folder:
        door = Path(folder, "door")
        door.mkdir()
        door.chmod(0o755)  # a box may run as somebody else
        read_only = [*settings.read_only, (_RELAY, f"{SETTINGS}/relay.js"), (door, f"{SETTINGS}/door")]
        words = ["node", f"{SETTINGS}/relay.js", f"{SETTINGS}/door/{SOCKET}", "npm", command, *_FETCH]
        with proxy.serve(door):
            done = run_in_box(
                home, f"npm {command}", words, part, said, variables=settings.variables, read_only=read_only
            )
    for place in proxy.refused:
        raise BuildError(f"{FILE}: a package comes from {place[:200]}, an address that is not the package index")
    if proxy.problem:
        raise BuildError(f"{FILE}: {proxy.problem}")
    if done.code != 0:
        raise _explain(said, is_away=proxy.is_away)
    left = part / "node_modules" / ".package-lock.json"
    if left.is_file() and not left.is_symlink():
        for place in package_json.installed_from_elsewhere(left.read_text()):
            raise BuildError(f"{FILE}: {place[:300]} comes from an address, not from the package index")
    for written in (left, part / LOCK_FILES[1]):
        written.unlink(missing_ok=True)  # they name the index that this machine uses


def _run_scripts(part: Path, home: Path, log: Log) -> None:
    """Scripts of packages that compile something, most of them."""
    variables = {"npm_config_offline": "true"}
    if os.path.exists("/usr/include/node/node.h"):
        variables["npm_config_nodedir"] = "/usr"  # else node-gyp would fetch Node's headers
    words = ["npm", "rebuild", *_QUIET, "--loglevel=error", "--foreground-scripts", "--dangerously-allow-all-scripts"]
    said = _Said(log)
    done = run_in_box(home, "npm rebuild", words, part, said, variables=variables)
    if done.code != 0:
        raise BuildError(f"{FILE}: an install script failed (scripts of packages have no network):\n{said.last}")


def _keep_packages(part: Path) -> None:
    """Remove what lies beside node_modules: our package.json, and whatever scripts wrote there."""
    for place in part.iterdir():
        if place.is_symlink() or not place.is_dir():
            place.unlink()
        elif place.name != "node_modules":
            remove_tree(place)
    (part / "node_modules").mkdir(exist_ok=True)


class _Said:
    """A log that remembers what is worth to be said again: npm's own complaints, and what came before them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._errors: list[str] = []
        self._others: deque[str] = deque(maxlen=_NUM_SAID)

    def __call__(self, line: str) -> None:
        if _OF_NPM.search(line):
            return
        self._log(line)
        if not line.startswith(("npm error", "npm ERR!")):
            self._others.append(line)
        elif len(self._errors) < _NUM_ERRORS:
            self._errors.append(line[9:])

    @property
    def errors(self) -> str:
        return "\n".join(self._errors)

    @property
    def last(self) -> str:
        return "\n".join(self._others)


def _explain(said: _Said, *, is_away: bool) -> BuildError:
    first = "\n".join(said.errors.split("\n")[:_NUM_SAID])
    if is_away or any(sign in said.errors for sign in _OFFLINE):
        return FetchFailed(f"{FILE}: the package index did not answer; try again later:\n{first}")
    return BuildError(f"{FILE}: cannot be installed:\n{first or said.last}")
