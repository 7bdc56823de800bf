"""One container from its start to its end."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from serai_runner.sandbox.base import Box, BoxEvents, Limits
from serai_runner.sandbox.docker.cgroup import group_of
from serai_runner.sandbox.docker.door import Door
from serai_runner.sandbox.docker.engine import Engine, EngineError
from serai_runner.sandbox.egress.egress import EgressError
from serai_runner.sandbox.process_box import ending_of
from serai_runner.scheduling.calls import Ending

#: The engine tells of an end within 50 ms. When its main process has been gone for so long, we ask.
_LOOK_S = 2.0
#: A process that was sent SIGKILL is gone within milliseconds, unless the kernel is at fault.
_DEATH_S = 5.0


class Launcher(Protocol):
    """What a box asks of its sandbox."""

    engine: Engine

    def ask(self, do: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Run something that blocks in another thread."""
        ...

    def create(self, box: Box, folder: Path) -> str:
        """Blocking: a container that is not started yet. Its id."""
        ...

    def on_gone(self, number: int) -> None: ...


@dataclass(frozen=True)
class _Death:
    code: int
    lost: str = ""  # why the engine can say no more


class DockerBox:
    """`live()` is its whole life; the other methods are told what happens meanwhile. All of it on the event loop."""

    def __init__(self, launcher: Launcher, box: Box, door_folder: Path, events: BoxEvents) -> None:
        self._launcher = launcher
        self._box = box
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._death: asyncio.Future[_Death] = self._loop.create_future()
        self._door = Door(door_folder, self._connected)
        self._id = ""
        self._pidfd = -1
        self._is_connected = False
        self._is_running = False
        self._is_killed = False
        self._ran_out_of_memory = False
        self._task = self._loop.create_task(self._live())

    @property
    def life(self) -> asyncio.Task[None]:
        return self._task

    @property
    def pid(self) -> int | None:
        return _pid_of(self._pidfd) if self._pidfd >= 0 else None

    def limit(self, limits: Limits) -> None:
        """Raises OSError: only root may. The engine is not asked, because it takes 100 ms for it."""
        pid = self.pid
        if pid is None:
            raise OSError("the container is gone")
        group_of(pid).limit(limits.memory_bytes, limits.pids, limits.cpus)

    def kill(self) -> None:
        self._is_killed = True
        self._shoot()  # one that is being started is shot when it has been

    def on_out_of_memory(self) -> None:
        self._ran_out_of_memory = True

    def on_death(self, code: int, lost: str = "") -> None:
        if not self._death.done():
            self._death.set_result(_Death(code, lost))

    # Its life

    async def _live(self) -> None:
        try:
            ending = await self._run()
        except EngineError as error:
            ending = self._failure(f"the Docker engine failed: {error}")
        except Exception as error:  # whatever went wrong, a box has an end
            ending = self._failure(str(error) if isinstance(error, EgressError) else repr(error))
        self._door.close()
        self._events.on_ended(ending)
        self._close_pidfd()
        if self._id:
            with contextlib.suppress(EngineError):  # it is removed when the engine is back
                await self._ask(self._launcher.engine.remove, self._id)
        self._launcher.on_gone(self._box.number)

    async def _run(self) -> Ending:
        engine = self._launcher.engine
        self._id = await self._ask(self._launcher.create, self._box, self._door.folder)
        if self._is_killed:
            return Ending("killed before it was started")
        await self._ask(engine.start, self._id)
        self._is_running = True
        if self._is_killed:
            self._shoot()
        death = await self._death
        self._door.look()  # it may have connected and ended before we looked
        if death.lost:
            await self._finish_off()
            return self._failure(f"the Docker engine was lost: {death.lost}")
        return await self._ending(death.code)

    async def _ending(self, code: int) -> Ending:
        out_of_memory = False
        if code == 128 + signal.SIGKILL and not self._is_killed:
            out_of_memory = self._ran_out_of_memory or await self._asked_for_memory()
        ending = ending_of(code, out_of_memory)  # the first process of a container reports a signal as bwrap does
        if self._is_connected or self._is_killed or out_of_memory:
            return ending
        said = ""
        with contextlib.suppress(EngineError):
            said = await self._ask(self._launcher.engine.tail, self._id)
        return replace(ending, output=said, is_platform=True)

    async def _asked_for_memory(self) -> bool:
        with contextlib.suppress(EngineError):
            state = await self._ask(self._launcher.engine.ended, self._id)
            return state is not None and state[1]
        return False

    def _failure(self, why: str) -> Ending:
        if self._is_killed:
            return Ending("killed")
        return Ending(why, is_platform=True)

    async def _finish_off(self) -> None:
        """End it without the engine, as far as we may."""
        self._shoot()
        if self._pidfd >= 0:
            gone = asyncio.Event()
            self._loop.add_reader(self._pidfd, gone.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DEATH_S):
                    await gone.wait()

    def _ask(self, do: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return self._launcher.ask(do, *arguments)

    # Its process

    def _connected(self, sock: socket.socket, pidfd: int) -> None:
        self._is_connected = True
        self._pidfd = pidfd
        if pidfd >= 0:
            self._loop.add_reader(pidfd, self._process_gone)
        if self._is_killed:
            self._shoot()
        self._events.on_connected(sock)

    def _process_gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        if not self._death.done():
            self._looking = self._loop.create_task(self._look_at_engine())

    async def _look_at_engine(self) -> None:
        try:
            state = await self._ask(self._launcher.engine.ended, self._id)
        except EngineError as error:
            self.on_death(-1, str(error))
        else:
            if state is not None:
                self.on_death(state[0])

    def _shoot(self) -> None:
        """SIGKILL. When the main process is gone, so is the first one, and with it the kernel ends all others."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):  # gone, or not ours to kill
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._is_running and not self._death.done():
            self._shot = self._loop.create_task(self._kill_by_engine())

    async def _kill_by_engine(self) -> None:
        with contextlib.suppress(EngineError):
            await self._ask(self._launcher.engine.kill, self._id)

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _pid_of(pidfd: int) -> int | None:
    """The number of a process that is still there."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            pid = int(line.split()[1])
            return pid if pid > 0 else None
    return None
