"""The one owner of everything: takes events from sockets, processes and the clock, and does what the scheduler says.

All of it runs as short synchronous callbacks on one event loop, so no state here is ever seen half changed.
"""

import asyncio
import compileall
import contextlib
from collections.abc import Callable
from time import monotonic

import structlog

from serai.ipc.messages import Call, Failure, Ready, Refusal, Result, VersionSpec
from serai.ipc.sockets import serve_unix
from serai_runner.calls import Ending, PendingCall, ReplicaState
from serai_runner.cgroups import Cgroups
from serai_runner.gateway_link import GatewayLink
from serai_runner.metrics import Metrics
from serai_runner.pool_link import PoolLink
from serai_runner.replica import Replica
from serai_runner.sandbox import Box, Sandbox, SandboxUnavailable
from serai_runner.sandbox.base import INSIDE_FOLDER
from serai_runner.scheduler import Scheduler
from serai_runner.settings import Settings
from serai_runner.version import VersionState

#: A start waits this long for the pool. A pool that was killed is back within a second or two.
POOL_WAIT_S = 10.0
#: Killed replicas and open answers are given this long at the very end.
_LAST_GRACE_S = 2.0
_MAX_OPEN_FILES = 1024

#: Between two looks at whether the processes of ended replicas have gone for good.
_GROUP_RETRY_S = 0.005


