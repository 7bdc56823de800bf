"""A runner host that speaks frames and runs a coroutine of the test for each call."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from serai.ipc.messages import (
    WINDOW,
    WINDOW_BYTES,
    Call,
    Cancel,
    ContentType,
    Define,
    Failure,
    Item,
    Message,
    More,
    Progress,
    Refusal,
    Result,
    Stats,
    Waiting,
    decode,
    encode,
)
from serai.ipc.secrets import Secrets
from serai_gateway.api.testing.daemon import FakeDaemon, FakeLink


class HostedCall:
    """One call as the host has it. What it sends keeps to the window, as a replica does, unless told otherwise."""

    def __init__(self, link: "_HostLink", call: Call, payload: bytes) -> None:
        self.call = call
        self.payload = payload
        self.cancelled = threading.Event()
        self.num_sent = 0
        self._link = link
        self._on_their_way: deque[int] = deque()
        self._changed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        num = len(self._on_their_way)
        return num == 0 or (num < WINDOW and sum(self._on_their_way) < WINDOW_BYTES)

    async def item(self, payload: bytes, content_type: ContentType = "json", *, heed_window: bool = True) -> None:
        while heed_window and not self.has_room:
            self._changed.clear()
            await self._changed.wait()
        self._on_their_way.append(len(payload))
        self.num_sent += 1
        self._send(Item(self.call.id, content_type), payload)

    def progress(self, fraction: float, text: str = "") -> None:
        self._send(Progress(self.call.id, fraction, text))

    def waiting(self, position: int, estimate_s: float = 0.0) -> None:
        self._send(Waiting(self.call.id, "queued", position, estimate_s))

    def result(self, payload: bytes = b"", content_type: ContentType = "void", stdout: bytes = b"") -> None:
        self._send(Result(self.call.id, content_type, 0.25, len(stdout)), payload + stdout)

    def fail(self, message: str, error_type: str = "AlgorithmError", stacktrace: str = "") -> None:
        self._send(Failure(self.call.id, error_type, message, stacktrace))

    def refuse(self, refusal: Refusal) -> None:
        self._send(refusal)

    async def never(self) -> None:
        """What a call does that hangs."""
        await asyncio.get_running_loop().create_future()

    def die(self) -> None:
        """The host ends with all of its connections."""
        self._link.close()

    def more(self, num_items: int) -> None:
        for _ in range(num_items):
            self._on_their_way.popleft()
        self._changed.set()

    def _send(self, message: Message, payload: bytes = b"") -> None:
        self._link.send_frame(encode(message), payload)


Script = Callable[[HostedCall], Awaitable[None]]


class FakeHost(FakeDaemon["_HostLink"]):
    """A runner host. `script` is run for each call, until the call is cancelled.

    `calls` holds every call, `secrets` all that was told with a version, in order.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "runner.sock")
        self.script: Script = _answer_null
        self.calls: list[HostedCall] = []
        self.secrets: list[tuple[str, Secrets]] = []

    def make_link(self) -> "_HostLink":
        return _HostLink(self)


async def _answer_null(call: HostedCall) -> None:
    call.result()


class _HostLink(FakeLink):
    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self._host = host
        self._calls: dict[int, tuple[HostedCall, asyncio.Task[None]]] = {}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for _, running in self._calls.values():
            running.cancel()

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Call):
            call = HostedCall(self, message, payload)
            self._host.calls.append(call)
            self._calls[message.id] = call, asyncio.ensure_future(self._host.script(call))
        elif isinstance(message, More):
            self._calls[message.id][0].more(message.num_items)
        elif isinstance(message, Cancel):
            call, running = self._calls[message.id]
            running.cancel()
            call.cancelled.set()
        elif isinstance(message, Stats):
            self.send_frame(encode(Stats(message.id)))
        else:
            assert isinstance(message, Define), f"a host is not sent {message}"
            self._host.secrets.append((message.spec.key, Secrets.decode(payload)))
