"""A live replica: its process, its socket, its control group, and the file its output goes to."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from serai.ipc.frames import FrameError, FrameProtocol
from serai.ipc.messages import Call, Failure, Ready, Result
from serai_runner.calls import Ending, PendingCall, ReplicaState
from serai_runner.cgroups import Cgroup

#: Result, output and header of the largest reply.
MAX_REPLY_BYTES = (10 << 20) + (1 << 20) + (256 << 10)
#: We write the header anew with the caller's id, which may be longer than ours; the format ends at 65,535.
_MAX_HEADER_BYTES = 65_000
#: Above every deadline; what a reply claims beyond it is no number of seconds.
_MAX_DURATION_S = 1e7
#: What a crashed process printed last is logged, this much of it.
_TAIL_BYTES = 4096
#: After the process has ended, its last replies arrive at once; a stray child may hold the socket open for ever.
_EOF_GRACE_S = 1.0
#: Between the end of its socket and the end of the process lie milliseconds.
_EXIT_GRACE_S = 0.5
_GROUP_RETRY_S = 0.05
_GROUP_RETRIES = 100

_decode = msgspec.msgpack.Decoder(Ready | Result | Failure).decode
_encode = msgspec.msgpack.Encoder().encode


class ReplicaEvents(Protocol):
    def on_ready(self, replica: ReplicaState, message: Ready, now: float) -> None: ...
    def on_reply(self, replica: ReplicaState, message: Result | Failure, payload: bytes, now: float) -> None: ...
    def on_violation(self, replica: ReplicaState) -> None: ...
    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None: ...


class Replica(FrameProtocol):
    """Everything about one process. Reports `on_exit` once, after the process has ended and all it sent was read."""

    def __init__(self, state: ReplicaState, events: ReplicaEvents, on_gone: Callable[["Replica"], Any]) -> None:
        super().__init__(MAX_REPLY_BYTES)
        self.state = state
        self.pid = 0
        self._events = events
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._group: Cgroup | None = None
        self._pidfd = -1
        self._output = -1
        self._returncode: int | None = None
        self._is_broken = False
        self._is_cut = False  # nothing more will be read
        self._is_reported = False

    def start(self, command: Callable[[int], list[str]], environment: dict[str, str], group: Cgroup | None) -> None:
        """Start `command(fd)`, where `fd` is the replica's end of the socket. Raises OSError."""
        self._group = group
        self._output = os.memfd_create("serai-output")
        fcntl.fcntl(self._output, fcntl.F_SETFL, os.O_APPEND)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            words = command(theirs.fileno())
            # From the main thread, always: bwrap dies with the thread that started it.
            self._process = subprocess.Popen(
                group.wrap(words) if group else words,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self._release()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        _offer_to_oom_killer(self.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        ours.setblocking(False)
        self._connecting = self._loop.create_task(self._connect(ours))

    def send_call(self, call: PendingCall) -> None:
        header = call.call
        message = Call(call.serial, "", header.content_type, header.deadline, "", "", header.wants_stdout)
        self.send_frame(_encode(message), call.payload)

    def kill(self) -> None:
        if self._returncode is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    # What it sends

    def frame_received(self, header: bytes, payload: bytes) -> None:
        if self._is_broken:
            return
        try:
            message = _decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._violated()
            return
        if type(message) is Ready:
            self._events.on_ready(self.state, message, monotonic())
        elif (
            not 0 <= message.stdout_bytes <= len(payload)
            or not 0.0 <= message.duration_s < _MAX_DURATION_S
            or len(header) > _MAX_HEADER_BYTES
        ):
            self._violated()
        else:
            self._events.on_reply(self.state, message, payload, monotonic())

    def frame_error(self, error: FrameError) -> None:
        self._violated()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_cut = True
        if self._returncode is None:
            # It is ending, and is let to, so that we learn how. Or its code closed the socket, and it never will.
            self._loop.call_later(_EXIT_GRACE_S, self.kill)
        self._report()

    def _violated(self) -> None:
        self._is_broken = True  # whatever it had sent after this counts no more
        if self.transport is not None:
            self.transport.abort()
        self._events.on_violation(self.state)

    # Its end

    async def _connect(self, ours: socket.socket) -> None:
        try:
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError:
            ours.close()
            self._is_cut = True
            self.kill()
            self._report()

    def _exited(self) -> None:
        assert self._process is not None
        self._returncode = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        if self._group is not None:
            self._group.kill()  # children that left the process group
        if not self._is_cut:
            self._loop.call_later(_EOF_GRACE_S, self._cut)
        self._report()

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _report(self) -> None:
        if self._returncode is None or not self._is_cut or self._is_reported:
            return
        self._is_reported = True
        ending = self._ending()
        self._release()
        self._on_gone(self)
        self._events.on_exit(self.state, ending, monotonic())

    def _ending(self) -> Ending:
        code = self._returncode or 0
        number = -code if code < 0 else code - 128 if code > 128 else 0  # bwrap reports a signal as 128 + number
        how = f"exit code {code}"
        if 0 < number < signal.NSIG:
            with contextlib.suppress(ValueError):
                how = f"signal {number} ({signal.Signals(number).name})"
        output = self._tail()
        is_platform = code != 0 and self.state.num_replies == 0 and output.startswith(("bwrap: ", "sh: "))
        if is_platform:
            how = f"the sandbox could not be started: {output.strip()}"
        killed = number == signal.SIGKILL
        out_of_memory = killed and self._group is not None and self._group.num_oom_kills() > 0
        return Ending(how, out_of_memory, output, is_platform)

    def _tail(self) -> str:
        try:
            size = os.fstat(self._output).st_size
            return os.pread(self._output, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")
        except OSError:
            return ""

    def _release(self) -> None:
        for fd in (self._pidfd, self._output):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._output = -1
        if self._group is not None:
            self._remove_group(_GROUP_RETRIES)

    def _remove_group(self, tries: int) -> None:
        assert self._group is not None
        if not self._group.remove() and tries:
            self._loop.call_later(_GROUP_RETRY_S, self._remove_group, tries - 1)


def _offer_to_oom_killer(pid: int) -> None:
    """When the machine runs out of memory, a replica goes before any daemon."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("800")
