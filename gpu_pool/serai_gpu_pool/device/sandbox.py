"""The box that our own code runs in when it handles what others wrote: device workers and the preparation of models.

No network, no other process, no file but the interpreter, our packages and what is listed; nothing of our environment.
A command in the box is process 2 of its own process namespace. Its parent is always process 1, which dies with us; but
not in its first moments, so the command should end as well when a socket or pipe that it has from us is closed.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import serai
import serai_gpu_pool

#: What a process in the box gives as its parent's pid to `process_control.die_with`.
PARENT_INSIDE = 1

#: A path that is at the same place inside, or a path and where it is inside.
Mount = Path | tuple[Path, str]

_NOBODY = "65534"
#: Stays empty: where a library looks for files beside the model, there are none.
_WORKING_FOLDER = "/nothing"
#: Read-only from the machine where it exists: shared libraries and their search paths.
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
#: How many cores there are and how they are connected. Numeric libraries size their thread pools by it.
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
#: What a CUDA driver looks at besides its device files.
_GPU_FOLDERS = ("/sys/bus/pci/devices", "/sys/devices", "/sys/module/nvidia")
#: Files and folders of /proc that tell about the machine or change it. Where the pool runs as root, so does the box as
#: far as the kernel is concerned, and what root may write in /proc is writable inside unless something lies over it.
_PROC_FILES = (
    "config.gz", "iomem", "kallsyms", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "mtrr", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "vmallocinfo",
)  # fmt: skip
_PROC_FOLDERS = ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi")
#: OpenMP libraries keep a few kB of locks in shared memory; nobody needs more.
_SHM_BYTES = 1 << 20
#: A start in the box takes some 30 ms; a machine under load may need much longer.
_PROBE_TIMEOUT_S = 20
_PROBE_TMP_BYTES = 1 << 20


def enclose(
    command: list[str],
    *,
    read_only: tuple[Mount, ...] = (),
    writable: tuple[Mount, ...] = (),
    tmp_bytes: int,
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
        gpu: whether the NVIDIA devices are visible inside.
        variables: the whole environment, beside a few harmless ones.
    """
    return _enclose(command, read_only, writable, tmp_bytes, gpu, variables or {}, _forbids_user_namespaces())


@functools.cache
def probe() -> str:
    """Why boxes do not work on this machine, as bwrap says it; empty when they do. Asked once per process."""
    if shutil.which("bwrap") is None:
        return "the bwrap command is missing: install the package bubblewrap"
    said = _try(forbids_user_namespaces=True)
    return _try(forbids_user_namespaces=False) if said else ""


def kill(pid: int) -> None:
    """End the box that was started as `pid`, in a session of its own, and everything in it.

    Killing that process alone is not enough: until a box stands, which takes some 20 ms, the process that becomes its
    process 1 does not yet die with its parent, and would go on or wait for ever. All of them are in one process group,
    as long as nothing gives the box another session.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def inner_pid(pid: int) -> int | None:
    """Pid, as seen from here, of the process that runs the command in the box started as `pid`; None: not up yet."""
    for _ in range(2):  # bwrap itself, its process 1, the command
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = file.read().split()
        except OSError:
            return None
        if not children:
            return None
        pid = int(children[0])
    return pid


def _enclose(
    command: list[str],
    read_only: tuple[Mount, ...],
    writable: tuple[Mount, ...],
    tmp_bytes: int,
    gpu: bool,
    variables: Mapping[str, str],
    forbids_user_namespaces: bool,
) -> list[str]:
    # Process 1 inside is a copy of bwrap and shows the environment that bwrap was started with: `env -i` empties it.
    words = [shutil.which("env") or "/usr/bin/env", "-i", shutil.which("bwrap") or "bwrap"]
    words += ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--unshare-pid", "--unshare-net"]
    words += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "serai"]
    words += ["--die-with-parent", "--cap-drop", "ALL"]  # no --new-session: see `kill`
    if forbids_user_namespaces:
        words += ["--disable-userns"]
    words += ["--size", str(tmp_bytes), "--tmpfs", "/tmp"]  # noqa: S108  # first: our own code may lie below it
    words += _system() + _proc(gpu) + _devices(gpu)
    for option, mounts in (("--ro-bind", read_only), ("--bind", writable)):
        for mount in mounts:
            source, inside = mount if isinstance(mount, tuple) else (mount, str(mount))
            words += [option, str(source), inside]
    for name, value in (_environment() | dict(variables)).items():
        words += ["--setenv", name, value]
    words += ["--dir", _WORKING_FOLDER, "--remount-ro", "/", "--chdir", _WORKING_FOLDER, "--"]
    return words + command


def _system() -> list[str]:
    words: list[str] = []
    for path in (*_SYSTEM, *_PROCESSORS):
        words += ["--ro-bind-try", path, path]
    for folder in _code_folders():
        words += ["--ro-bind", folder, folder]
    return words


@functools.cache
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
    visible = [Path(path) for path in _SYSTEM]
    kept: list[Path] = []
    for folder in sorted(folders, key=lambda one: len(one.parts)):
        if not any(folder.is_relative_to(above) for above in (*visible, *kept)):
            kept.append(folder)
    return tuple(map(str, kept))


def _proc(gpu: bool) -> list[str]:
    words = ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    for name in _PROC_FILES:
        if os.path.exists(f"/proc/{name}"):
            words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _PROC_FOLDERS:
        if os.path.isdir(f"/proc/{name}") and not (gpu and name == "driver"):
            words += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    return words


def _devices(gpu: bool) -> list[str]:
    words = ["--dev", "/dev"]
    if gpu:
        for device in sorted(Path("/dev").glob("nvidia*")):
            words += ["--dev-bind", str(device), str(device)]
        for folder in _GPU_FOLDERS:
            words += ["--ro-bind-try", folder, folder]
    return [*words, "--remount-ro", "/dev", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
    }


@functools.cache
def _forbids_user_namespaces() -> bool:
    """Older versions of bwrap cannot forbid user namespaces inside, and some machines do not let them."""
    return not _try(forbids_user_namespaces=True)


@functools.cache
def _try(forbids_user_namespaces: bool) -> str:
    """What bwrap complained about; empty when our interpreter ran."""
    command = [sys.executable, "-I", "-S", "-B", "-c", "pass"]
    words = _enclose(command, (), (), _PROBE_TMP_BYTES, False, {}, forbids_user_namespaces)
    try:
        done = subprocess.run(words, env={}, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
