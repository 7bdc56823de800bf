"""The one owner of everything: takes events from sockets, processes and the clock, and does what the scheduler says.

All of it runs as short synchronous callbacks on one event loop, so no state here is ever seen half changed.
"""

import asyncio
import compileall
import contextlib
import socket
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from serai.box.cgroups import Cgroups
from serai.ipc.messages import (
    Bound,
    Call,
    Cancel,
    Failure,
    Item,
    More,
    Progress,
    Ready,
    Refusal,
    Result,
    VersionSpec,
    Waiting,
)
from serai.ipc.secrets import Secrets
from serai.ipc.sockets import serve_unix
from serai_runner.gateway_link import GatewayLink
from serai_runner.logs.author import AuthorLog
from serai_runner.logs.logbook import FLUSH_S, Logbook
from serai_runner.metrics import Metrics
from serai_runner.outgoing.relay import ApiRelay
from serai_runner.pool_link import PoolLink
from serai_runner.replicas.replica import Replica
from serai_runner.replicas.replies import checked_reply, without_secrets
from serai_runner.replicas.starts import Starts
from serai_runner.sandbox import Sandbox
from serai_runner.sandbox.base import INSIDE_FOLDER, SDK_FOLDER
from serai_runner.scheduling.calls import Ending, PendingCall, ReplicaState
from serai_runner.scheduling.scheduler import Scheduler
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings

#: What a call has printed is looked at when it has run for this long, and again after as much. Nothing is sent
#: behind it then.
_LOOK_S = 0.5
#: Between two looks at whether the processes of ended replicas have gone for good.
_GROUP_RETRY_S = 0.005
#: Killed replicas and open answers are given this long at the very end.
_LAST_GRACE_S = 2.0


