"""Run what others wrote while building: an author's bin/build, or the scripts of packages. Always in a sandbox."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from serai.box.short_lived import CommandGroups
from serai_gateway.build.built_tree import LIMITS, size_check
from serai_gateway.build.command import Finished, Log, run_command
from serai_gateway.build.errors import BuildError
from serai_runner.sandbox import BuildBox, Sandbox, choose_sandbox
from serai_runner.settings import Settings

#: Longest run of one command: compilers of large programs need minutes.
TIMEOUT_S = 15 * 60.0
#: Memory and processes of one command and all that it starts: what `make -j` of a C++ program takes.
MEMORY_BYTES = 2 << 30
MAX_PIDS = 1024
#: Where a command finds programs, and where it may write.
_VARIABLES = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 - inside it is private
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
_groups = CommandGroups("serai-build")


def run_in_box(
    home: Path,
    what: str,
    command: Sequence[str],
    folder: Path,
    log: Log,
    *,
    variables: Mapping[str, str] | None = None,
    read_only: Sequence[tuple[Path, str]] = (),
    timeout_s: float = TIMEOUT_S,
) -> Finished:
    """Run `command` in `folder`, the only place that it can write to and that lasts. Nothing of it runs on afterwards.

    Args:
        what: the command as an author knows it, for messages.
        read_only: what else it sees, and where. It has no network; a socket in such a folder is what it can reach.

    Raises BuildError when it takes too long, writes too much, or there is no sandbox on this machine.
    """
    sandbox = _sandbox(home, what)
    box = BuildBox(
        command=command,
        folder=folder,
        memory_bytes=MEMORY_BYTES,
        pids=MAX_PIDS,
        variables=_VARIABLES | dict(variables or {}),
        read_only=read_only,
    )
    words = sandbox.build_command(box)
    with _groups.group(MEMORY_BYTES, MAX_PIDS) as group:
        done = run_command(
            group.wrap(words) if group else words,
            cwd=folder,
            env=box.variables,
            timeout_s=timeout_s,
            log=log,
            max_file_bytes=LIMITS.file_bytes,
            check=size_check(folder, what),
            what=what,
        )
        if done.code != 0 and group and group.num_oom_kills():
            raise BuildError(f"{what} needs more than {MEMORY_BYTES >> 20} MiB of memory and was stopped")
        return done


def network_problem(home: Path) -> str:
    """Why replicas here cannot have a network that reaches public addresses only; empty: they can."""
    sandbox, warning = _choose(home)
    return sandbox.network_problem() if sandbox.is_isolating else warning


def python_problem(home: Path, python: str) -> str:
    """Why replicas here cannot run this Python, though it is installed; empty: they can."""
    return _choose(home)[0].python_problem(python)


def _sandbox(home: Path, what: str) -> Sandbox:
    sandbox, warning = _choose(home)
    if not sandbox.is_isolating:
        raise BuildError(f"{what} runs in a sandbox only, and this server has none: {warning}")
    return sandbox


@functools.cache
def _choose(home: Path) -> tuple[Sandbox, str]:
    return choose_sandbox(Settings.of(home), _groups.detected())
