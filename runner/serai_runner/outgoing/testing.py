"""For tests of what leaves a box: a relay in a thread of its own, as the runner host has one for each box."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import uvloop

from serai.ipc.messages import Bound
from serai_runner.outgoing.relay import ApiRelay

T = TypeVar("T")


class RelayThread:
    """A relay and its loop. `bound` is the call that runs, for the next connection that comes."""

    def __init__(self, gateway: Path) -> None:
        self.bound: Bound | None = None
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._gateway = gateway
        self._started = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._run(),))

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut(self) -> None:
        """As the host does when a call has ended."""
        self.ask(self.relay.cut)

    def num_open(self) -> int:
        return self.ask(lambda: len(self.relay))

    def ask(self, question: Callable[[], T]) -> T:
        """Run in the relay's loop, which owns it."""

        async def run() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.relay = ApiRelay(self._gateway, lambda: self.bound)
        self.relay.serve(self._door)
        self._started.set()
        await self._stop.wait()
        self.relay.close()


@contextmanager
def running_relay(gateway: Path) -> Iterator[RelayThread]:
    """A relay that takes connections at a port of our own loopback and brings them to the gateway's socket."""
    relay = RelayThread(gateway)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
