"""The control group that an engine made for a container, by one of its processes."""

from pathlib import Path

from serai.box.cgroup import Cgroup

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "pids", "cpu")


def group_of(pid: int, root: Path = _ROOT) -> Cgroup:
    """Its limits may be changed; its members and its removal are the engine's.

    Raises:
        OSError: the process is gone.
    """
    version_1: dict[str, Path] = {}
    version_2 = root
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in _CONTROLLERS:
                version_1[name] = root / name / path.lstrip("/")
        if not controllers:
            version_2 = root / path.lstrip("/")
    if version_1:
        return Cgroup(version_1, is_v2=False)
    return Cgroup(dict.fromkeys(_CONTROLLERS, version_2), is_v2=True)
