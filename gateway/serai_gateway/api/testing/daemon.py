"""What a test puts in the place of a daemon: a socket that frames arrive on, in a thread of its own."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from serai.ipc.frames import FrameProtocol
from serai.ipc.sockets import serve_unix
from serai_gateway.server.testing import PATIENCE_S

Result = TypeVar("Result")


class FakeLink(FrameProtocol):
    """One connection, which its daemon knows while it is open."""

    def __init__(self, daemon: "FakeDaemon[Any]") -> None:
        super().__init__()
        self._links = daemon.links

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._links.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._links.remove(self)


Link = TypeVar("Link", bound=FakeLink)


class FakeDaemon(ABC, Generic[Link]):
    """Serves `path` from `__enter__` to `__exit__`, which may come again."""

    def __init__(self, path: Path) -> None:
        self.links: list[Link] = []
        self._path = path
        self._ready = threading.Event()

    @abstractmethod
    def make_link(self) -> Link: ...

    def on_start(self) -> None:
        """In the loop, before anybody can connect."""

    def on_stop(self) -> None:
        """In the loop, when all connections have ended."""

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._ready.clear()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def do(self, action: Callable[[], Result]) -> Result:
        """Run it in the daemon's loop."""
        done: Future[Result] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(action()))
        return done.result(PATIENCE_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.on_start()
        server = await serve_unix(self._path, self.make_link)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for link in list(self.links):
            link.close()
        await server.wait_closed()
        self.on_stop()
