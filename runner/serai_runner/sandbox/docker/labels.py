"""What containers are labelled with: which Serai they belong to, and which of its processes."""

import hashlib
import os
from pathlib import Path


def home_label(home: Path) -> str:
    """A short name for a home that tells nobody where it is."""
    return hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]


def labels_of(home: str) -> dict[str, str]:
    """Of containers that this process makes for the home with this label."""
    return {"serai.home": home, "serai.host": _stamp(os.getpid())}


def is_orphan(labels: dict[str, str]) -> bool:
    """Whether the process that made the container is gone."""
    stamp = labels.get("serai.host", "")
    pid = stamp.partition(":")[0]
    return not pid.isdigit() or _stamp(int(pid)) != stamp


def _stamp(pid: int) -> str:
    """A process by its number and its start, because another may get the number later. The number, if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return str(pid)
    return f"{pid}:{stat.rpartition(b')')[2].split()[19].decode()}"
