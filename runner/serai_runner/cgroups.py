"""Limits on memory and processes of one replica: a control group each, where the kernel lets us create them."""

import contextlib
import os
import signal
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
#: Joins groups and becomes the real command: nothing of a replica runs outside of its group.
_JOIN = 'n=$1; shift; while [ $n -gt 0 ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; n=$((n-1)); done; exec "$@"'


class Cgroup:
    """The group of one replica, in one folder (version 2) or one per controller (version 1)."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._memory = folders.get("memory")
        self._folders = list(dict.fromkeys(folders.values()))

    def wrap(self, command: list[str]) -> list[str]:
        """`command` so that it and all its children are members from their first moment."""
        folders = [str(folder) for folder in self._folders]
        return ["/bin/sh", "-c", _JOIN, "sh", str(len(folders)), *folders, *command]

    def num_oom_kills(self) -> int:
        if self._memory is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (self._memory / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        return 0

    def kill(self) -> None:
        """SIGKILL to every member."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)

    @property
    def is_gone(self) -> bool:
        return not self._folders

    def remove(self) -> bool:
        """Whether it is gone. A group can be removed only when its last member has been."""
        for folder in list(self._folders):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self._folders.remove(folder)
        return not self._folders


class Cgroups:
    """Creates groups named `serai-<our pid>-<number>` below the folders found by `detect`."""

    def __init__(self, parents: dict[str, Path], is_v2: bool) -> None:
        self._parents = parents
        self._is_v2 = is_v2
        self._made: list[Cgroup] = []  # that may still be there

    def remove_rest(self) -> bool:
        """Remove what has no members any more; whether that was everything."""
        self._made = [group for group in self._made if not group.remove()]
        return not self._made

    @property
    def limits_memory(self) -> bool:
        return "memory" in self._parents

    @property
    def limits_pids(self) -> bool:
        return "pids" in self._parents

    @classmethod
    def detect(cls, root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> "Cgroups":
        """What we may use here, perhaps nothing. Leftovers of dead hosts are removed."""
        parents, is_v2 = {}, False
        with contextlib.suppress(OSError):
            for line in membership.read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                for controller in {"memory", "pids"} & set(controllers.split(",")):
                    parents[controller] = _parent(root / controllers, path)
                if not controllers and (root / "cgroup.controllers").exists():
                    parents, is_v2 = _delegated(_parent(root, path)), True
        parents = {name: folder for name, folder in parents.items() if _is_usable(folder)}
        for folder in set(parents.values()):
            _sweep(folder)
        return cls(parents, is_v2)

    def create(self, number: int, memory_bytes: int, max_pids: int) -> Cgroup | None:
        """None when no controller is usable. Raises OSError when the kernel refuses."""
        if not self._parents:
            return None
        name = f"serai-{os.getpid()}-{number}"
        folders = {controller: parent / name for controller, parent in self._parents.items()}
        group = Cgroup(folders)
        try:
            for folder in set(folders.values()):
                folder.mkdir()
            if "memory" in folders:
                self._limit_memory(folders["memory"], memory_bytes)
            if "pids" in folders:
                (folders["pids"] / "pids.max").write_text(str(max_pids))
        except OSError:
            group.remove()
            raise
        self._made = [one for one in self._made if not one.is_gone]
        self._made.append(group)
        return group

    def _limit_memory(self, folder: Path, memory_bytes: int) -> None:
        if self._is_v2:
            (folder / "memory.max").write_text(str(memory_bytes))
            optional = {"memory.swap.max": "0", "memory.oom.group": "1"}
        else:
            (folder / "memory.limit_in_bytes").write_text(str(memory_bytes))
            optional = {"memory.memsw.limit_in_bytes": str(memory_bytes)}  # swap would only make it slow
        for name, value in optional.items():
            with contextlib.suppress(OSError):  # kernels without swap accounting have no such file
                (folder / name).write_text(value)


def _parent(mount: Path, path: str) -> Path:
    """Our own group's folder; in a container that sees only part of the tree, the part's root."""
    own = mount / path.lstrip("/")
    return own if own.is_dir() else mount


def _delegated(folder: Path) -> dict[str, Path]:
    """Version 2: groups below ours can be limited only where the controllers are, or can be, passed on."""
    control = folder / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        for controller in ("memory", "pids"):
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
    with contextlib.suppress(OSError):
        return {name: folder for name in control.read_text().split() if name in ("memory", "pids")}
    return {}


def _is_usable(folder: Path) -> bool:
    probe = folder / f"serai-{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove the empty groups of hosts that are gone."""
    for stale in folder.glob("serai-*-*"):
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                stale.rmdir()
