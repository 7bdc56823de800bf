"""Limits on memory, processes and processor time of all processes in one box together, where the kernel lets us.

A control group per box, and all of a daemon's below one of its own:

    version 1   /sys/fs/cgroup/{memory,pids,cpu}/<where we are>/serai-<pid>/<number>
    version 2   /sys/fs/cgroup/<where we are, or above>/serai-<pid>/<number>
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from serai.box.cgroup import Cgroup, remove_folder

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "pids", "cpu")
#: All boxes of a daemon together weigh as much against the daemons as two ordinary groups or, where the daemons have no
#: group of their own, two busy threads. So one busy thread of the gateway or of a daemon gets a third of the machine if
#: it wants it, however many replicas are busy; with a group each, thirty replicas would leave it a thirtieth. When only
#: the boxes are busy they have all of the machine.
_WEIGHT = {"cpu.shares": 2 * 1024, "cpu.weight": 2 * 100}
#: Groups of dead daemons are waited for when their processes have been killed: large ones take a while to die.
_SWEEP_S, _LOOK_S = 2.0, 0.005

_num_detected = itertools.count()
_ours: set[str] = set()  # names of groups that this process has made: not those of a dead daemon with our pid


class Cgroups:
    """Creates groups below the folders found by `detect`, and sees to it that none is left."""

    def __init__(self, name: str, places: dict[str, Path], is_v2: bool) -> None:
        self._parents = {controller: place / name for controller, place in places.items()}
        self._is_v2 = is_v2
        self._made: list[Cgroup] = []  # that may still be there

    @property
    def limits_memory(self) -> bool:
        return "memory" in self._parents

    @property
    def limits_pids(self) -> bool:
        return "pids" in self._parents

    @property
    def limits_cpus(self) -> bool:
        return "cpu" in self._parents

    @classmethod
    def detect(cls, prefix: str, root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> "Cgroups":
        """What we may use here, perhaps nothing. What dead daemons of that prefix have left is ended and removed.

        Args:
            prefix: of this kind of daemon, each kind another.
            root: where control groups are mounted.
            membership: the file that says in which groups we are.
        """
        places, is_v2 = _places(root, membership)
        _sweep(prefix, places, is_v2)
        number = next(_num_detected)
        name = f"{prefix}-{os.getpid()}" + (f"-{number}" if number else "")
        _ours.add(name)
        return cls(name, places, is_v2)

    def create(self, number: int, memory_bytes: int, max_pids: int, cpus: float | None) -> Cgroup | None:
        """A group with limits, see `Cgroup.limit`. None when no controller is usable here.

        Args:
            number: not that of another group of ours that is still there.

        Raises:
            OSError: the kernel refuses; nothing is left.
        """
        if not self._parents:
            return None
        self._ensure_parents()
        folders = {controller: parent / str(number) for controller, parent in self._parents.items()}
        group = Cgroup(folders, self._is_v2)
        try:
            for folder in set(folders.values()):
                folder.mkdir()
            group.limit(memory_bytes, max_pids, cpus)
        except OSError:
            group.remove()
            raise
        self.remove_rest()
        self._made.append(group)
        return group

    def remove_rest(self) -> bool:
        """Try again to remove the groups whose `remove` came while they had members; whether no group is left at all.

        Others are left alone: one without members may be waiting for its first.
        """
        self._made = [group for group in self._made if not (group.is_over and group.remove())]
        return not self._made

    def close(self) -> bool:
        """Kill and remove all that is left of ours; whether it is gone. What was killed takes a moment to die."""
        for group in self._made:
            group.kill()
            group.remove()
        return self.remove_rest() and all(remove_folder(parent) for parent in set(self._parents.values()))

    def _ensure_parents(self) -> None:
        for parent in set(self._parents.values()):
            try:
                parent.mkdir()
            except FileExistsError:
                continue
            if self._is_v2:
                (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in self._parents))
            if parent == self._parents.get("cpu"):
                name = "cpu.weight" if self._is_v2 else "cpu.shares"
                (parent / name).write_text(str(_WEIGHT[name]))


def _places(root: Path, membership: Path) -> tuple[dict[str, Path], bool]:
    """Per usable controller the folder that our group can be made in, and whether that is version 2."""
    places: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if not names and (root / "cgroup.controllers").exists():
                return _delegated(root, path), True
            for controller in set(_CONTROLLERS) & set(names.split(",")):
                place = _own(root / names, path)
                if _is_usable(place):
                    places[controller] = place
    return places, False


def _own(mount: Path, path: str) -> Path:
    """Our own group's folder; in a container that sees only part of the tree, the part's root."""
    own = mount / path.lstrip("/")
    return own if own.is_dir() else mount


def _delegated(root: Path, path: str) -> dict[str, Path]:
    """Version 2: our own group or, because one with processes in it can hand nothing on, the one above it."""
    own = _own(root, path)
    folders = [own, own.parent] if own != root and _is_ours(own.parent) else [own]
    for folder in folders:
        controllers = _handed_on(folder)
        if controllers and _is_usable(folder):
            return dict.fromkeys(controllers, folder)
    return {}


def _is_ours(folder: Path) -> bool:
    """Whether groups in it are ours to make. Root could make them anywhere, also past the limits of our own unit."""
    if os.geteuid() != 0:
        return os.access(folder / "cgroup.procs", os.W_OK)
    with contextlib.suppress(OSError):
        return os.getxattr(folder, "trusted.delegate") == b"1"  # set by systemd, for units with Delegate=yes
    return False


def _handed_on(folder: Path) -> list[str]:
    """Which controllers groups below this one have, now that we have asked for ours."""
    control = folder / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        known = control.read_text().split()
        for controller in _CONTROLLERS:
            if controller not in known:
                with contextlib.suppress(OSError):  # it has processes, or has not got this controller
                    control.write_text(f"+{controller}")
        known = control.read_text().split()
        return [controller for controller in _CONTROLLERS if controller in known]
    return []


def _is_usable(folder: Path) -> bool:
    probe = folder / f"serai-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _sweep(prefix: str, places: dict[str, Path], is_v2: bool) -> None:
    """End and remove what dead daemons have left: boxes that outlived them, and empty groups."""
    left = list(_groups_of_dead(prefix, places, is_v2))
    until = time.monotonic() + _SWEEP_S
    while left:
        for group in left:
            group.kill()
        left = [group for group in left if not group.remove()]
        if left and time.monotonic() > until:
            return
        if left:
            time.sleep(_LOOK_S)  # nothing tells when a group of version 1 is empty


def _groups_of_dead(prefix: str, places: dict[str, Path], is_v2: bool) -> Iterator[Cgroup]:
    """Groups of boxes first, then those that they are in."""
    for name in {name for place in places.values() for name in _names(place) if _is_of_dead(prefix, name)}:
        parents = {controller: place / name for controller, place in places.items()}
        for box in {box for parent in parents.values() for box in _names(parent)}:
            yield Cgroup({controller: parent / box for controller, parent in parents.items()}, is_v2)
        yield Cgroup(parents, is_v2)


def _names(folder: Path) -> list[str]:
    """Of the groups in a group."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def _is_of_dead(prefix: str, name: str) -> bool:
    matched = re.fullmatch(re.escape(prefix) + r"-(\d+)(-\d+)?", name)
    if matched is None or name in _ours:
        return False
    pid = matched[1]
    return int(pid) == os.getpid() or not Path("/proc", pid).exists()
