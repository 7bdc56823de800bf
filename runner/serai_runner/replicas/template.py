"""A box that has loaded a version's code, and the replicas that were forked from it."""

import asyncio
import collections
import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from serai.box.cgroups import Cgroup, Cgroups
from serai.ipc.frames import FrameError, FrameProtocol, pack_frame
from serai.ipc.messages import Ended, Fork, Forked, ForkPoint, Ready, encode
from serai_runner.outgoing.relay import ApiRelay
from serai_runner.replicas.boot import Boot, send_job
from serai_runner.sandbox.base import Box, BoxEvents, Job, Limits, RunningBox, Source
from serai_runner.sandbox.process_box import ending_of, offer_to_oom_killer, remove_group
from serai_runner.scheduling.calls import Ending

_decode = msgspec.msgpack.Decoder(Ready | Forked | Ended).decode
_TAIL_BYTES = 4096
#: A fork's status comes right after its end; a template whose code does not send it is not waited for longer.
_STATUS_GRACE_S = 0.5
#: Between the end of its socket and the end of the process lie milliseconds.
_EXIT_GRACE_S = 0.5
#: What was printed while loading (1 MiB), and what is around it.
_MAX_RECEIVED_BYTES = (1 << 20) + (256 << 10)
#: A template whose replica is not wanted any more has this long to say which process that is.
_FORK_GRACE_S = 1.0
#: Descriptors that came and belong to no message: one whose frame is not whole yet, and then some.
_MAX_LOOSE_FDS = 16
#: Messages that answer nothing, beside one for each fork: its status may come late.
_MAX_STRAYS = 100


#: (version, what its code printed while it was loaded)
Say = Callable[[str, bytes], Any]


class ForkEvents(BoxEvents, Protocol):
    def on_adopted(
        self, sock: socket.socket, received: bytes, output: int, lifeline: socket.socket, door: socket.socket | None
    ) -> None:
        """The template is this replica itself: loading failed, or forking would not be safe."""
        ...


