"""What a Python algorithm imports: requirements.txt installed into an environment of its own.

Only wheels are installed, so nothing of a package runs here: its code meets an interpreter in the sandbox only.
"""

import hashlib
import json
import os
import stat
import sys
import sysconfig
from pathlib import Path

from serai_gateway.build import environments
from serai_gateway.build.built_tree import check_disk
from serai_gateway.build.command import Finished, Log, run_command
from serai_gateway.build.environments import environment_cache
from serai_gateway.build.errors import BuildError, FetchFailed
from serai_gateway.build.requirements import FILE, parse_requirements
from serai_gateway.build.sdk_requirements import add_sdk
from serai_runner import pythons

__all__ = ["clean_environment", "ensure_environment", "environment_cache", "environment_key"]

#: Longest installation.
TIMEOUT_S = 15 * 60.0
#: Largest environment. PyTorch with its CUDA libraries takes 6 GB.
MAX_ENVIRONMENT_BYTES = 10 * 1024**3
#: Largest file in one.
_MAX_FILE_BYTES = 4 * 1024**3
#: Raise it when the way we install changes, so that old environments are made anew.
_FORMAT = 1

#: uv's line about the interpreter says where it lies on this machine, which is no author's affair.
_OF_UV = ("Using CPython ", "Using Python ")
#: How uv says that the index did not answer.
_OFFLINE = ("error sending request", "dns error", "Failed to fetch", "client error (Connect)", "timed out", "offline")


def ensure_environment(
    text: str, home: Path, log: Log, *, python: str = "", with_sdk: bool = False, timeout_s: float = TIMEOUT_S
) -> str | None:
    """The key of the environment for this requirements.txt, installed now if it is not there; None for an empty one.

    Args:
        python: "3.12", the interpreter that it is for; "" is ours.
        with_sdk: `import serai; serai.client()` is to work, too.

    Raises:
        InvalidRequirements: a line that we do not install.
        FetchFailed: the package index did not answer.
        BuildError: there is no such package or version as a wheel, or it is too large or takes too long.
        pythons.UnknownPython
    """
    interpreter = pythons.find(python)
    requirements = add_sdk(parse_requirements(text), python or pythons.OURS, log, wanted=with_sdk)
    if not requirements:
        return None
    key = environment_key(requirements, python)

    def fill(part: Path) -> None:
        is_ours = python in ("", pythons.OURS)
        _install(requirements, sys.executable if is_ours else interpreter.executable, part, log, timeout_s)
        _check(part)

    environments.ensure(key, home, log, fill)
    return key


def environment_key(requirements: tuple[str, ...], python: str = "") -> str:
    """By content: what is asked for, and by which interpreter on what kind of machine."""
    is_ours = python in ("", pythons.OURS)
    tag = sys.implementation.cache_tag if is_ours else f"cpython-{python.replace('.', '')}"
    asked = [_FORMAT, requirements, tag, sysconfig.get_platform()]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _install(requirements: tuple[str, ...], python: str, part: Path, log: Log, timeout_s: float) -> None:
    part.mkdir()
    asked = part / ".requirements.txt"
    asked.write_text("\n".join(requirements) + "\n")
    log("installing 1 requirement" if len(requirements) == 1 else f"installing {len(requirements)} requirements")
    options = ("--target", str(part), "--python", python, "--no-build", "--link-mode", "copy")
    finished = run_command(
        (_uv(), "pip", "install", *options, "--compile-bytecode", "--requirements", str(asked)),
        cwd=part,  # empty, so no configuration of a project is found in it
        env=clean_environment() | {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"},
        timeout_s=timeout_s,
        log=lambda line: None if line.startswith(_OF_UV) else log(line),
        max_file_bytes=_MAX_FILE_BYTES,
        check=lambda: check_disk(part, "the installation was stopped"),
    )
    if finished.code != 0:
        raise _explain(finished)
    for left_over in (asked, part / ".lock"):
        left_over.unlink(missing_ok=True)


def _check(part: Path) -> None:
    num_bytes = 0
    for parent, _, names in os.walk(part):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            if not stat.S_ISREG(status.st_mode):
                raise BuildError(f"{FILE}: a package holds {name[:100]}, which is not a regular file")
            num_bytes += status.st_size
    if num_bytes > MAX_ENVIRONMENT_BYTES:
        raise BuildError(f"{FILE}: installs {num_bytes:,} bytes; at most {MAX_ENVIRONMENT_BYTES:,}")


def _explain(finished: Finished) -> BuildError:
    if any(sign in finished.tail for sign in _OFFLINE):
        return FetchFailed(f"{FILE}: the package index did not answer; try again later:\n{finished.tail}")
    said = "\n".join(line for line in finished.tail.split("\n") if not line.startswith(_OF_UV))
    return BuildError(f"{FILE}: cannot be installed (only packages with wheels can):\n{said}")


def _uv() -> str:
    import uv

    return os.fsdecode(uv.find_uv_bin())


def clean_environment() -> dict[str, str]:
    """Our environment without what would redirect an installer, or what it need not know."""
    dropped = ("SERAI_", "ALGORITHMIA_", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"NO_COLOR": "1"}
