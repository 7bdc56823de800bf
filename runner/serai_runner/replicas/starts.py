"""How a replica comes to be: its models' socket first, then a template or a sandbox that gives it a box."""

import asyncio
import dataclasses
import secrets
from collections.abc import Callable

from serai.box.cgroups import Cgroups
from serai_runner.memory import available_bytes
from serai_runner.pool_link import PoolLink
from serai_runner.replicas.replica import Replica
from serai_runner.replicas.spares import Spares
from serai_runner.replicas.template import Say
from serai_runner.replicas.templates import Templates
from serai_runner.sandbox import Box, Sandbox, SandboxUnavailable
from serai_runner.sandbox.base import Limits
from serai_runner.scheduling.calls import ReplicaState
from serai_runner.settings import Settings

#: A start waits this long for the pool. A pool that was killed is back within a second or two.
POOL_WAIT_S = 10.0
_MAX_OPEN_FILES = 1024

#: (replica, why): it will never stand.
OnFailed = Callable[[ReplicaState, str], None]


class Starts:
    """Starts boxes for replicas, one way for all of them.

    Args:
        make: the live replica of a state, as the host wants it; called when there is nothing to wait for any more.
        on_failed: called from the loop, never before `begin` returns.
        say: told what a version's code printed while it was loaded for all its replicas.
        on_short: the machine is short of memory, and another box is about to start.
    """

    def __init__(
        self,
        settings: Settings,
        sandbox: Sandbox,
        cgroups: Cgroups,
        pool: PoolLink,
        make: Callable[[ReplicaState], Replica],
        on_failed: OnFailed,
        on_short: Callable[[], object],
        say: Say,
    ) -> None:
        self.spares = Spares(settings, sandbox)
        self.templates = Templates(settings, self.spares, sandbox.can_fork, cgroups, say)
        self._settings = settings
        self._sandbox = sandbox
        self._cgroups = cgroups
        self._pool = pool
        self._make = make
        self._on_failed = on_failed
        self._on_short = on_short
        self._waiting: dict[int, Callable[[], None]] = {}  # replica id -> stop waiting for the pool
        self._loop = asyncio.get_running_loop()

    def begin(self, replica: ReplicaState) -> None:
        begin = self._await_pool if replica.version.spec.models else self._start
        self._loop.call_soon(begin, replica)

    def cancel(self, replica: ReplicaState) -> None:
        """It was killed before it was made."""
        stop_waiting = self._waiting.pop(replica.id, None)
        if stop_waiting is not None:
            stop_waiting()
            self._loop.call_soon(self._on_failed, replica, "killed while it waited for the model pool")
        # else: its start is on its way, and sees that it is doomed

    def _await_pool(self, replica: ReplicaState) -> None:
        spec = replica.version.spec

        def on_directory(directory: str) -> None:
            timer.cancel()
            self._waiting.pop(replica.id, None)
            if directory:
                self._start(replica, directory)
            else:
                self._on_failed(replica, "the model pool could not open this version's models")

        def on_silence() -> None:
            self._pool.forget(spec.key, on_directory)
            self._waiting.pop(replica.id, None)
            self._on_failed(replica, f"the model pool did not answer within {POOL_WAIT_S:g} s")

        def stop_waiting() -> None:
            timer.cancel()
            self._pool.forget(spec.key, on_directory)

        timer = self._loop.call_later(POOL_WAIT_S, on_silence)
        self._waiting[replica.id] = stop_waiting
        self._pool.admit(spec, on_directory)

    def _start(self, replica: ReplicaState, models: str | None = None) -> None:
        if replica.phase == "doomed":
            self._on_failed(replica, "not needed any more")
            return
        if replica.version.spec.kind == "model":
            self._on_failed(replica, "a version that is only a model has no code: its calls go to the model pool")
            return
        if available_bytes() < self._settings.memory_reserve_bytes:
            self.templates.end_idle()
            self._on_short()
        try:
            box = self._box(replica, models)
            source = self.templates.source_for(box)
            box = dataclasses.replace(box, fork_after=self.templates.fork_point_of(box, source))
            self._make(replica).start(source, box)
        except (OSError, SandboxUnavailable) as error:
            self._on_failed(replica, f"a replica cannot be started: {error}")

    def _box(self, replica: ReplicaState, models: str | None) -> Box:
        spec = replica.version.spec
        settings, limits = self._settings, spec.limits
        rlimits = {"core": 0, "nofile": _MAX_OPEN_FILES, "fsize": settings.tmp_bytes}
        if not self._cgroups.limits_memory and self._sandbox.name != "docker":
            rlimits["data"] = limits.memory_bytes
        if not self._cgroups.limits_pids and self._sandbox.name == "bubblewrap":
            rlimits["nproc"] = settings.max_pids
        tmp_bytes = min(settings.tmp_bytes, limits.memory_bytes)
        box_limits = Limits(limits.memory_bytes, settings.max_pids, limits.cpus, tmp_bytes, rlimits)
        num_threads = max(1, int(limits.cpus))
        key = f"sim{secrets.token_urlsafe(18)}"
        return Box(replica.id, spec, box_limits, models, num_threads, key, replica.secrets)
