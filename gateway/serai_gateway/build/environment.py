"""What an algorithm imports: requirements.txt installed into HOME/environments/<key>/, once for each content.

Only wheels are installed, so nothing of a package runs here: its code meets an interpreter in the sandbox only.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serai_gateway.build import builder
from serai_gateway.build.command import Finished, Log, run_command
from serai_gateway.build.errors import BuildError, FetchFailed
from serai_gateway.build.requirements import FILE, parse_requirements
from serai_gateway.build.tree import flush_to_disk, make_read_only, remove_tree

#: Longest installation.
TIMEOUT_S = 15 * 60.0
#: Largest environment. PyTorch with its CUDA libraries takes 6 GB.
MAX_ENVIRONMENT_BYTES = 10 * 1024**3
#: Largest file in one.
_MAX_FILE_BYTES = 4 * 1024**3
#: Raise it when the way we install changes, so that old environments are made anew.
_FORMAT = 1

#: How uv says that the index did not answer.
_OFFLINE = ("error sending request", "dns error", "Failed to fetch", "client error (Connect)", "timed out", "offline")


def ensure_environment(text: str, home: Path, log: Log, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """The key of the environment for this requirements.txt, installed now if it is not there; None for an empty one.

    Several processes may ask at once: one installs, the others wait for it.

    Raises:
        InvalidRequirements: a line that we do not install.
        FetchFailed: the package index did not answer.
        BuildError: there is no such package or version as a wheel, or it is too large or takes too long.
    """
    requirements = parse_requirements(text)
    if not requirements:
        return None
    key = environment_key(requirements)
    folder = home / "environments"
    if (folder / key).is_dir():
        log(f"environment {key[:12]} is there already")
        return key
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".lock-{key}"):
        if not (folder / key).is_dir():
            part = folder / builder.part_name(key)
            remove_tree(part)
            try:
                if not _take_from_cache(key, part, log):
                    _install(requirements, part, log, timeout_s)
                _complete(part, folder / key)
            finally:
                remove_tree(part)
    return key


def environment_cache() -> Path:
    """Holds environments made ahead of time (`prefetch`), as a home does: any home on this machine takes them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "serai"


def _take_from_cache(key: str, part: Path, log: Log) -> bool:
    """Whether it was there. Its files are read-only for good, so they are linked, or copied across file systems."""
    ready = environment_cache() / "environments" / key
    if not ready.is_dir():
        return False
    try:
        shutil.copytree(ready, part, copy_function=_link_or_copy)
    except (OSError, shutil.Error):
        remove_tree(part)
        return False
    log(f"environment {key[:12]} taken from {ready.parent}")
    return True


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or too many links
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def environment_key(requirements: tuple[str, ...]) -> str:
    """By content: what is asked for, and by which interpreter on what kind of machine."""
    asked = [_FORMAT, requirements, sys.implementation.cache_tag, sysconfig.get_platform()]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process; the kernel frees it when that dies. The wait ends with the other one's own time limit."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _install(requirements: tuple[str, ...], part: Path, log: Log, timeout_s: float) -> None:
    part.mkdir()
    asked = part / ".requirements.txt"
    asked.write_text("\n".join(requirements) + "\n")
    log("installing 1 requirement" if len(requirements) == 1 else f"installing {len(requirements)} requirements")
    options = ("--target", str(part), "--python", sys.executable, "--no-build", "--link-mode", "copy")
    finished = run_command(
        (_uv(), "pip", "install", *options, "--compile-bytecode", "--requirements", str(asked)),
        cwd=part,  # empty, so no configuration of a project is found in it
        env=clean_environment() | {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"},
        timeout_s=timeout_s,
        log=log,
        max_file_bytes=_MAX_FILE_BYTES,
    )
    if finished.code != 0:
        raise _explain(finished)
    for left_over in (asked, part / ".lock"):
        left_over.unlink(missing_ok=True)


def _complete(part: Path, place: Path) -> None:
    _check(part)
    make_read_only(part)
    flush_to_disk(part)
    os.rename(part, place)
    flush_to_disk(place.parent)


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
    return BuildError(f"{FILE}: cannot be installed (only packages with wheels can):\n{finished.tail}")


def _uv() -> str:
    import uv

    return os.fsdecode(uv.find_uv_bin())


def clean_environment() -> dict[str, str]:
    """Our environment without what would redirect an installer, or what it need not know."""
    dropped = ("SERAI_", "ALGORITHMIA_", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"NO_COLOR": "1"}
