"""A live replica: its box, its socket, and the file its output goes to."""

import asyncio
import dataclasses
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import msgspec

from serai.ipc.frames import FrameError, FrameProtocol
from serai.ipc.messages import Call, Cancel, Failure, Item, More, Progress, Ready, Result
from serai_runner.replicas.boot import Boot, send_job
from serai_runner.replicas.fork import Adopted
from serai_runner.replicas.output_file import OutputFile
from serai_runner.sandbox.base import Box, RunningBox, Source
from serai_runner.scheduling.calls import Ending, PendingCall, ReplicaState

#: Result, output and header of the largest reply.
MAX_REPLY_BYTES = (10 << 20) + (1 << 20) + (256 << 10)
#: We write the header anew with the caller's id, which may be longer than ours; the format ends at 65,535.
_MAX_HEADER_BYTES = 65_000
#: Our part of a box cuts the words of a report at 1,000 bytes.
_MAX_PROGRESS_BYTES = 1100
#: Above every deadline; what a reply claims beyond it is no number of seconds.
_MAX_DURATION_S = 1e7
#: Of what a call prints while it runs, this much is looked at at once.
_MAX_LOOK_BYTES = 64 * 1024
#: After the process has ended, its last replies arrive at once; a stray child may hold the socket open for ever.
_EOF_GRACE_S = 1.0
#: Between the end of its socket and the end of the process lie milliseconds.
_EXIT_GRACE_S = 0.5

Reply = Result | Failure
_decode = msgspec.msgpack.Decoder(Ready | Result | Failure | Item | Progress).decode
_encode = msgspec.msgpack.Encoder().encode


class ReplicaEvents(Protocol):
    def on_door(self, replica: ReplicaState, door: socket.socket) -> None:
        """Its code can connect to `door`, and whoever is told accepts."""
        ...

    def on_ready(self, replica: ReplicaState, message: Ready, printed: bytes, now: float) -> None: ...
    def on_reply(self, replica: ReplicaState, message: Reply, payload: bytes, now: float) -> None: ...
    def on_item(self, replica: ReplicaState, message: Item | Progress, payload: bytes, now: float) -> None: ...
    def on_violation(self, replica: ReplicaState) -> None: ...
    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None: ...


class Replica(FrameProtocol):
    """Everything about one box that answers calls. Reports `on_exit` once, after the box has ended and all it sent was
    read."""

    def __init__(self, state: ReplicaState, events: ReplicaEvents, on_gone: Callable[["Replica"], Any]) -> None:
        super().__init__(MAX_REPLY_BYTES)
        self.state = state
        self._events = events
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._box: RunningBox | None = None
        self._boot: Boot | None = None
        self._job = b""
        self.key = ""  # what its code's HTTP bears
        self._output = OutputFile()
        self.told_bytes = 0  # of what the call that runs has printed
        self._lifeline: socket.socket | None = None
        self._ending: Ending | None = None
        self._has_link = False
        self._is_booted = False
        self._is_broken = False
        self._is_reported = False

    def start(self, source: Source, box: Box) -> None:
        """Raises OSError, SandboxUnavailable."""
        self.key = box.key
        self._job = source.job(box).encode()
        try:
            self._box = source.start(box, self._output.fd, self)
        except BaseException:
            self._release()
            raise

    def new_output(self) -> bytes:
        """What was printed since the last time. The replica empties the file when a call ends."""
        printed = self._output.read(self.told_bytes, _MAX_LOOK_BYTES)
        whole = printed[: printed.rfind(b"\n") + 1] or (printed if len(printed) == _MAX_LOOK_BYTES else b"")
        self.told_bytes += len(whole)
        return whole

    def send_call(self, call: PendingCall) -> None:
        header = call.call
        message = Call(
            call.serial, "", header.content_type, header.deadline, header.call_id, "", header.wants_stdout,
            header.wants_items,
        )  # fmt: skip
        self.send_frame(_encode(message), call.payload)

    def send(self, message: Cancel | More) -> None:
        self.send_frame(_encode(message))

    def kill(self) -> None:
        if self._box is not None:
            self._box.kill()

    # Its box

    def on_connected(self, sock: socket.socket) -> None:
        self._boot = Boot(sock, self.on_booted)

    def on_adopted(self, adopted: Adopted) -> None:
        self._output.close()
        self._output, self._lifeline, self.key = adopted.output, adopted.lifeline, adopted.key
        self._is_booted = True
        if adopted.door is not None:
            self._events.on_door(self.state, adopted.door)
        self._connect(adopted.sock, adopted.received)

    def on_ended(self, ending: Ending) -> None:
        self._ending = ending
        if self._boot is not None:
            self._boot.cancel()
        if self._has_link:
            self._loop.call_later(_EOF_GRACE_S, self._cut)
        self._report()

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        self._boot = None
        self._is_booted = True
        if door is not None:
            self._events.on_door(self.state, door)
        try:
            self._lifeline = send_job(sock, self._job, self._output.fd)
        except OSError:
            sock.close()
            return
        self._connect(sock, b"")

    def _connect(self, sock: socket.socket, received: bytes) -> None:
        self._has_link = True

        async def connect() -> None:
            try:
                await self._loop.create_unix_connection(lambda: self, sock=sock)
            except OSError:
                sock.close()
                self._lose_link()
            else:
                if received:
                    self.data_received(received)

        self._connecting = self._loop.create_task(connect())

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
            self._events.on_ready(self.state, message, payload, monotonic())
        elif type(message) is Item or type(message) is Progress:
            if type(message) is Progress and (payload or len(header) > _MAX_PROGRESS_BYTES):
                self._violated()
            else:
                self._events.on_item(self.state, message, payload, monotonic())
        elif (
            not 0 <= message.stdout_bytes <= len(payload)
            or not 0.0 <= message.duration_s < _MAX_DURATION_S
            or len(header) > _MAX_HEADER_BYTES
        ):
            self._violated()
        else:
            self._events.on_reply(self.state, message, payload, monotonic())
            self.told_bytes = 0

    def frame_error(self, error: FrameError) -> None:
        self._violated()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lose_link()

    def _lose_link(self) -> None:
        self._has_link = False
        if self._ending is None:
            # It is ending, and is let to, so that we learn how. Or its code closed the socket, and it never will.
            self._loop.call_later(_EXIT_GRACE_S, self._kill_silent)
        self._report()

    def _violated(self) -> None:
        self._is_broken = True  # whatever it had sent after this counts no more
        if self.transport is not None:
            self.transport.abort()
        self._events.on_violation(self.state)

    # Its end

    def _kill_silent(self) -> None:
        if self._ending is None:
            self.kill()

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _report(self) -> None:
        if self._ending is None or self._has_link or self._is_reported:
            return
        self._is_reported = True
        ending = dataclasses.replace(self._ending, output=self._ending.output or self._output.tail(self.told_bytes))
        if not (self._is_booted or ending.has_begun or ending.is_platform):
            words = f"{ending.how}: {ending.output.strip()}" if ending.output else ending.how
            ending = dataclasses.replace(ending, how=f"the sandbox could not be started: {words}", is_platform=True)
        self._release()
        self._on_gone(self)
        self._events.on_exit(self.state, ending, monotonic())

    def _release(self) -> None:
        self._output.close()
        if self._lifeline is not None:
            self._lifeline.close()
