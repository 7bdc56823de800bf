"""A replica that a template makes: asked for, begun, watched by its descriptor, ended."""

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import socket
from typing import Protocol

from serai.box.cgroups import Cgroup
from serai.ipc.messages import ForkPoint
from serai_runner.replicas.output_file import OutputFile
from serai_runner.sandbox.base import Box, BoxEvents, Limits, RunningBox
from serai_runner.sandbox.process_box import ending_of, offer_to_oom_killer, remove_group
from serai_runner.scheduling.calls import Ending

#: A fork's status comes right after its end; a template whose code does not send it is not waited for longer.
_STATUS_GRACE_S = 0.5
#: A template whose replica is not wanted any more has this long to say which process that is.
_FORK_GRACE_S = 1.0


@dataclasses.dataclass(frozen=True)
class Adopted:
    """A template that became a replica itself: what whoever takes it over has to know."""

    sock: socket.socket
    received: bytes  # through it, with Ready
    output: OutputFile
    lifeline: socket.socket
    door: socket.socket | None
    key: str  # what its code's HTTP bears


class ForkEvents(BoxEvents, Protocol):
    def on_adopted(self, adopted: Adopted) -> None:
        """Loading failed, or forking would not be safe."""
        ...


class Maker(Protocol):
    """A template, as its forks see it."""

    advice: ForkPoint
    is_gone: bool

    def holds(self, pid: int) -> bool: ...
    def new_group(self, box: Box) -> Cgroup | None: ...
    def drop(self, fork: "ForkedBox") -> None: ...
    def violated(self) -> None: ...


class ForkedBox:
    """A replica's process that a template makes, or has made. A `RunningBox`."""

    def __init__(self, template: "Maker", box: Box, events: ForkEvents) -> None:
        self.number = box.number
        self.events = events
        self.sock: socket.socket | None = None
        self._template = template
        self._box = box
        self._loop = asyncio.get_running_loop()
        self._adopted: RunningBox | None = None
        self._is_doomed = False
        self._is_over = False
        self._pidfd = -1
        self._group: Cgroup | None = None
        self._status: int | None = None
        self._is_gone = False

    @property
    def pid(self) -> int | None:
        return _pid_of(self._pidfd) if self._pidfd >= 0 else None

    @property
    def has_begun(self) -> bool:
        return self._pidfd >= 0

    def limit(self, limits: Limits) -> None:
        pass  # it gets them when it is made

    def kill(self) -> None:
        self._is_doomed = True
        if self._adopted is not None:
            self._adopted.kill()
        elif self._pidfd >= 0:
            self._kill()
        elif self.sock is None and not self._is_over:
            self._loop.call_soon(self._finish, Ending("not needed any more"))
        elif not self._is_over:  # it is being forked, and is killed when it is there
            self._loop.call_later(_FORK_GRACE_S, self._give_up)

    def adopted_by(self, box: RunningBox) -> None:
        self._adopted = box

    def begun(self, pidfd: int, error: str) -> None:
        sock = self.sock
        assert sock is not None, "it was asked for"
        if pidfd < 0:
            sock.close()
            self._template.advice = ""  # it cannot fork: the next replica gets a box of its own
            self._finish(Ending(error or "the template did not say which process it made", is_platform=True))
            return
        pid = _pid_of(pidfd)
        if pid is None or not self._template.holds(pid):
            os.close(pidfd)
            sock.close()
            self._finish(Ending("ended at once, or is no process of its template", has_begun=True))
            return
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._exited)
        try:
            self._group = self._template.new_group(self._box)
            if self._group is None:
                raise OSError(0, "forks need control groups")
            self._group.add(pid)
            offer_to_oom_killer(pid)
        except OSError:
            self._is_doomed = True
        if self._is_doomed:
            sock.close()
            self._kill()
        else:
            self.events.on_connected(sock)

    def told_status(self, status: int) -> None:
        self._status = status
        if self._is_gone:
            self._settle()

    def template_ended(self, ending: Ending) -> None:
        if self._pidfd < 0 and self._adopted is None:
            if self.sock is not None:
                self.sock.close()
            self._finish(ending)
        elif self._is_gone:
            self._settle()

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._is_gone = True
        if self._group is not None:
            self._group.kill()
        if self._status is None and not self._template.is_gone:
            self._loop.call_later(_STATUS_GRACE_S, self._settle)
        else:
            self._settle()

    def _settle(self) -> None:
        if self._is_over:
            return
        had_oom_kill = self._group is not None and self._group.num_oom_kills() > 0
        code = os.waitstatus_to_exitcode(self._status) if self._status is not None else -signal.SIGKILL
        remove_group(self._group)
        os.close(self._pidfd)
        self._pidfd = -1
        self._finish(dataclasses.replace(ending_of(code, had_oom_kill), has_begun=True))

    def _give_up(self) -> None:
        if self._pidfd < 0 and not self._is_over:
            self._template.violated()

    def _finish(self, ending: Ending) -> None:
        if self._is_over or self._adopted is not None:
            return
        self._is_over = True
        self._template.drop(self)
        self.events.on_ended(ending)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._group is not None:
            self._group.kill()


def _pid_of(pidfd: int) -> int | None:
    """The process as we know it; None: it has ended, or is none of this machine's."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            found = re.search(r"^Pid:\s+([1-9][0-9]*)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
