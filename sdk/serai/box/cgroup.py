"""The control group of one box."""

import contextlib
import errno
import os
import signal
from pathlib import Path

#: Joins groups and becomes the real command: nothing of a box runs outside of its group.
_JOIN = 'n=$1; shift; while [ $n -gt 0 ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; n=$((n-1)); done; exec "$@"'
#: Processor time is counted in periods of this length, the kernel's own: who has used up its share waits for the next.
_PERIOD_US = 100_000
#: The kernel takes no less.
_MIN_QUOTA_US = 1_000
#: Each pass kills all that it finds. Where forks cannot be forbidden, only a fork bomb needs more than a few.
_MAX_PASSES = 1_000


class Cgroup:
    """One folder (version 2), or one per controller (version 1). Made by `Cgroups.create`."""

    def __init__(self, folders: dict[str, Path], is_v2: bool) -> None:
        self._by_controller = folders
        self._folders = list(dict.fromkeys(folders.values()))  # that are still there
        self._is_v2 = is_v2
        self.is_over = False  # somebody has asked for its removal

    # ── limits ───────────────────────────────────────────────────────────────────────────────────────────────

    def limit(self, memory_bytes: int, max_pids: int, cpus: float | None) -> None:
        """Set its limits, at first or anew; those whose controller is not usable here are left out.

        Args:
            memory_bytes: of all members together, with their files in memory and the cache of files that they read.
            max_pids: processes and threads.
            cpus: processor time in cores, over 100 ms; None: no limit.

        Raises:
            OSError: the kernel refuses, for instance less memory than is in use and cannot be taken back.
        """
        if "memory" in self._by_controller:
            self._limit_memory(self._by_controller["memory"], memory_bytes)
        if "pids" in self._by_controller:
            (self._by_controller["pids"] / "pids.max").write_text(str(max_pids))
        if "cpu" in self._by_controller:
            self._limit_cpus(self._by_controller["cpu"], cpus)

    def _limit_memory(self, folder: Path, memory_bytes: int) -> None:
        if self._is_v2:
            (folder / "memory.max").write_text(str(memory_bytes))
            _write_if_known(folder / "memory.swap.max", "0")  # swap would only make it slow
            _write_if_known(folder / "memory.oom.group", "1")  # half a box is of no use
            return
        memory, with_swap = folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"
        try:
            memory.write_text(str(memory_bytes))
        except OSError:  # it must never be above the limit with swap, so a raise begins there
            with_swap.write_text(str(memory_bytes))
            memory.write_text(str(memory_bytes))
        _write_if_known(with_swap, str(memory_bytes))

    def _limit_cpus(self, folder: Path, cpus: float | None) -> None:
        quota = None if cpus is None else max(_MIN_QUOTA_US, round(cpus * _PERIOD_US))
        if self._is_v2:
            (folder / "cpu.max").write_text(f"{'max' if quota is None else quota} {_PERIOD_US}")
            return
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        try:
            (folder / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))
        except OSError as error:
            if error.errno != errno.EINVAL:  # more than we have ourselves, which is limit enough
                raise

    # ── members ──────────────────────────────────────────────────────────────────────────────────────────────

    def wrap(self, command: list[str]) -> list[str]:
        """`command` so that it and all its children are members from their first moment."""
        folders = [str(folder) for folder in self._folders]
        return ["/bin/sh", "-c", _JOIN, "sh", str(len(folders)), *folders, *command]

    def add(self, pid: int) -> None:
        """Make a process a member, and with it the children that it will have. Raises OSError: it is gone."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def processes(self) -> list[int]:
        """Pids of its members, as far as they are visible from here."""
        pids: set[int] = set()
        for folder in self._folders:
            with contextlib.suppress(OSError):
                pids.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return sorted(pids - {0})  # 0: in a process namespace that is not ours

    def kill(self) -> None:
        """SIGKILL to every member, also to those that they fork meanwhile; afterwards nothing new starts in it.

        They take a moment to die: `remove` tells when the last one has.
        """
        if self._is_v2 and self._folders:
            with contextlib.suppress(OSError):  # before Linux 5.14 there is no such file
                _write_existing(self._folders[0] / "cgroup.kill", "1")
                return
        if "pids" in self._by_controller:
            with contextlib.suppress(OSError):
                _write_existing(self._by_controller["pids"] / "pids.max", "0")
        killed: set[int] = set()
        for _ in range(_MAX_PASSES):
            found = set(self.processes()) - killed
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= found

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────

    def num_oom_kills(self) -> int:
        """How many of its processes the kernel has ended because the group was out of memory."""
        for name in ("memory.events", "memory.oom_control"):
            for line in self._read("memory", name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    def memory_bytes(self) -> int:
        """What its members have now, with files in memory and the cache of files; 0 where nobody counts."""
        return int(self._read("memory", "memory.current" if self._is_v2 else "memory.usage_in_bytes") or 0)

    def _read(self, controller: str, name: str) -> str:
        folder = self._by_controller.get(controller)
        if folder is None:
            return ""
        try:
            return (folder / name).read_text()
        except OSError:
            return ""

    # ── its end ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_gone(self) -> bool:
        return not self._folders

    def remove(self) -> bool:
        """Whether it is gone. A group can be removed only when its last member has died; see `Cgroups.remove_rest`."""
        self.is_over = True
        self._folders = [folder for folder in self._folders if not remove_folder(folder)]
        return not self._folders


def remove_folder(folder: Path) -> bool:
    """Whether the group in this folder is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write_if_known(file: Path, value: str) -> None:
    """For what not every kernel has: without accounting of swap, for instance, its files are missing."""
    with contextlib.suppress(OSError):
        file.write_text(value)


def _write_existing(file: Path, value: str) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_TRUNC), "w") as opened:
        opened.write(value)
