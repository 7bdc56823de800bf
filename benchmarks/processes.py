"""What processes use, seen from outside of them: processor seconds and memory, from /proc."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from serai_runner.testing import descendants

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
#: Between two looks at memory. Each walks the page tables of the process that is measured, which costs it milliseconds.
_LOOK_S = 1.0

#: Process ids by what they do, looked up anew each time: workers come and go.
Roles = Callable[[], dict[str, list[int]]]


def serai_roles(home: Path) -> Roles:
    """The processes of `serai up` on `home`: gateway, owner (of the pool), worker (of a device), runner."""

    def roles() -> dict[str, list[int]]:
        def pid(name: str) -> int:
            return int((home / "run" / f"{name}.pid").read_text())

        return {
            "gateway": [pid("gateway"), *descendants(pid("gateway"))],
            "owner": [pid("pool")],
            "worker": descendants(pid("pool")),
            "runner": [pid("runner"), *descendants(pid("runner"))],
        }

    return roles


def cpu_seconds(pids: list[int]) -> float:
    """Time on a processor, in user mode and in the kernel. Processes that are gone count nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_A_SECOND


def machine_seconds() -> float:
    """Time that all processors of this machine were busy, since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, interrupts, soft = map(int, fields[:7])
    return (user + nice + system + interrupts + soft) / _TICKS_A_SECOND


def memory_bytes(pids: list[int]) -> int:
    """Proportional set size: each page counts once, divided among those who map it. Pages of mapped files included."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class Use:
    """What was used between the begin and the end of a `with`."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self.cpu_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        #: Processors that were busy with anything but these roles and this process. Above 0.1: measure again.
        self.foreign = 0.0

    def look(self) -> None:
        for name, pids in self._roles().items():
            self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), memory_bytes(pids))


@contextlib.contextmanager
def watched(roles: Roles) -> Iterator[Use]:
    """Peak memory and processor seconds by role while the block runs."""
    use, done = Use(roles), threading.Event()

    def look_again() -> None:
        while not done.wait(_LOOK_S):
            with contextlib.suppress(OSError, ValueError):  # a daemon is being started again
                use.look()

    own, machine, began = cpu_seconds([os.getpid()]), machine_seconds(), time.perf_counter()
    before = {name: cpu_seconds(pids) for name, pids in roles().items()}
    watcher = threading.Thread(target=look_again)
    watcher.start()
    try:
        yield use
    finally:
        done.set()
        watcher.join()
    use.cpu_s = {name: cpu_seconds(pids) - before.get(name, 0.0) for name, pids in roles().items()}
    use.cpu_s["client"] = cpu_seconds([os.getpid()]) - own
    others = machine_seconds() - machine - sum(use.cpu_s.values())
    use.foreign = max(0.0, others / (time.perf_counter() - began))
    use.look()
