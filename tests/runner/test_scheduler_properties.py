"""Whatever happens in whatever order: every call has exactly one end, and nothing exceeds its bound."""

import random
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serai.ipc.messages import Call, Failure, Limits, Ready, Refusal, Result
from serai_runner.scheduling.calls import Ending, PendingCall, ReplicaState
from serai_runner.scheduling.scheduler import Scheduler
from serai_runner.scheduling.version import MAX_DEPTH
from serai_runner.settings import Settings
from serai_runner.testing import RecordedEffects, python_version

SETTINGS = Settings(
    Path("/home"),
    replicas=2,
    max_processes=3,
    queue_min=6,
    queue_per_slot=2,
    idle_s=5.0,
    load_s=3.0,
    max_queued_bytes=4000,
)
pick = st.integers(0, 1_000_000)


class World(RuleBasedStateMachine):
    """Plays gateways, replicas and the clock. A fake replica begins calls in the order sent, as a real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.effects = RecordedEffects()
        self.scheduler = Scheduler(self.effects, SETTINGS)
        self.versions = [
            self.scheduler.define(python_version("/code", key=key, limits=Limits(concurrency=concurrency)))
            for key, concurrency in (("a", 1), ("b", 1), ("c", 3))
        ]
        self.calls: list[PendingCall] = []
        self.cancelled: set[int] = set()
        self.alive: list[ReplicaState] = []
        self.num_started = self.num_checked = 0
        self.ended: dict[int, int] = {}
        self.random = random.Random(0)

    @initialize(fast=st.booleans())
    def learn_speed(self, fast: bool) -> None:
        for version in self.versions:
            for _ in range(30 if fast else 0):
                version.measured(0.00002, 0.00001)

    def _replicas(self, *phases: str) -> list[ReplicaState]:
        self.alive += self.effects.started[self.num_started :]
        self.num_started = len(self.effects.started)
        return [replica for replica in self.alive if replica.phase in phases]

    @rule(
        version=pick,
        payer=st.sampled_from("abc"),
        timeout_s=st.sampled_from([0.0, 0.01, 1.0, 60.0, 60.0]),
        size=st.integers(0, 900),
        only_load=st.booleans(),
    )
    def call(self, version: int, payer: str, timeout_s: float, size: int, only_load: bool = False) -> None:
        number = len(self.calls) + 1
        message = Call(number, "v", "json", self.now + timeout_s, "req", payer, only_load=only_load)
        self.calls.append(
            self.scheduler.on_call(None, message, bytes(size), self.versions[version % len(self.versions)], self.now)
        )

    @precondition(lambda self: self.calls)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        call = self.calls[which % len(self.calls)]
        if not call.ended:
            self.cancelled.add(call.serial)
        self.scheduler.on_cancel(call, self.now)

    @rule()
    def load_all(self) -> None:
        while starting := self._replicas("starting"):
            self.scheduler.on_ready(starting[0], Ready(), self.now)

    @precondition(lambda self: self._replicas("starting"))
    @rule(which=pick)
    def fail_to_load(self, which: int) -> None:
        self.scheduler.on_ready(self._choose(which, "starting"), Ready("no module"), self.now)

    @rule(version=pick, payers=st.lists(st.sampled_from("abc"), min_size=2, max_size=12))
    def burst(self, version: int, payers: list[str]) -> None:
        for payer in payers:
            self.call(version, payer, 60.0, 10)
        self.load_all()

    @precondition(lambda self: any(r.in_flight for r in self._replicas("ready", "doomed")))
    @rule(which=pick, count=st.integers(1, 5), passed_s=st.sampled_from([0.0, 0.0001, 0.5]))
    def answer(self, which: int, count: int, passed_s: float) -> None:
        busy = [replica for replica in self._replicas("ready", "doomed") if replica.in_flight]
        replica = busy[which % len(busy)]
        self.now += passed_s
        for _ in range(min(count, len(replica.in_flight))):
            serial = self.random.choice(replica.begun()).serial
            self.scheduler.on_reply(replica, Result(serial, "json", 0.0), b"", self.now)

    @precondition(lambda self: self._replicas("starting", "ready", "doomed"))
    @rule(which=pick, serial=st.integers(0, 300))
    def forge(self, which: int, serial: int) -> None:
        replica = self._choose(which, "starting", "ready", "doomed")
        if serial not in replica.in_flight:
            self.scheduler.on_reply(replica, Failure(serial, "AlgorithmError", "forged"), b"", self.now)

    @precondition(lambda self: self._replicas("starting", "ready", "doomed"))
    @rule(which=pick, out_of_memory=st.booleans(), is_platform=st.booleans())
    def exit(self, which: int, out_of_memory: bool, is_platform: bool) -> None:
        self._exit(self._choose(which, "starting", "ready", "doomed"), Ending("gone", out_of_memory, "", is_platform))

    def _exit(self, replica: ReplicaState, ending: Ending) -> None:
        begun = replica.begun() if replica.phase != "starting" else []
        not_begun = [call for call in replica.in_flight.values() if call not in begun]
        num_replies = len(self.effects.replies)
        self.alive.remove(replica)
        self.scheduler.on_exit(replica, ending, self.now)
        for call, answer, _ in self.effects.replies[num_replies:]:
            if call in not_begun:  # never told that it crashed, since it did not
                assert not (isinstance(answer, Refusal) and answer.code == "crashed")
        assert all(call.ended for call in begun)  # and never run twice

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.06, 0.06, 0.6, 0.6, 3.5, 70.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        ticks = 0
        while self.scheduler.wake_at <= until:
            self.now = max(self.now, self.scheduler.wake_at)
            self.scheduler.on_tick(self.now)
            assert self.scheduler.wake_at > self.now, "a tick asks for another one at once"
            ticks += 1
        assert ticks < 2000
        self.now = until

    @rule(which=pick)
    def move_models(self, which: int) -> None:
        self.scheduler.retire(self.versions[which % len(self.versions)], "stale", self.now)

    def _choose(self, which: int, *phases: str) -> ReplicaState:
        replicas = self._replicas(*phases)
        return replicas[which % len(replicas)]

    @invariant()
    def every_call_has_at_most_one_end(self) -> None:
        for call, _, _ in self.effects.replies[self.num_checked :]:
            self.ended[call.serial] = self.ended.get(call.serial, 0) + 1
            assert self.ended[call.serial] == 1 and call.serial not in self.cancelled
        self.num_checked = len(self.effects.replies)

    @invariant()
    def nothing_exceeds_its_bound(self) -> None:
        scheduler = self.scheduler
        assert len(scheduler.replicas) <= SETTINGS.max_processes
        queued = 0
        for version in self.versions:
            assert len(version.ready) + (version.starting is not None) <= SETTINGS.max_replicas + 1
            queued += sum(len(call.payload) for call in version.queue)
        assert scheduler._queued_bytes == queued
        for replica in scheduler.replicas.values():
            assert len(replica.in_flight) <= MAX_DEPTH
            assert replica.ghosts == sum(call.ended for call in replica.in_flight.values())
            assert replica.in_flight_bytes == sum(len(call.payload) for call in replica.in_flight.values())

    @invariant()
    def the_clock_is_set_for_every_open_deadline(self) -> None:
        waiting = [call.deadline for version in self.versions for call in version.queue]
        running = [c.deadline for r in self.scheduler.replicas.values() for c in r.in_flight.values() if not c.ended]
        assert all(self.scheduler.wake_at <= deadline for deadline in waiting + running)

    def teardown(self) -> None:
        """In the end nothing is left open: time passes, replicas die, and every call has had its one end."""
        for _ in range(50):
            self.wait(70.0)
            for replica in self._replicas("starting", "ready", "doomed"):
                if replica.phase == "doomed":
                    self._exit(replica, Ending("killed"))
        self.every_call_has_at_most_one_end()
        assert self.scheduler.num_open == 0
        for call in self.calls:
            assert call.ended
            assert (call.serial in self.cancelled) != (self.ended.get(call.serial) == 1)


World.TestCase.settings = settings(
    max_examples=60, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_history_ends_every_call_exactly_once = World.TestCase
