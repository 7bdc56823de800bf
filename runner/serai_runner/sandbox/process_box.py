"""A box that is a process of ours with all its children: started, limited, watched and killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from serai.box import bubblewrap
from serai.box.cgroups import Cgroup
from serai_runner.sandbox.base import BoxEvents, Limits
from serai_runner.scheduling.calls import Ending

#: Killed members of a group are gone for good after this; then it can be removed.
_GROUP_RETRY_S = 0.05
_GROUP_RETRIES = 100


class ProcessBox:
    """`start` once; then `on_ended` comes once, when the process has ended and nothing of its group is left."""

    def __init__(self, events: BoxEvents, group: Cgroup | None) -> None:
        self._events = events
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def start(
        self,
        command: Callable[[int], list[str]],
        environment: Mapping[str, str],
        output: int,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Start `command(fd)`, where `fd` is the box's end of its socket. From the main thread, always: bwrap dies with
        the thread that started it. Raises OSError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            words = command(theirs.fileno())
            self._process = subprocess.Popen(
                self._group.wrap(words) if self._group else words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd="/",
                pass_fds=(theirs.fileno(), *descriptors),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            remove_group(self._group)
            raise
        finally:
            theirs.close()
        offer_to_oom_killer(self._process.pid)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        ours.setblocking(False)
        self._loop.call_soon(self._events.on_connected, ours)

    @property
    def pid(self) -> int | None:
        return bubblewrap.inner_pid(self._process.pid) if self._process is not None and self._pidfd >= 0 else None

    def limit(self, limits: Limits) -> None:
        if self._group is not None:
            self._group.limit(limits.memory_bytes, limits.pids, limits.cpus)

    def kill(self) -> None:
        if self._process is not None and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._group is not None:
                self._group.kill()

    def _exited(self) -> None:
        assert self._process is not None, "watched since it was started"
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        code = self._process.wait()
        out_of_memory = False
        if self._group is not None:
            out_of_memory = self._group.num_oom_kills() > 0
            self._group.kill()  # children that left the process group
        remove_group(self._group)
        self._events.on_ended(ending_of(code, out_of_memory))


def ending_of(code: int, had_oom_kill: bool) -> Ending:
    """How a process ended that returned `code`, as subprocess counts; bwrap reports a signal as 128 + number."""
    number = -code if code < 0 else code - 128 if code > 128 else 0
    how = f"exit code {code}"
    if 0 < number < signal.NSIG:
        with contextlib.suppress(ValueError):
            how = f"signal {number} ({signal.Signals(number).name})"
    return Ending(how, out_of_memory=number == signal.SIGKILL and had_oom_kill)


def remove_group(group: Cgroup | None, tries: int = _GROUP_RETRIES) -> None:
    """Now, or when its last member has gone."""
    if group is not None and not group.remove() and tries:
        asyncio.get_running_loop().call_later(_GROUP_RETRY_S, remove_group, group, tries - 1)


def offer_to_oom_killer(pid: int) -> None:
    """When the machine runs out of memory, a box goes before any daemon."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("800")
