"""bin/build: an author's own command that makes bin/pipe, or what bin/pipe needs. It runs once, without network."""

import os
from pathlib import Path

from serai_gateway.build import node_environment
from serai_gateway.build.box import run_in_box
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError
from serai_runner.sandbox.base import ALGORITHM, ENVIRONMENT

BUILD, PIPE = "bin/build", "bin/pipe"
#: With the packages in sight, a `pip install` or `npm install` in an old bin/build finds that nothing is to be done;
#: and where something is, it says so at once instead of looking for a network.
_INSTALLED = {
    "PYTHONPATH": ENVIRONMENT,
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    "npm_config_offline": "true",
    "npm_config_omit": "dev",
    "npm_config_audit": "false",
    "npm_config_update_notifier": "false",
}


def brings_pipe(files: Path) -> bool:
    return (files / PIPE).is_file()


def needs_bin_build(files: Path, language: str) -> bool:
    """Whether bin/build is to be run. For Python and JavaScript we do what it did, unless the author runs them, too."""
    return (files / BUILD).is_file() and (language not in ("python", "javascript") or brings_pipe(files))


def run_bin_build(files: Path, home: Path, environment: Path | None, log: Log) -> None:
    """Run it in `files`, with the installed packages where replicas have them. Raises BuildError."""
    _check_executable(files / BUILD, BUILD)
    mounts = []
    if environment is not None:
        mounts.append((environment, ENVIRONMENT))
        packages = environment / "node_modules"
        if packages.is_dir():
            node_environment.copy_packages(packages, files)
    _make_writable(files)
    log(f"running {BUILD}")
    done = run_in_box(home, BUILD, [f"{ALGORITHM}/{BUILD}"], files, log, variables=_INSTALLED, read_only=mounts)
    if done.code != 0:
        raise BuildError(
            f"{BUILD} ended with code {done.code} (it has no network: what it needs must be in the repository or on "
            f"the server):\n{done.tail}"
        )


def check_pipe(files: Path, *, was_built: bool) -> None:
    """Raises BuildError if bin/pipe cannot be started."""
    pipe = files / PIPE
    if not pipe.is_file():
        raise BuildError(f"there is no {PIPE}" + (f" after {BUILD} ran" if was_built else ""))
    _check_executable(pipe, PIPE)


def _make_writable(files: Path) -> None:
    """As in a fresh clone: `cargo build` writes to its lock file."""
    for parent, folders, names in os.walk(files):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o200)


def _check_executable(path: Path, name: str) -> None:
    if not os.stat(path).st_mode & 0o100:
        raise BuildError(f"{name} is not executable: chmod +x {name}, or git update-index --chmod=+x {name}")
