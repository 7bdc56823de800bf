"""The Python interpreters of this machine that may run an author's code."""

import functools
import grp
import json
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

#: The oldest that our own part of a replica (`serai_runner.inside`, `serai.model`) runs on.
OLDEST = (3, 9)
#: What Serai itself runs on, and what versions that ask for none get.
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
#: An interpreter answers in 20 ms; one on a slow network disk, or a script that hangs, must not hold up a start.
_ANSWER_S = 10.0
_NAME = re.compile(r"python3\.\d{1,2}\Z", re.ASCII)
_ASK = (
    "import json, os, sys; executable = getattr(sys, '_base_executable', None) or sys.executable;"
    "print(json.dumps([sys.implementation.name, list(sys.version_info[:2]), getattr(sys, 'abiflags', ''),"
    " os.path.realpath(executable), os.path.realpath(sys.base_prefix)]))"
)


class Interpreter(NamedTuple):
    executable: str  # absolute, no links
    prefix: str  # what it needs beside /usr and /lib: holds lib/pythonX.Y


class UnknownPython(ValueError):
    """Not installed here; the message lists what is."""


def find(python: str) -> Interpreter:
    """The interpreter for "3.12"; "" is the one that Serai runs on. Raises UnknownPython."""
    if python in ("", OURS):
        return _ours()  # needs no search
    found = installed().get(python)
    if found is None:
        raise UnknownPython(f"Python {python} is not installed on this server, which has {', '.join(installed())}")
    return found


@functools.cache
def installed() -> dict[str, Interpreter]:
    """All of them, as {"3.11": …}, oldest first. The first place that has a version counts; ours is always there.

    Looked for once in the life of a process: install a Python, then start Serai again.
    """
    found = {OURS: _ours()}
    with ThreadPoolExecutor(4, "pythons") as pool:
        for answer in pool.map(_ask, _candidates()):
            if answer is not None:
                found.setdefault(*answer)
    return dict(sorted(found.items(), key=lambda item: _number(item[0])))


def _ours() -> Interpreter:
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(os.path.realpath(executable), os.path.realpath(sys.base_prefix))


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _candidates() -> list[Path]:
    """Files called like an interpreter, each once, in the order in which they count."""
    seen: dict[str, Path] = {}
    for folder in _folders():
        try:
            names = sorted(name for name in os.listdir(folder) if _NAME.match(name))
        except OSError:
            continue
        for name in names:
            path = folder / name
            if os.access(path, os.X_OK):
                seen.setdefault(os.path.realpath(path), path)
    return list(seen.values())


def _folders() -> Iterator[Path]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isabs(folder):
            yield Path(folder)
    yield from (Path("/usr/local/bin"), Path("/usr/bin"))
    home = Path(os.path.expanduser("~"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    for base in (pyenv, uv):
        # The newest patch release first: it is the one to have of its minor version.
        yield from (folder / "bin" for folder in sorted(_subfolders(base), key=_natural, reverse=True))


def _subfolders(base: Path) -> list[Path]:
    try:
        return [folder for folder in base.iterdir() if folder.is_dir() and not folder.is_symlink()]
    except OSError:
        return []


def _natural(folder: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", folder.name)]


def _ask(path: Path) -> tuple[str, Interpreter] | None:
    """What it says about itself, if it can be trusted and used."""
    if not is_safe(path):
        return None
    command = [str(path), "-I", "-S", "-c", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_ANSWER_S, env={}, cwd="/", check=True)
        kind, version, flags, executable, prefix = json.loads(done.stdout)
        number = int(version[0]), int(version[1])
        # A debug or free-threaded build takes other wheels than its version says.
        is_usable = kind == "cpython" and number >= OLDEST and number[0] == 3 and flags == ""
        library = os.path.join(prefix, "lib", f"python{number[0]}.{number[1]}", "os.py")
        is_whole = os.path.isabs(executable) and os.path.isfile(executable) and os.path.isfile(library)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return None
    if not (is_usable and is_whole and is_safe(Path(executable)) and is_safe(Path(library))):
        return None
    return f"{number[0]}.{number[1]}", Interpreter(executable, prefix)


def is_safe(path: Path) -> bool:
    """Whether only root and this user can change what lies at `path`: the file itself and all folders above it."""
    real = Path(os.path.realpath(path))
    try:
        return all(_is_ours(place.stat()) for place in (real, *real.parents))
    except OSError:
        return False


def _is_ours(status: os.stat_result) -> bool:
    if status.st_uid not in (0, os.geteuid()):
        return False
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return True  # others may add files, and cannot touch ours
    if status.st_mode & stat.S_IWOTH:
        return False
    return not status.st_mode & stat.S_IWGRP or _is_private(status.st_gid)


def _is_private(gid: int) -> bool:
    """Whether the group is this user's alone, as most systems make one for everybody."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