class Host:
    """`await serve()` runs it until it is drained."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self.log = structlog.get_logger()
        self.links: set[GatewayLink] = set()
        self._settings = settings
        self._sandbox = sandbox
        self._cgroups = Cgroups.detect()
        self._scheduler = Scheduler(self, settings)
        self._metrics = Metrics(self._scheduler)
        self._pool = PoolLink(settings.pool_path, self._pool_moved)
        self._replicas: dict[int, Replica] = {}
        self._waiting_for_pool: dict[int, Callable[[], None]] = {}  # replica id -> stop waiting
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._is_draining = asyncio.Event()
        self._changed = asyncio.Event()  # a call or a replica ended while draining

    async def serve(self) -> None:
        self._announce()
        compileall.compile_dir(str(INSIDE_FOLDER), quiet=2)  # replicas cannot write their own bytecode
        server = await serve_unix(self._settings.socket_path, lambda: GatewayLink(self))
        self.log.info("listening", action="started", socket=str(self._settings.socket_path))
        try:
            await self._is_draining.wait()
            await self._drained()
        finally:
            server.close()
            for link in list(self.links):
                link.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_GRACE_S):
                    await server.wait_closed()
            await self._pool.close()

    def drain(self) -> None:
        """Refuse what comes, finish what was accepted, then stop."""
        if not self._is_draining.is_set():
            self.log.info("draining", action="draining", open_calls=self._scheduler.num_open)
            self._scheduler.on_drain()
            self._is_draining.set()

    # Events from gateways

    def define(self, spec: VersionSpec) -> VersionState:
        return self._scheduler.define(spec)

    def on_call(self, source: GatewayLink, call: Call, payload: bytes, version: VersionState) -> PendingCall:
        pending = self._scheduler.on_call(source, call, payload, version, monotonic())
        if self._scheduler.wake_at < self._timer_at:
            self._arm()
        return pending

    def on_cancel(self, call: PendingCall) -> None:
        self._scheduler.on_cancel(call)
        self._changed.set()

    def stats(self) -> bytes:
        return self._metrics.text()

    # Events from replicas

    def on_ready(self, replica: ReplicaState, message: Ready, now: float) -> None:
        if replica.phase == "ready":  # said twice: it floods us
            self.on_violation(replica)
        if replica.phase != "starting":
            return
        took = now - replica.started_at
        log = self._log_of(replica)
        if message.error:
            log.warning("a version cannot start", action="replica_failed", error=message.error, took_s=round(took, 4))
        else:
            log.info("replica ready", action="replica_ready", took_s=round(took, 4))
        self._scheduler.on_ready(replica, message, now)
        self._after_event()

    def on_reply(self, replica: ReplicaState, message: Result | Failure, payload: bytes, now: float) -> None:
        self._scheduler.on_reply(replica, message, payload, now)
        if self._scheduler.wake_at < self._timer_at:
            self._arm()

    def on_violation(self, replica: ReplicaState) -> None:
        self._log_of(replica).warning("a replica broke the protocol", action="replica_violation")
        self._scheduler.on_violation(replica)
        self._after_event()

    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        log = self._log_of(replica)
        if replica.doom:
            log.info("replica ended", action="replica_killed", reason=replica.doom)
        else:
            log.warning("replica ended by itself", action="replica_exited", how=ending.how,
                        out_of_memory=ending.out_of_memory, output=ending.output[-500:])  # fmt: skip
        self._scheduler.on_exit(replica, ending, now)
        version = replica.version
        if version.spec.models and not version.num_live and replica.doom in ("idle", "room"):
            self._pool.withdraw(version.spec.key)
        self._after_event()

    # Effects of the scheduler

    def start(self, replica: ReplicaState) -> None:
        if replica.version.spec.models:
            self._loop.call_soon(self._start_with_pool, replica)
        else:
            self._loop.call_soon(self._start, replica, None)

    def send(self, replica: ReplicaState, call: PendingCall) -> None:
        self._replicas[replica.id].send_call(call)

    def kill(self, replica: ReplicaState) -> None:
        process = self._replicas.get(replica.id)
        if process is not None:
            process.kill()
        elif (stop_waiting := self._waiting_for_pool.pop(replica.id, None)) is not None:
            stop_waiting()
            self._loop.call_soon(self._never_started, replica, "killed while it waited for the model pool")
        # else: its start is on its way, and sees that it is doomed

    def reply(self, call: PendingCall, message: Result | Failure | Refusal, payload: bytes) -> None:
        if not isinstance(message, Refusal) and call.replica is not None:
            message, payload = _checked(call, message, payload, call.replica.last_event)
        call.source.answer(call, message, payload)
        if self._scheduler.is_draining:
            self._changed.set()

    # Starting

    def _start_with_pool(self, replica: ReplicaState) -> None:
        spec = replica.version.spec

        def on_directory(directory: str) -> None:
            timer.cancel()
            self._waiting_for_pool.pop(replica.id, None)
            if directory:
                self._start(replica, directory)
            else:
                self._never_started(replica, "the model pool could not open this version's models")

        def on_silence() -> None:
            self._pool.forget(spec.key, on_directory)
            self._waiting_for_pool.pop(replica.id, None)
            self._never_started(replica, f"the model pool did not answer within {POOL_WAIT_S:g} s")

        def stop_waiting() -> None:
            timer.cancel()
            self._pool.forget(spec.key, on_directory)

        timer = self._loop.call_later(POOL_WAIT_S, on_silence)
        self._waiting_for_pool[replica.id] = stop_waiting
        self._pool.admit(spec, on_directory)

    def _start(self, replica: ReplicaState, models: str | None) -> None:
        if replica.phase == "doomed":
            self._never_started(replica, "not needed any more")
            return
        spec = replica.version.spec
        if spec.kind == "model":
            self._never_started(replica, "a version that is only a model has no code: its calls go to the model pool")
            return
        process = Replica(replica, self, lambda gone: self._replicas.pop(gone.state.id, None))
        self._replicas[replica.id] = process
        group = None
        try:
            group = self._cgroups.create(replica.id, spec.limits.memory_bytes, self._settings.max_pids)
            environment = self._sandbox.environment(self._box(spec, -1, models))
            process.start(lambda fd: self._sandbox.command(self._box(spec, fd, models)), environment, group)
        except (OSError, SandboxUnavailable) as error:
            self._replicas.pop(replica.id, None)
            self._never_started(replica, f"a replica cannot be started: {error}")
            return
        self._log_of(replica).info("replica starts", action="replica_started", pid=process.pid)

    def _box(self, spec: VersionSpec, fd: int, models: str | None) -> Box:
        rlimits = {"core": 0, "nofile": _MAX_OPEN_FILES, "fsize": self._settings.tmp_bytes}
        if not self._cgroups.limits_memory:
            rlimits["data"] = spec.limits.memory_bytes
        if not self._cgroups.limits_pids and self._sandbox.is_isolating:
            rlimits["nproc"] = self._settings.max_pids
        num_threads = max(1, self._settings.max_replicas // 2)
        return Box(spec, fd, models, rlimits, min(self._settings.tmp_bytes, spec.limits.memory_bytes), num_threads)

    def _never_started(self, replica: ReplicaState, why: str) -> None:
        self.on_exit(replica, Ending(why, is_platform=True), monotonic())

    def _pool_moved(self, key: str) -> None:
        version = self._scheduler.versions.get(key)
        if version is not None:
            self._scheduler.retire(version, "stale", monotonic())
            self._after_event()

    # Time and the end

    def _after_event(self) -> None:
        self._changed.set()
        if self._scheduler.wake_at < self._timer_at:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._scheduler.wake_at
        # The loop counts whole milliseconds: one more, so that what is due is due when it fires.
        self._timer = self._loop.call_later(max(0.0, self._timer_at - monotonic()) + 0.001, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._scheduler.on_tick(monotonic())
        if self._scheduler.wake_at < self._timer_at:
            self._arm()
        self._changed.set()

    async def _drained(self) -> None:
        until = self._loop.time() + self._settings.drain_s
        await self._wait_until(lambda: self._scheduler.num_open == 0, until)
        self._scheduler.on_drained(monotonic())
        await self._wait_until(lambda: not self._scheduler.replicas, self._loop.time() + _LAST_GRACE_S)
        until = self._loop.time() + _LAST_GRACE_S
        while not self._cgroups.remove_rest() and self._loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_GROUP_RETRY_S)  # nothing tells when a group is empty, so we look
        self.log.info("stopped", action="stopped")

    async def _wait_until(self, is_true: Callable[[], bool], until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not is_true():
                    self._changed.clear()
                    await self._changed.wait()

    def _announce(self) -> None:
        limited = {"memory": self._cgroups.limits_memory, "pids": self._cgroups.limits_pids}
        cgroups = [name for name, is_limited in limited.items() if is_limited]
        self.log.info("sandbox chosen", action="sandbox", sandbox=self._sandbox.name, cgroups=cgroups)

    def _log_of(self, replica: ReplicaState) -> structlog.typing.FilteringBoundLogger:
        return self.log.bind(replica=replica.id, version=replica.version.spec.key)


def _checked(
    call: PendingCall, message: Result | Failure, payload: bytes, now: float
) -> tuple[Result | Failure, bytes]:
    """A replica's reply as its caller may see it: with the caller's id, and no more time or output than is due."""
    duration_s, stdout_bytes = message.duration_s, message.stdout_bytes
    longest_s = now - call.sent_at
    if duration_s > longest_s:
        duration_s = max(0.0, longest_s)  # time is money: an author's code must not make it longer than it was
    if stdout_bytes and not call.call.wants_stdout:
        payload = payload[: len(payload) - stdout_bytes]
        stdout_bytes = 0
    call_id = call.call.id
    if type(message) is Result:
        return Result(call_id, message.content_type, duration_s, stdout_bytes), payload
    assert type(message) is Failure
    failure = Failure(call_id, message.error_type, message.message, message.stacktrace, duration_s, stdout_bytes)
    return failure, payload[len(payload) - stdout_bytes :] if stdout_bytes else b""