class Host:
    """`await serve()` runs it until it is drained."""

    def __init__(self, settings: Settings, sandbox: Sandbox, cgroups: Cgroups) -> None:
        self.log = structlog.get_logger()
        self.links: set[GatewayLink] = set()
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._sandbox = sandbox
        self._cgroups = cgroups
        self.logbook = Logbook(settings.logs_path, lambda: self._loop.call_later(FLUSH_S, self._flush_logs))
        self._author_log = AuthorLog(self.logbook)
        self._scheduler = Scheduler(self, settings)
        self._pool = PoolLink(settings.pool_path, self._pool_moved)
        self._starts = Starts(
            settings,
            sandbox,
            cgroups,
            self._pool,
            self._make,
            self._never_started,
            self._scheduler.fleet.end_longest_idle,
            self._author_log.loaded,
        )
        self._metrics = Metrics(self._scheduler, self._starts)
        self._replicas: dict[int, Replica] = {}
        self._relays: dict[int, ApiRelay] = {}  # by replica: its code's calls of others
        self._looking: asyncio.TimerHandle | None = None  # for what long calls print
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._is_draining = asyncio.Event()
        self._changed = asyncio.Event()  # a call or a replica ended while draining

    async def serve(self) -> None:
        self.log.info("sandbox chosen", action="sandbox", sandbox=self._sandbox.name)
        for folder, levels in ((INSIDE_FOLDER, 1), (SDK_FOLDER, 0)):
            compileall.compile_dir(str(folder), maxlevels=levels, quiet=2)  # replicas cannot write their own bytecode
        server = await serve_unix(self._settings.socket_path, lambda: GatewayLink(self))
        self.log.info("listening", action="started", socket=str(self._settings.socket_path))
        self._starts.spares.begin()
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
            for relay in self._relays.values():
                relay.close()
            await self._pool.close()
            await self._sandbox.close()
            await self._remove_groups()
            self.logbook.close()
            self.log.info("stopped", action="stopped")

    def drain(self) -> None:
        """Refuse what comes, finish what was accepted, then stop."""
        if not self._is_draining.is_set():
            self.log.info("draining", action="draining", open_calls=self._scheduler.num_open)
            self._scheduler.on_drain()
            self._is_draining.set()

    # Events from gateways

    def define(self, spec: VersionSpec, secrets: Secrets) -> VersionState:
        version = self._scheduler.define(spec)
        if version.take_secrets(secrets):
            self._starts.templates.drop(spec.key)
            self._scheduler.retire(version, "stale", monotonic())
            self._after_event()
        return version

    def on_call(self, source: GatewayLink, call: Call, payload: bytes, version: VersionState) -> PendingCall:
        pending = self._scheduler.on_call(source, call, payload, version, monotonic())
        self._arm()
        return pending

    def on_cancel(self, call: PendingCall) -> None:
        self._cut_calls_of(call)
        self._scheduler.on_cancel(call, monotonic())
        self._after_event()

    def on_more(self, call: PendingCall, num_items: int) -> None:
        self._scheduler.on_more(call, num_items)

    def on_keep(self, keys: Sequence[str]) -> None:
        self._scheduler.on_keep(keys, monotonic())
        self._after_event()

    def stats(self) -> bytes:
        return self._metrics.text()

    # Events from replicas

    def on_door(self, replica: ReplicaState, door: socket.socket) -> None:
        if replica.id not in self._replicas:
            door.close()
            return
        live = self._replicas[replica.id]
        relay = self._relays[replica.id] = ApiRelay(self._settings.calls_path, lambda: _bound_of(replica, live.key))
        relay.serve(door)

    def on_ready(self, replica: ReplicaState, message: Ready, printed: bytes, now: float) -> None:
        if replica.phase == "ready":  # said twice: it floods us
            self.on_violation(replica)
        if replica.phase != "starting":
            return
        message = without_secrets(message, replica.secrets)
        self._author_log.ready(replica, message, printed, now)
        log, took_s = self._log_of(replica), round(now - replica.started_at, 4)
        if message.error:
            log.warning("a version cannot start", action="replica_failed", error=message.error, took_s=took_s)
        else:
            log.info("replica ready", action="replica_ready", took_s=took_s)
        self._scheduler.on_ready(replica, message, now)
        self._after_event()

    def on_reply(self, replica: ReplicaState, message: Result | Failure, payload: bytes, now: float) -> None:
        if type(message) is Failure:
            message = without_secrets(message, replica.secrets)
        if message.stdout_bytes or type(message) is Failure:
            self._author_log.replied(replica, message, payload, self._replicas[replica.id].told_bytes)
        self._scheduler.on_reply(replica, message, payload, now)
        self._arm()

    def on_item(self, replica: ReplicaState, message: Item | Progress, payload: bytes, now: float) -> None:
        self._scheduler.on_item(replica, message, payload, now)

    def on_violation(self, replica: ReplicaState) -> None:
        self._log_of(replica).warning("a replica broke the protocol", action="replica_violation")
        self._scheduler.on_violation(replica)
        self._after_event()

    def on_exit(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        log, ending = self._log_of(replica), without_secrets(ending, replica.secrets)
        if replica.doom:
            log.info("replica ended", action="replica_killed", reason=replica.doom)
        else:
            log.warning("replica ended by itself", action="replica_exited", how=ending.how,
                        out_of_memory=ending.out_of_memory, output=ending.output[-500:])  # fmt: skip
        self._author_log.ended(replica, ending)
        self._scheduler.on_exit(replica, ending, now)
        self._withdraw_models(replica)
        self._after_event()

    # Effects of the scheduler

    def start(self, replica: ReplicaState) -> None:
        self._starts.begin(replica)

    def send(self, replica: ReplicaState, call: PendingCall) -> None:
        self._replicas[replica.id].send_call(call)
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look_at_output)

    def tell_replica(self, replica: ReplicaState, message: Cancel | More) -> None:
        self._replicas[replica.id].send(message)

    def kill(self, replica: ReplicaState) -> None:
        live = self._replicas.get(replica.id)
        if live is not None:
            live.kill()
        else:
            self._starts.cancel(replica)

    def reply(self, call: PendingCall, message: Result | Failure | Refusal, payload: bytes) -> None:
        self._cut_calls_of(call)
        if not isinstance(message, Refusal) and call.replica is not None:
            message, payload = checked_reply(call, message, payload, call.replica.last_event)
        call.source.answer(call, message, payload)
        if self._scheduler.is_draining:
            self._changed.set()

    def tell_caller(self, call: PendingCall, message: Item | Progress | Waiting, payload: bytes) -> None:
        call.source.tell(call, message, payload)

    def paused(self, version: VersionState, why: str, pause_s: float) -> None:
        self._author_log.paused(version, why, pause_s)

    # What replicas need

    def _make(self, replica: ReplicaState) -> Replica:
        live = self._replicas[replica.id] = Replica(replica, self, self._on_gone)
        self._log_of(replica).info("replica starts", action="replica_started")
        self._author_log.started(replica)
        return live

    def _on_gone(self, live: Replica) -> None:
        self._replicas.pop(live.state.id, None)
        relay = self._relays.pop(live.state.id, None)
        if relay is not None:
            relay.close()

    def _never_started(self, replica: ReplicaState, why: str) -> None:
        self._replicas.pop(replica.id, None)
        self.on_exit(replica, Ending(why, is_platform=True), monotonic())

    def _cut_calls_of(self, call: PendingCall) -> None:
        """What the call's code had asked others for is not wanted any more."""
        if call.replica is not None and (relay := self._relays.get(call.replica.id)) is not None:
            relay.cut()

    def _withdraw_models(self, replica: ReplicaState) -> None:
        version = replica.version
        if version.spec.models and not version.num_live and replica.doom in ("idle", "room"):
            self._pool.withdraw(version.spec.key)
            self._starts.templates.drop(version.spec.key)  # it holds a mount of the pool's folder

    def _pool_moved(self, key: str) -> None:
        version = self._scheduler.versions.get(key)
        if version is not None:
            self._starts.templates.drop(key)
            self._scheduler.retire(version, "stale", monotonic())
            self._after_event()

    # Time and the end

    def _after_event(self) -> None:
        self._changed.set()
        self._arm()

    def _arm(self) -> None:
        """Wake up when the scheduler wants to, if that is sooner than we do."""
        if self._scheduler.wake_at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._scheduler.wake_at
        # The loop counts whole milliseconds: one more, so that what is due is due when it fires.
        self._timer = self._loop.call_later(max(0.0, self._timer_at - monotonic()) + 0.001, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._scheduler.on_tick(monotonic())
        self._arm()
        self._changed.set()

    def _look_at_output(self) -> None:
        """What calls have printed that run for a while: their authors see it now, and not when they end."""
        self._looking = None
        now, is_busy = monotonic(), False
        for live in self._replicas.values():
            state = live.state
            is_busy = is_busy or bool(state.in_flight)
            if state.in_flight and now - state.last_event > _LOOK_S and (printed := live.new_output()):
                self._author_log.so_far(state, printed)
        if is_busy:
            self._looking = self._loop.call_later(_LOOK_S, self._look_at_output)

    def _flush_logs(self) -> None:
        self.logbook.flush(monotonic())

    async def _drained(self) -> None:
        until = self._loop.time() + self._settings.drain_s
        await self._wait_until(lambda: self._scheduler.num_open == 0, until)
        self._scheduler.on_drained(monotonic())
        until = self._loop.time() + _LAST_GRACE_S
        await self._wait_until(lambda: not self._scheduler.replicas, until)
        templates = self._starts.templates
        templates.on_change = self._changed.set
        templates.end_all()
        self._starts.spares.close()
        await self._wait_until(lambda: not len(templates), until)

    async def _remove_groups(self) -> None:
        until = self._loop.time() + _LAST_GRACE_S
        while not self._cgroups.close() and self._loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_GROUP_RETRY_S)  # nothing tells when a group is empty, so we look

    async def _wait_until(self, is_true: Callable[[], bool], until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not is_true():
                    self._changed.clear()
                    await self._changed.wait()

    def _log_of(self, replica: ReplicaState) -> structlog.typing.FilteringBoundLogger:
        return self.log.bind(replica=replica.id, version=replica.version.spec.key)


def _bound_of(replica: ReplicaState, key: str) -> Bound | None:
    """In whose name the replica's code may ask for something now: of the call that runs. None: nobody could say.

    Code that may call others has one call at a time (`VersionState.sends_ahead`), so there it is the right one.
    """
    spec, begun = replica.version.spec, replica.begun()
    if not begun or begun[0].ended or (spec.calls and len(replica.in_flight) > 1):
        return None
    pending, call = begun[0], begun[0].call
    root = call.root or call.call_id
    deadline, sent_at = pending.deadline, pending.sent_at
    return Bound(pending.payer, spec.key, call.call_id, root, call.depth, deadline, spec.calls, key, sent_at)
