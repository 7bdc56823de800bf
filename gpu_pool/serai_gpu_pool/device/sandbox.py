"""The box that our own code runs in when it handles what others wrote: device workers and the preparation of models.

What all boxes have in common is in `serai.box`; here is what these add: the interpreter, our packages, what is listed,
an empty working folder. No network, nothing of our environment.

A command in the box is process 2 of its own process namespace. Its parent is always process 1, which dies with us; but
not in its first moments, so the command should end as well when a socket or pipe that it has from us is closed.
"""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import serai
import serai_gpu_pool
from serai.box import bubblewrap
from serai.box.bubblewrap import PARENT_INSIDE, inner_pid, kill
from serai.box.seccomp import open_filter

__all__ = ["PARENT_INSIDE", "Mount", "enclose", "inner_pid", "kill", "open_filter", "probe"]

#: A path that is at the same place inside, or a path and where it is inside.
Mount = Path | tuple[Path, str]

#: Stays empty: where a library looks for files beside the model, there are none.
_WORKING_FOLDER = "/nothing"
#: OpenMP libraries keep a few kB of locks in shared memory; nobody needs more.
SHM_BYTES = 1 << 20
#: Visible in every box, so that what is below need not be mounted again.
_SYSTEM = (Path("/usr"), Path("/lib"), Path("/lib64"), Path("/bin"))


def enclose(
    command: list[str],
    *,
    read_only: tuple[Mount, ...] = (),
    writable: tuple[Mount, ...] = (),
    tmp_bytes: int,
    seccomp_fd: int | None,
    gpu: bool = False,
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """`command` (our interpreter running our code) as it is started in a box of its own.

    Inherited descriptors survive. The working folder is empty, `/tmp` private. Whoever starts it does so with
    `start_new_session=True`, and ends it with `kill`.

    Args:
        read_only: files and folders that are visible inside, on a mount that cannot be written through.
        writable: the same, writable.
        tmp_bytes: size of /tmp, which is memory.
        seccomp_fd: from `open_filter`, to be passed on for this one start and closed after it.
        gpu: whether the NVIDIA devices are visible inside.
        variables: the whole environment, beside a few harmless ones.
    """
    words = bubblewrap.box_arguments(
        network=False,
        tmp_bytes=tmp_bytes,
        shm_bytes=SHM_BYTES,
        gpu=gpu,
        writable_proc=True,  # workers reset the kernel's record of their peak memory
        seccomp_fd=seccomp_fd,
    )
    words += _code()
    for option, mounts in (("--ro-bind", read_only), ("--bind", writable)):
        for mount in mounts:
            source, inside = mount if isinstance(mount, tuple) else (mount, str(mount))
            words += [option, str(source), inside]
    for name, value in (_environment() | dict(variables or {})).items():
        words += ["--setenv", name, value]
    return [*words, *_ending(command)]


def probe() -> str:
    """Why boxes do not work on this machine, as bwrap says it; empty when they do. Asked once per process."""
    return bubblewrap.probe((*_code(), *_ending([sys.executable, "-I", "-S", "-B", "-c", "pass"])))


def _ending(command: list[str]) -> list[str]:
    return ["--dir", _WORKING_FOLDER, "--remount-ro", "/", "--chdir", _WORKING_FOLDER, "--", *command]


@functools.cache
def _code() -> tuple[str, ...]:
    return tuple(word for folder in _code_folders() for word in ("--ro-bind", folder, folder))


def _code_folders() -> tuple[str, ...]:
    """The interpreter, its packages and ours, by every name that leads to them; each below no other of them."""
    executable = Path(sys.executable)
    folders = {Path(sys.prefix), Path(sys.base_prefix), executable.resolve().parent.parent}
    if executable.is_symlink():  # of a virtual environment: each link on the way has to exist inside
        at = executable
        while at.is_symlink():
            at = Path(os.path.normpath(at.parent / os.readlink(at)))
            folders.add(at.parent.parent)
    folders |= {folder.resolve() for folder in folders}
    folders |= {Path(package.__file__ or "").parent for package in (serai, serai_gpu_pool)}
    kept: list[Path] = []
    for folder in sorted(folders, key=lambda one: len(one.parts)):
        if not any(folder.is_relative_to(above) for above in (*_SYSTEM, *kept)):
            kept.append(folder)
    return tuple(map(str, kept))


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
    }
