"""The start of every command line of bwrap: what all boxes have in common.

No network (or the machine's), no other process, no file but the system's programs and libraries, no capability, no
environment, everything read-only but /tmp and /dev/shm, which are memory. What else is visible, and what runs, is
appended by those who use it.

A command in a box is process 2 of its own process namespace. Its parent is process 1, a copy of bwrap, which dies with
whoever started the box. When it dies, the kernel kills all others.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from pathlib import Path

from serai.box.seccomp import open_filter

#: What a process in a box gives as its parent's pid, when it asks to die with it.
PARENT_INSIDE = 1
#: User and group of everything in a box.
NOBODY = 65534

#: Read-only from the machine where it exists: programs, shared libraries and where they are searched. (Java's settings
#: are below /etc on Debian, and it does not start without.)
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_JAVA_SETTINGS = "java-*-openjdk"
#: How many cores there are and how they are connected. Numeric libraries size their thread pools by it.
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
#: What name resolution and TLS need.
_NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/services",
)
#: What a CUDA driver looks at besides its device files.
_GPU_FOLDERS = ("/sys/bus/pci/devices", "/sys/devices", "/sys/module/nvidia")
#: The few lines of /etc that libraries ask for: who am I, what is localhost.
_ETC = Path(__file__).parent / "etc"

#: Of /proc, what tells about the machine's other work although everybody may read it, and the folders where kernel
#: modules that are loaded later put their files. Where the daemon runs as root, so do its boxes as far as the kernel is
#: concerned: then whatever is for root's eyes is hidden as well, and nothing may be written, not even the files' modes.
_HIDDEN = {
    "acpi", "asound", "bus", "cmdline", "driver", "fs", "interrupts", "irq", "kallsyms", "keys", "modules",
    "pressure", "sched_debug", "scsi",
}  # fmt: skip
#: Where a CUDA driver looks for its kernel modules.
_PROC_OF_GPU = {"driver", "modules"}
#: Links to what belongs to the process that looks; `sys` is shown read-only in any case.
_PROC_OWN = {"sys", "self", "thread-self", "mounts", "net"}

#: A start takes some 20 ms; a machine under load may need much longer.
_PROBE_TIMEOUT_S = 20
_PROBE_BYTES = 1 << 20
_PROBE = ("--", "/bin/sh", "-c", ":")


def box_arguments(
    *,
    network: bool,
    tmp_bytes: int,
    shm_bytes: int,
    gpu: bool = False,
    writable_proc: bool = False,
    hostname: str = "serai",
    seccomp_fd: int | None,
) -> list[str]:
    """The start of a command line that runs something in a box of its own.

    The caller appends what else is mounted (also below /tmp) and set, and at last `--remount-ro / --chdir … --` and the
    command. The box is started with `start_new_session=True`, from a thread that lives longer (the box dies with the
    thread), and ended with `kill`. Descriptors that are passed on survive.

    Args:
        network: whether it reaches what the machine reaches; else it has a loopback interface of its own.
        tmp_bytes: size of /tmp.
        shm_bytes: size of /dev/shm.
        gpu: whether the NVIDIA devices are visible inside.
        writable_proc: whether processes may write to their own files in /proc (`clear_refs`, for instance).
        seccomp_fd: from `open_filter`, passed on to the box; None: no filter.
    """
    words = _namespaces(network, hostname, seccomp_fd, _forbids_user_namespaces())
    words += ["--size", str(tmp_bytes), "--tmpfs", "/tmp"]  # noqa: S108  # first: what is mounted may lie below it
    return [*words, *_files(network), *_proc(gpu, writable_proc), *_devices(gpu, shm_bytes)]


@functools.cache
def probe(rest: tuple[str, ...] = _PROBE) -> str:
    """Why boxes do not work on this machine, as bwrap says it; empty when they do. Asked once per process.

    Args:
        rest: what is appended to the arguments, from mounts to the command that is tried.
    """
    if shutil.which("bwrap") is None:
        return "the bwrap command is missing: install the package bubblewrap"
    return _try(_forbids_user_namespaces(), rest)


def kill(pid: int) -> None:
    """End the box that was started as `pid`, in a session of its own, and everything in it.

    Killing that process alone is not enough: until a box stands, which takes some 20 ms, the process that becomes its
    process 1 does not yet die with its parent, and would go on or wait for ever. All of them are in one process group,
    as long as nothing gives the box another session: therefore bwrap is not asked for one.
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


