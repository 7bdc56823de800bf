"""Where git runs: in a box that holds one repository and git itself, with our settings and nobody else's.

A pack is a program of sorts, and git is a large one. What it could be made to do there, it does to that repository:
there is no network, no other file, no key of ours, and a limit on memory and processes.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from serai.box import bubblewrap
from serai.box.seccomp import open_filter
from serai.box.short_lived import CommandGroups
from serai_gateway.git.errors import GitError
from serai_gateway.git.limits import LIMITS, MAX_PIDS, MEMORY_BYTES
from serai_gateway.git.writers import writer
from serai_runner.settings import Settings

#: Where the repository is, inside.
INSIDE = "/repository"
_TMP_BYTES, _SHM_BYTES = 64 << 20, 1 << 20

#: Said to every git that we start; a repository's own `config` holds what `git init` writes, and no push changes it.
_SETTINGS = {
    "safe.directory": "*",
    "core.fsync": "committed,reference",
    "core.bigFileThreshold": "8m",
    "core.symlinks": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "2",
    "pack.windowMemory": "64m",
    "http.getanyfile": "false",
    "http.uploadpack": "true",
    "http.receivepack": "true",
    "transfer.hideRefs": "refs/serai",
    "transfer.fsckObjects": "true",
    # Old repositories hold commits that git no longer writes; these harm nobody.
    "receive.fsck.missingSpaceBeforeDate": "warn",
    "receive.fsck.zeroPaddedFilemode": "warn",
    "receive.maxInputSize": str(LIMITS.push_bytes),
    "receive.denyNonFastForwards": "true",
    "receive.denyCurrentBranch": "ignore",
    "receive.denyDeleteCurrent": "refuse",
    "receive.autogc": "false",
    "receive.updateServerInfo": "false",
    "uploadpack.allowFilter": "false",
    "uploadpack.allowAnySHA1InWant": "false",
}

_groups = CommandGroups("serai-git")


class Started(NamedTuple):
    """How to start a command for one repository."""

    words: list[str]
    environment: dict[str, str]  # for whoever starts it; what git itself gets is in the words, if there is a box
    descriptors: tuple[int, ...]  # to be passed on to the process


@contextlib.contextmanager
def git_box(
    home: Path,
    repository: Path,
    command: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    writable: bool = False,
    read_only: Sequence[tuple[Path, str]] = (),
) -> Iterator[Started]:
    """What starts `command` in a box with `repository`; afterwards nothing of it runs any more. Raises GitError.

    Start it in a session of its own, from a thread that lives as long. In the words of `command` and `variables`, the
    text `{place}` stands for where the repository is.
    """
    if not repository.is_dir():
        raise GitError("the repository has gone")
    is_boxed = has_box(home)
    place = INSIDE if is_boxed else str(repository)
    variables = _environment(_SETTINGS | dict(settings or {})) | dict(variables or {})
    given = {name: value.replace("{place}", place) for name, value in variables.items()}
    command = [word.replace("{place}", place) for word in command]
    filter_fd = open_filter() if is_boxed else None
    words = _box_words(command, repository, given, writable, read_only, filter_fd) if is_boxed else command
    try:
        with (
            writer(repository) if writable else contextlib.nullcontext() as held,
            _groups.group(MEMORY_BYTES, MAX_PIDS) as group,
        ):
            passed_on = tuple(descriptor for descriptor in (filter_fd, held) if descriptor is not None)
            yield Started(group.wrap(words) if group else words, {} if is_boxed else given, passed_on)
    finally:
        if filter_fd is not None:
            os.close(filter_fd)


def _box_words(
    command: Sequence[str],
    repository: Path,
    variables: Mapping[str, str],
    writable: bool,
    read_only: Sequence[tuple[Path, str]],
    filter_fd: int | None,
) -> list[str]:
    words = bubblewrap.box_arguments(
        network=False, tmp_bytes=_TMP_BYTES, shm_bytes=_SHM_BYTES, hostname="git", seccomp_fd=filter_fd
    )
    words += ["--bind" if writable else "--ro-bind", str(repository), INSIDE]
    for path, inside in read_only:
        words += ["--ro-bind", str(path), inside]
    for name, value in variables.items():
        words += ["--setenv", name, value]
    return [*words, "--remount-ro", "/", "--chdir", INSIDE, "--", *command]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (name, value) in enumerate(settings.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


@functools.cache
def has_box(home: Path) -> bool:
    """Whether git is contained here: where bubblewrap works, unless the operator wants no sandbox."""
    return Settings.of(home).sandbox != "none" and not bubblewrap.probe()


def problem() -> str:
    """Why there can be no repositories on this machine; empty: there can."""
    return "" if shutil.which("git") else "the git command is missing: install the package git"
