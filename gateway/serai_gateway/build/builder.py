"""Who runs a build: a name for this process that no later process has, so that the dead can be told from the living."""

import functools
import os
import socket
from pathlib import Path

PART = ".part-"


def this_builder() -> str:
    """`HOST/BOOT/PID/STARTED`: PID and start time name a process, within one start of one machine."""
    return f"{_machine()}/{_process(os.getpid())}"


def is_alive(builder: str) -> bool | None:
    """Whether that process still runs; None if it is another machine's, so that nobody here can know."""
    host, _, rest = builder.partition("/")
    boot, _, process = rest.partition("/")
    if host != socket.gethostname():
        return None
    return boot == _boot() and _is_running(process)


def part_name(build_id: str) -> str:
    """What a folder is called while this process fills it, beside those that are complete."""
    return f"{PART}{_boot()}-{_process(os.getpid()).replace('/', '-')}-{build_id}"


def is_abandoned(name: str) -> bool:
    """Whether this is a folder whose builder is gone."""
    if not name.startswith(PART):
        return False
    boot, _, rest = name.removeprefix(PART).partition("-")
    return boot != _boot() or not _is_running("/".join(rest.split("-")[:2]))


def _is_running(process: str) -> bool:
    pid = process.partition("/")[0]
    return pid.isdigit() and len(pid) < 10 and _process(int(pid)) == process


def _process(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return f"{pid}/gone"
    fields = status.rpartition(")")[2].split()
    state, started = fields[0], fields[19]  # fields 3 and 22 of proc(5): the name before them may hold spaces
    return f"{pid}/gone" if state in "ZX" else f"{pid}/{started}"


@functools.cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]


def _machine() -> str:
    return f"{socket.gethostname()}/{_boot()}"