def _namespaces(network: bool, hostname: str, seccomp_fd: int | None, forbids_user_namespaces: bool) -> list[str]:
    # bwrap hands its environment on, and process 1 keeps a copy to be looked at.
    words = [shutil.which("env") or "/usr/bin/env", "-i", shutil.which("bwrap") or "bwrap"]
    words += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--unshare-pid", "--unshare-ipc"]
    words += ["--unshare-uts", "--hostname", hostname, "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--cap-drop", "ALL"]  # no --new-session: see `kill`
    if forbids_user_namespaces:
        words += ["--disable-userns"]
    if not network:
        words += ["--unshare-net"]
    if seccomp_fd is not None:
        words += ["--seccomp", str(seccomp_fd)]
    return words


def _files(network: bool) -> list[str]:
    words: list[str] = []
    java = sorted(map(str, Path("/etc").glob(_JAVA_SETTINGS)))
    for path in (*_SYSTEM, *_PROCESSORS, *java, *(_NETWORK if network else ())):
        words += ["--ro-bind-try", path, path]
    for name in ("passwd", "group") if network else ("passwd", "group", "hosts"):
        words += ["--ro-bind", str(_ETC / name), f"/etc/{name}"]
    return words


@functools.cache
def _proc(gpu: bool, writable: bool) -> tuple[str, ...]:
    words = ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    # Process 1 shows the command line of bwrap, with paths of the machine, and has nothing for those inside.
    words += ["--tmpfs", "/proc/1", "--remount-ro", "/proc/1"]
    is_root = os.geteuid() == 0
    for entry in sorted(os.scandir("/proc"), key=lambda one: one.name):
        if entry.name.isdigit() or entry.name in _PROC_OWN:
            continue
        path, is_folder = entry.path, entry.is_dir(follow_symlinks=False)
        is_for_gpu = gpu and entry.name in _PROC_OF_GPU
        if not is_for_gpu and (entry.name in _HIDDEN or (is_root and _has_secrets(path, is_folder))):
            words += ["--tmpfs", path, "--remount-ro", path] if is_folder else ["--ro-bind", "/dev/null", path]
        elif writable and is_root:
            words += ["--ro-bind", path, path]
    return tuple(words if writable else [*words, "--remount-ro", "/proc"])


def _has_secrets(path: str, is_folder: bool) -> bool:
    """Whether there is anything in it that not everybody may read."""
    below = (os.path.join(folder, name) for folder, *both in os.walk(path) for names in both for name in names)
    return any(map(_is_secret, (path, *below) if is_folder else (path,)))


def _is_secret(path: str) -> bool:
    try:
        return not os.lstat(path).st_mode & 0o004
    except OSError:
        return True


def _devices(gpu: bool, shm_bytes: int) -> list[str]:
    words = ["--dev", "/dev"]
    if gpu:
        for device in sorted(Path("/dev").glob("nvidia*")):
            words += ["--dev-bind", str(device), str(device)]
        for folder in _GPU_FOLDERS:
            words += ["--ro-bind-try", folder, folder]
    return [*words, "--remount-ro", "/dev", "--size", str(shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108


@functools.cache
def _forbids_user_namespaces() -> bool:
    """Older versions of bwrap cannot forbid user namespaces inside, and some machines do not let them."""
    return not _try(True, _PROBE)


@functools.cache
def _try(forbids_user_namespaces: bool, rest: tuple[str, ...]) -> str:
    """What bwrap complained about; empty when the command ran."""
    seccomp_fd = open_filter()
    words = _namespaces(False, "serai", seccomp_fd, forbids_user_namespaces)
    words += [*_files(False), *_proc(False, False), *_devices(False, _PROBE_BYTES)]
    try:
        done = subprocess.run(
            [*words, *rest],
            env={},
            stdin=subprocess.DEVNULL,
            pass_fds=() if seccomp_fd is None else (seccomp_fd,),
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        if seccomp_fd is not None:
            os.close(seccomp_fd)
    if done.returncode == 0:
        return ""
    return done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