class Template:
    """`start` makes replicas, as a sandbox does; they wait while the code loads.

    Args:
        on_news: called when its forks become more or fewer, when it is loaded, and when it is gone.
    """

    def __init__(
        self,
        sandbox: Source,
        cgroups: Cgroups,
        box: Box,
        on_news: Callable[["Template"], Any],
        say: Say,
    ) -> None:
        self.key = box.spec.key
        self.models = box.models
        self.is_gone = False
        self.is_adopted = False  # it is a replica now
        self.advice: ForkPoint = box.fork_after
        self.idle_since = monotonic()
        self._sandbox = sandbox
        self._cgroups = cgroups
        self._on_news = on_news
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._is_ready = False
        self._relay = ApiRelay(Path(os.devnull), lambda: None)
        self._sock: socket.socket | None = None
        self._reader = _Reader(self)
        self._boot: Boot | None = None
        self._lifeline: socket.socket | None = None
        self._adopter: ForkEvents | None = None
        self._waiting: list[_Forked] = []
        self._forks: dict[int, _Forked] = {}
        self._strays_left = _MAX_STRAYS
        self._output = os.memfd_create("serai-output")
        fcntl.fcntl(self._output, fcntl.F_SETFL, os.O_APPEND)
        self._job = sandbox.job(box).encode()
        try:
            self._box: RunningBox = sandbox.start(box, self._output, self)
        except BaseException:
            os.close(self._output)
            raise

    # As a source of boxes

    def start(self, box: Box, output: int, events: ForkEvents) -> RunningBox:
        fork = _Forked(self, box, events)
        if self._is_ready:
            self._ask(fork)
        else:
            self._waiting.append(fork)
        return fork

    def job(self, box: Box) -> Job:
        return self._sandbox.job(box)

    @property
    def is_idle(self) -> bool:
        return not self._forks and not self._waiting and self._adopter is None

    def kill(self) -> None:
        self._box.kill()

    # Its box

    def on_connected(self, sock: socket.socket) -> None:
        self._boot = Boot(sock, self.on_booted)

    def on_ended(self, ending: Ending) -> None:
        self.is_gone = True
        if self._boot is not None:
            self._boot.cancel()
        self._close_link()
        self._relay.close()
        adopter, self._adopter = self._adopter, None
        ending = dataclasses.replace(ending, output=self._tail(), has_begun=self._lifeline is not None)
        for fork in [*self._waiting, *self._forks.values()]:
            fork.template_ended(ending)
        self._waiting.clear()
        if adopter is not None:
            adopter.on_ended(ending)
        elif self._output >= 0:
            os.close(self._output)
        if self._lifeline is not None:
            self._lifeline.close()
        self._on_news(self)

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        self._boot = None
        if door is not None:
            self._relay.serve(door)  # no call runs while code is loaded, and whoever asks for something is told so
        try:
            self._lifeline = send_job(sock, self._job, self._output)
        except OSError:
            sock.close()
            return
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._read)

    # What it sends

    def _read(self) -> None:
        assert self._sock is not None, "read while it is open"
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 64 * 1024, 16)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._reader.fds.extend(fds)
        if not data:
            self._close_link()
            self._loop.call_later(_EXIT_GRACE_S, self.kill)  # it is ending, and is let to, so that we learn how
            return
        if len(self._reader.received) > _MAX_RECEIVED_BYTES:
            self.violated()
            return
        if not self._is_ready:
            self._reader.received += data
        self._reader.data_received(data)
        if len(self._reader.fds) > _MAX_LOOSE_FDS:
            self.violated()

    def told(self, message: Ready | Forked | Ended, fds: "collections.deque[int]") -> None:
        if self._sock is None:
            return  # it broke the rules, or is no template any more
        if type(message) is Ready and not self._is_ready:
            self._loaded(message)
            return
        fork = None if isinstance(message, Ready) else self._forks.get(message.number)
        if type(message) is Forked:
            pidfd = fds.popleft() if fds and not message.error else -1
            if fork is not None and not fork.has_begun:
                fork.begun(pidfd, message.error)
                return
            if pidfd >= 0:
                os.close(pidfd)
        elif type(message) is Ended and fork is not None and _is_status(message.status):
            fork.told_status(message.status)
            return
        self._strays_left -= 1
        if self._strays_left < 0:
            self.violated()

    def holds(self, pid: int) -> bool:
        """Whether a process is in its box and no other. What it calls its fork could be any process: our own, for
        instance, of which our socket gives it a descriptor."""
        own = self._box.pid
        return own is not None and _groups_of(own) == _groups_of(pid) != ""

    def violated(self) -> None:
        self._close_link()
        self.kill()

    def _loaded(self, message: Ready) -> None:
        self.advice = message.fork_after
        if message.is_template:
            # Each fork has a door of its own. This one stays: if its port became a fork's, code that remembers the
            # address would ask in the name of another fork's call.
            self._is_ready = True
            self._say(self.key, self._reader.printed)
            waiting, self._waiting = self._waiting, []
            for fork in waiting:
                self._ask(fork)
        else:
            self._be_adopted()
        self._on_news(self)

    def _be_adopted(self) -> None:
        """By the first that waits; the others get boxes of their own from their host's next try."""
        assert self._sock is not None and self._lifeline is not None, "it has spoken through it"
        self._loop.remove_reader(self._sock.fileno())
        sock, self._sock = self._sock, None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            sock.close()
            self.kill()
            return
        first, *rest = waiting
        self._adopter, self.is_adopted = first.events, True
        first.adopted_by(self._box)
        lifeline, self._lifeline = self._lifeline, None
        output, self._output = self._output, -1
        self._adopter.on_adopted(sock, bytes(self._reader.received), output, lifeline, self._relay.release())
        for fork in rest:
            fork.template_ended(Ending("its template became a replica", is_platform=True))

    # Its forks

    def _ask(self, fork: "_Forked") -> None:
        assert self._sock is not None, "ready means connected"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        fork.sock = ours
        self._forks[fork.number] = fork
        self._strays_left += 1
        with theirs:
            try:
                socket.send_fds(self._sock, [pack_frame(encode(Fork(fork.number)))], [theirs.fileno()])
            except OSError as error:
                self._loop.call_soon(fork.begun, -1, f"the template does not take it: {error.strerror}")

    def new_group(self, box: Box) -> Cgroup | None:
        limits = box.limits
        return self._cgroups.create(box.number, limits.memory_bytes, limits.pids, limits.cpus)

    def drop(self, fork: "_Forked") -> None:
        """It has ended, or never began."""
        if fork in self._waiting:
            self._waiting.remove(fork)
            if not self._waiting and not self._is_ready:
                self.kill()  # nobody waits for it any more: it took too long
        self._forks.pop(fork.number, None)
        if self.is_idle:
            self.idle_since = monotonic()
        self._on_news(self)

    def _close_link(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        while self._reader.fds:
            os.close(self._reader.fds.popleft())

    def _tail(self) -> str:
        try:
            size = os.fstat(self._output).st_size
            return os.pread(self._output, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")
        except OSError:
            return ""


class _Reader(FrameProtocol):
    """Splits what a template sends; descriptors come beside the bytes, in order."""

    def __init__(self, template: Template) -> None:
        super().__init__(_MAX_RECEIVED_BYTES)
        self.printed = b""  # while the code was loaded
        self.received = bytearray()  # all of it, until it is known what becomes of the box
        self.fds: collections.deque[int] = collections.deque()
        self._template = template

    def frame_received(self, header: bytes, payload: bytes) -> None:
        try:
            message = _decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._template.violated()
            return
        if type(message) is Ready:
            self.printed = payload
        self._template.told(message, self.fds)

    def frame_error(self, error: FrameError) -> None:
        self._template.violated()


class _Forked:
    """A replica's process that a template makes, or has made."""

    def __init__(self, template: Template, box: Box, events: ForkEvents) -> None:
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


def _is_status(status: int) -> bool:
    """Of a process that has ended."""
    return 0 <= status <= 0xFFFF and (os.WIFEXITED(status) or os.WIFSIGNALED(status))


def _groups_of(pid: int) -> str:
    """The control groups of a process; empty: it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read()
    except OSError:
        return ""


def _pid_of(pidfd: int) -> int | None:
    """The process as we know it; None: it has ended, or is none of this machine's."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            found = re.search(r"^Pid:\s+([1-9][0-9]*)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
