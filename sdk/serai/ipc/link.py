"""A connection to a daemon that comes back by itself when the daemon does."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from serai.ipc.frames import Buffer, FrameProtocol
from serai.ipc.sockets import is_own_peer

#: Pauses between attempts to connect: a killed daemon is back within a second, so the first ones are short.
_RETRY_PAUSES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)

FrameHandler = Callable[[bytes, bytes], None]


class _LinkProtocol(FrameProtocol):
    def __init__(self, on_frame: FrameHandler) -> None:
        super().__init__()
        self.frame_received = on_frame  # pyright: ignore[reportAttributeAccessIssue]  # saves a call a frame
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not is_own_peer(transport):  # somebody else's socket at our path
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)


class Link:
    """Keeps one connection to the Unix socket at `path`.

    Args:
        on_frame: called for each frame, in order, with header and payload.
        on_open: called after each connect, before any other frame is sent.
        on_lost: called after each disconnect: what was sent may or may not have arrived.
    """

    def __init__(
        self, path: Path, on_frame: FrameHandler, on_open: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        self._path = path
        self._on_frame = on_frame
        self._on_open = on_open
        self._on_lost = on_lost
        self._protocol: _LinkProtocol | None = None
        self._opened = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._protocol is not None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_open())

    def send(self, header: bytes, payload: Buffer = b"") -> bool:
        """Send one frame; False when there is no connection (nothing was sent)."""
        protocol = self._protocol
        if protocol is None:
            return False
        protocol.send_frame(header, payload)
        return True

    async def wait_open(self, timeout_s: float) -> bool:
        """Whether the link is open now or becomes so within `timeout_s`."""
        if self._protocol is None and timeout_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._opened.wait()
        return self._protocol is not None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_open(self) -> None:
        attempt = 0
        while True:
            protocol = await self._connect()
            if protocol is None:
                await asyncio.sleep(_RETRY_PAUSES_S[min(attempt, len(_RETRY_PAUSES_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._protocol = protocol
            self._on_open()
            self._opened.set()
            try:
                await protocol.lost
            finally:
                self._protocol = None
                self._opened.clear()
                protocol.close()
                self._on_lost()

    async def _connect(self) -> _LinkProtocol | None:
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_unix_connection(lambda: _LinkProtocol(self._on_frame), str(self._path))
        except OSError:
            return None
        return protocol if protocol.transport is not None and not protocol.transport.is_closing() else None
