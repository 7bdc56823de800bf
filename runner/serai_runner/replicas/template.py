"""A box that has loaded a version's code, and the replicas that were forked from it."""

import asyncio
import collections
import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from serai.box.cgroups import Cgroup, Cgroups
from serai.ipc.frames import FrameError, FrameProtocol, pack_frame
from serai.ipc.messages import Ended, Fork, Forked, ForkPoint, Ready, encode
from serai_runner.outgoing.relay import ApiRelay
from serai_runner.replicas.boot import Boot, send_job
from serai_runner.replicas.fork import Adopted, ForkedBox, ForkEvents
from serai_runner.replicas.output_file import OutputFile
from serai_runner.sandbox.base import Box, Job, RunningBox, Source
from serai_runner.scheduling.calls import Ending

_decode = msgspec.msgpack.Decoder(Ready | Forked | Ended).decode
#: Between the end of its socket and the end of the process lie milliseconds.
_EXIT_GRACE_S = 0.5
#: What was printed while loading (1 MiB), and what is around it.
_MAX_RECEIVED_BYTES = (1 << 20) + (256 << 10)
#: Descriptors that came and belong to no message: one whose frame is not whole yet, and then some.
_MAX_LOOSE_FDS = 16
#: Messages that answer nothing, beside one for each fork: its status may come late.
_MAX_STRAYS = 100


#: (version, what its code printed while it was loaded)
Say = Callable[[str, bytes], Any]


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
        self._key = box.key
        self.models = box.models
        self._secrets = box.secrets
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
        self._waiting: list[ForkedBox] = []
        self._forks: dict[int, ForkedBox] = {}
        self._strays_left = _MAX_STRAYS
        self._output: OutputFile | None = OutputFile()
        self._job = sandbox.job(box).encode()
        try:
            self._box: RunningBox = sandbox.start(box, self._output.fd, self)
        except BaseException:
            self._output.close()
            raise

    # As a source of boxes

    def start(self, box: Box, output: int, events: ForkEvents) -> RunningBox:
        fork = ForkedBox(self, box, events)
        if self._is_ready and self._sock is not None:
            self._ask(fork)
        else:  # it loads, or is ending: then it says so to all that wait
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
        tail = self._output.tail() if self._output is not None else ""
        ending = dataclasses.replace(ending, output=tail, has_begun=self._lifeline is not None)
        for fork in [*self._waiting, *self._forks.values()]:
            fork.template_ended(ending)
        self._waiting.clear()
        if adopter is not None:
            adopter.on_ended(ending)
        elif self._output is not None:
            self._output.close()
        if self._lifeline is not None:
            self._lifeline.close()
        self._on_news(self)

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        self._boot = None
        if door is not None:
            self._relay.serve(door)  # no call runs while code is loaded, and whoever asks for something is told so
        assert self._output is not None, "given away later, if at all"
        try:
            self._lifeline = send_job(sock, self._job, self._output.fd)
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
            self._say(self.key, self._secrets.hide_bytes(self._reader.printed))
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
        output, self._output = self._output, None
        assert output is not None, "given away once"
        adopted = Adopted(sock, bytes(self._reader.received), output, lifeline, self._relay.release(), self._key)
        self._adopter.on_adopted(adopted)
        for fork in rest:
            fork.template_ended(Ending("its template became a replica", is_platform=True))

    # Its forks

    def _ask(self, fork: ForkedBox) -> None:
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

    def drop(self, fork: ForkedBox) -> None:
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
