"""Control groups for commands that are started from several threads and live for a moment: a step of a build, git."""

import atexit
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

from serai.box.cgroup import Cgroup
from serai.box.cgroups import Cgroups

#: Time for what was killed to die, and between looks whether it has: nothing tells when the last member is gone.
_REMOVE_S, _LOOK_S = 2.0, 0.005


class CommandGroups:
    """Makes a group for one command at a time, and sees to it that nothing of the command outlives it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._cgroups: Cgroups | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # groups are made and removed in one list

    def detected(self) -> Cgroups:
        """What this machine lets us use, looked up at the first use."""
        with self._lock:
            if self._cgroups is None:
                self._cgroups = Cgroups.detect(self._prefix)
                atexit.register(self._cgroups.close)
            return self._cgroups

    @contextlib.contextmanager
    def group(self, memory_bytes: int, max_pids: int) -> Iterator[Cgroup | None]:
        """A group for one command; at the end its members are killed. None where the kernel lets us have none."""
        cgroups = self.detected()
        with self._lock:
            group = cgroups.create(next(self._numbers), memory_bytes, max_pids, None)
        try:
            yield group
        finally:
            if group is not None:
                self._end(group)

    def _end(self, group: Cgroup) -> None:
        group.kill()
        until = time.monotonic() + _REMOVE_S
        while True:
            with self._lock:
                if group.remove() or time.monotonic() > until:
                    return
            time.sleep(_LOOK_S)
