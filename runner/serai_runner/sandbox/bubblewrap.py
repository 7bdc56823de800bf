"""Replicas in Linux namespaces, through the `bwrap` command."""

import os
import shutil
import subprocess
from pathlib import Path

from serai_runner.sandbox.base import (
    INSIDE_FOLDER,
    INTERPRETER,
    PYTHON_PREFIX,
    SDK_FOLDER,
    Box,
    SandboxUnavailable,
    replica_command,
    replica_environment,
)
from serai_runner.settings import Settings

_NOBODY = "65534"
#: Mounted read-only from the machine where it exists: what programs and shared libraries need.
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
#: And what name resolution and TLS need, for versions that may use the network.
_NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/services",
)
#: Files of /proc that tell about the machine or change it. When the host runs as root, so does the sandbox as the
#: kernel sees it, and the files of /proc that root owns are writable inside unless something lies over them.
_PROC_FILES = (
    "config.gz", "iomem", "kallsyms", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "mtrr", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "vmallocinfo",
)  # fmt: skip
_PROC_FOLDERS = ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi")
#: Starts of an interpreter in a fresh sandbox take 50 ms; a machine under load may need much longer.
_PROBE_TIMEOUT_S = 20
_SHM_BYTES = 64 << 20


class Bubblewrap:
    """Own users, processes, network, mounts, ipc, host name and cgroups; no capabilities; dies with the host."""

    name = "bubblewrap"
    is_isolating = True

    def __init__(self, etc: Path, forbids_user_namespaces: bool = True) -> None:
        self._bwrap = shutil.which("bwrap") or "bwrap"
        self._etc = etc
        self._base = self._base_arguments(forbids_user_namespaces)

    @classmethod
    def probe(cls, settings: Settings) -> "Bubblewrap":
        """One that works here. Raises SandboxUnavailable with what bwrap said."""
        if shutil.which("bwrap") is None:
            raise SandboxUnavailable("the bwrap command is missing: install the package bubblewrap")
        etc = _write_etc(settings.run_directory / "sandbox")
        said = ""
        for forbids in (True, False):  # older versions cannot forbid user namespaces inside
            sandbox = cls(etc, forbids)
            said = sandbox._try()
            if not said:
                return sandbox
        raise SandboxUnavailable(f"bwrap does not work on this machine: {said}")

    def command(self, box: Box) -> list[str]:
        spec = box.spec
        words = [*self._base, "--size", str(box.tmp_bytes), "--tmpfs", "/tmp"]  # noqa: S108
        words += ["--ro-bind", spec.code, "/opt/algorithm"]
        if spec.environment:
            words += ["--ro-bind", spec.environment, "/opt/environment"]
        if box.models:
            words += ["--ro-bind", box.models, "/run/serai"]
        if spec.network:
            for path in _NETWORK:
                words += ["--ro-bind-try", path, path]
        else:
            words += ["--unshare-net"]
        words += ["--remount-ro", "/", "--chdir", "/opt/algorithm", "--"]
        inside = "/opt/environment" if spec.environment else None
        return words + replica_command(box, "/opt/serai", "/opt/algorithm", inside, parent=0)

    def environment(self, box: Box) -> dict[str, str]:
        return replica_environment(box, "/run/serai/pool.sock")

    def _base_arguments(self, forbids_user_namespaces: bool) -> list[str]:
        words = [self._bwrap, "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
        words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "serai"]
        words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        for path in _SYSTEM:
            words += ["--ro-bind-try", path, path]
        if not PYTHON_PREFIX.startswith("/usr/") and PYTHON_PREFIX != "/usr":
            words += ["--ro-bind", PYTHON_PREFIX, PYTHON_PREFIX]
        words += ["--ro-bind", str(self._etc / "passwd"), "/etc/passwd"]
        words += ["--ro-bind", str(self._etc / "group"), "/etc/group"]
        words += ["--ro-bind", str(SDK_FOLDER), "/opt/serai/serai"]
        words += ["--ro-bind", str(INSIDE_FOLDER), "/opt/serai/serai_runner/inside"]
        words += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
        for name in _PROC_FILES:
            if os.path.exists(f"/proc/{name}"):
                words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
        for name in _PROC_FOLDERS:
            if os.path.isdir(f"/proc/{name}"):
                words += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
        words += ["--dev", "/dev", "--remount-ro", "/dev", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
        if forbids_user_namespaces:
            words += ["--disable-userns"]
        return words

    def _try(self) -> str:
        """What bwrap complained about; empty when a process ran."""
        words = [*self._base, "--unshare-net", "--", INTERPRETER, "-I", "-S", "-c", "pass"]
        try:
            done = subprocess.run(words, env={}, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return ""
        return done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"


def _write_etc(folder: Path) -> Path:
    """The few lines of /etc that libraries ask for: who am I."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "passwd").write_text(f"algo:x:{_NOBODY}:{_NOBODY}:algorithm:/tmp:/bin/sh\n")
    (folder / "group").write_text(f"algo:x:{_NOBODY}:\n")
    return folder
