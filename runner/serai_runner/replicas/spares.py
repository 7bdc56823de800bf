"""Boxes that stand before anybody knows what for: a version that is called for the first time need not wait for one.

Where the kernel lets us show a version's folders in a box that stands already, some are kept. Each serves one version,
once. Everything else gets a box made for it.
"""

import asyncio
import contextlib
import itertools
import socket
from collections import deque

import structlog

from serai_runner.replicas.boot import Boot
from serai_runner.replicas.output_file import OutputFile
from serai_runner.sandbox.base import (
    NO_VERSION,
    Box,
    BoxEvents,
    Job,
    Limits,
    RunningBox,
    Sandbox,
    SandboxUnavailable,
)
from serai_runner.sandbox.mounts import Mounts
from serai_runner.scheduling.calls import Ending
from serai_runner.settings import Settings

#: Spares are numbered from here on, far from replicas and templates.
_FIRST_NUMBER = 1 << 41
#: While a spare stands idle it needs this much and no more.
_MEMORY_BYTES = 256 << 20
#: After one that could not be made, before the next is tried.
_RETRY_S = 5.0


class Spares:
    """A source of boxes: from the reserve if one fits, else from the sandbox."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(_FIRST_NUMBER)
        self._ready: deque[_Spare] = deque()
        self._coming: set[_Spare] = set()
        self._mounts: Mounts | None = None
        self._is_closed = False
        self.num_used = 0

    def __len__(self) -> int:
        """How many stand."""
        return len(self._ready)

    def begin(self) -> None:
        """Start to keep spares, where that works; says why not where it does not."""
        if not self._settings.spares or not self._sandbox.is_isolating:
            return
        mounts = Mounts()
        problem = mounts.problem()
        if problem:
            mounts.close()
            structlog.get_logger().info("no boxes are kept in reserve", action="no_spares", why=problem)
            return
        self._mounts = mounts
        self._fill()

    def close(self) -> None:
        self._is_closed = True
        for spare in [*self._ready, *self._coming]:
            spare.kill()
        if self._mounts is not None:
            self._mounts.close()

    def start(self, box: Box, output: int, events: BoxEvents) -> RunningBox:
        if not self._fits(box) or not self._ready:
            return self._sandbox.start(box, output, events)
        assert self._mounts is not None, "there is a spare"
        spare = self._ready.popleft()
        self.num_used += 1
        spare.adopt(box, events, self._mounts)
        self._loop.call_later(0.0, self._fill)
        return spare

    def job(self, box: Box) -> Job:
        return self._sandbox.job(box)

    def _fits(self, box: Box) -> bool:
        spec = box.spec
        return not spec.network and spec.python in ("", self._sandbox.default_python)

    def _fill(self) -> None:
        if self._is_closed or self._mounts is None:
            return
        while len(self._ready) + len(self._coming) < self._settings.spares:
            settings = self._settings
            rlimits = {"core": 0, "nofile": 1024}
            limits = Limits(_MEMORY_BYTES, settings.max_pids, 1.0, settings.tmp_bytes, rlimits)
            spare = _Spare(self, Box(next(self._numbers), NO_VERSION, limits))
            try:
                spare.begin(self._sandbox)
            except (OSError, SandboxUnavailable):
                self._loop.call_later(_RETRY_S, self._fill)
                return
            self._coming.add(spare)

    def stands(self, spare: "_Spare") -> None:
        self._coming.discard(spare)
        self._ready.append(spare)

    def lost(self, spare: "_Spare") -> None:
        """It ended without having been used."""
        self._coming.discard(spare)
        with contextlib.suppress(ValueError):
            self._ready.remove(spare)
        if not self._is_closed:
            self._loop.call_later(_RETRY_S, self._fill)


class _Spare:
    """A box without a version; from `adopt` on, the box of a replica or a template."""

    def __init__(self, owner: Spares, box: Box) -> None:
        self._owner = owner
        self._box = box
        self._loop = asyncio.get_running_loop()
        self._running: RunningBox | None = None
        self._boot: Boot | None = None
        self._sock: socket.socket | None = None
        self._door: socket.socket | None = None
        self._events: BoxEvents | None = None
        self._output = OutputFile()

    def begin(self, sandbox: Sandbox) -> None:
        """Raises OSError, SandboxUnavailable."""
        try:
            self._running = sandbox.start(self._box, self._output.fd, self)
        except BaseException:
            self._output.close()
            raise

    def adopt(self, box: Box, events: BoxEvents, mounts: Mounts) -> None:
        """Show it the version's folders, give it the version's limits, and hand it over."""
        self._events = events
        pid = self.pid

        async def attach() -> None:
            try:
                if pid is None:
                    raise OSError(0, "it is gone")
                self.limit(box.limits)
                await asyncio.wrap_future(mounts.attach(pid, box.folders))
            except OSError as error:
                self._failed(error)
            else:
                self._hand_over()

        self._attaching = self._loop.create_task(attach())

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running is not None else None

    def limit(self, limits: Limits) -> None:
        if self._running is not None:
            self._running.limit(limits)

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    # Its box

    def on_connected(self, sock: socket.socket) -> None:
        self._boot = Boot(sock, self.on_booted)

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        self._boot = None
        self._sock, self._door = sock, door
        self._owner.stands(self)

    def on_ended(self, ending: Ending) -> None:
        if self._boot is not None:
            self._boot.cancel()
        for sock in (self._sock, self._door):
            if sock is not None:
                sock.close()
        self._sock = None
        self._output.close()
        if self._events is None:
            self._owner.lost(self)
        else:
            self._events.on_ended(ending)

    def _hand_over(self) -> None:
        sock, self._sock, door, self._door = self._sock, None, self._door, None
        if sock is not None and self._events is not None:  # else: it has ended meanwhile, and that was told
            self._events.on_booted(sock, door)

    def _failed(self, error: OSError) -> None:
        structlog.get_logger().warning("a spare box is of no use", action="spare_failed", error=str(error))
        self.kill()
