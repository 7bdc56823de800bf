"""The scheduler's decisions, driven by hand with recorded effects and a clock that stands still."""

from pathlib import Path

import pytest

from serai.ipc.messages import (
    WINDOW,
    WINDOW_BYTES,
    Call,
    Cancel,
    Failure,
    Item,
    Limits,
    More,
    Progress,
    Ready,
    Refusal,
    Result,
    Scaling,
    Waiting,
)
from serai_runner.scheduling.calls import Ending, PendingCall, ReplicaState
from serai_runner.scheduling.scheduler import CANCEL_GRACE_S, GHOST_GRACE_S, MAX_STRAYS, Scheduler
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings
from serai_runner.testing import RecordedEffects, python_version

CRASH = Ending("signal 11 (SIGSEGV)")


class Bench:
    """A scheduler, what it did, and short words for what happens to it."""

    def __init__(self, **settings) -> None:
        self.now = 100.0
        self.effects = RecordedEffects()
        self.scheduler = Scheduler(self.effects, Settings(Path("/home"), **{"replicas": 2, **settings}))
        self.version = self.define("v")
        self.num_calls = 0

    def define(self, key: str, **limits) -> VersionState:
        return self.scheduler.define(python_version("/code", key=key, limits=Limits(**limits)))

    def call(self, version: VersionState | None = None, payer: str = "a", timeout_s: float = 30.0,
             payload: bytes = b"", **more) -> PendingCall:  # fmt: skip
        self.num_calls += 1
        call = Call(self.num_calls, "v", "json", self.now + timeout_s, "req", payer, **more)
        return self.scheduler.on_call(None, call, payload, version or self.version, self.now)

    def ready(self, replica: ReplicaState | None = None, error: str = "") -> ReplicaState:
        replica = replica or self.effects.started[-1]
        self.scheduler.on_ready(replica, Ready(error, "trace" if error else ""), self.now)
        return replica

    def cancel(self, call: PendingCall) -> None:
        self.scheduler.on_cancel(call, self.now)

    def reply(self, call: PendingCall) -> None:
        assert call.replica is not None
        self.scheduler.on_reply(call.replica, Result(call.serial, "json", 0.0), b"1", self.now)

    def exit(self, replica: ReplicaState, ending: Ending = CRASH) -> None:
        self.scheduler.on_exit(replica, ending, self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass as the host would: a tick whenever one is due."""
        until = self.now + seconds
        while self.scheduler.wake_at <= until:
            self.now = max(self.now, self.scheduler.wake_at)
            self.scheduler.on_tick(self.now)
        self.now = until

    def serve(self, service_s: float, times: int = 1, version: VersionState | None = None) -> None:
        """Teach the scheduler how long calls take."""
        for _ in range(times):
            call = self.call(version)
            self.now += service_s
            self.reply(call)

    def answer_of(self, call: PendingCall):
        answers = [message for answered, message, _ in self.effects.replies if answered is call]
        assert len(answers) <= 1, "a call was answered twice"
        return answers[0] if answers else None

    def code_of(self, call: PendingCall) -> str | None:
        answer = self.answer_of(call)
        return answer.code if isinstance(answer, Refusal) else None


def test_the_first_call_starts_one_replica_and_goes_to_it_when_it_is_ready():
    bench = Bench()
    calls = [bench.call() for _ in range(5)]
    assert len(bench.effects.started) == 1 and not bench.effects.sent
    replica = bench.ready()
    assert bench.effects.sent == [(replica, calls[0])]
    bench.reply(calls[0])
    assert isinstance(bench.answer_of(calls[0]), Result)
    assert bench.effects.sent[1] == (replica, calls[1])


def test_a_second_replica_starts_when_calls_wait_long_and_no_third_past_the_limit():
    bench = Bench()
    bench.call()
    bench.ready()
    for _ in range(3):
        bench.call()
    assert len(bench.effects.started) == 1
    bench.advance(0.06)
    assert len(bench.effects.started) == 2
    bench.ready()
    bench.advance(1.0)
    assert len(bench.effects.started) == 2


def test_short_calls_are_sent_ahead_and_long_ones_are_not():
    bench = Bench(replicas=1)
    bench.call()
    replica = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.serve(0.00005, times=200)
    for _ in range(100):
        bench.call()
    assert 10 <= len(replica.in_flight) <= 32
    slow = bench.define("slow")
    bench.call(slow)
    slow_replica = bench.ready()
    bench.now += 1
    bench.reply(bench.effects.sent[-1][1])
    for _ in range(5):
        bench.call(slow)
    assert len(slow_replica.in_flight) == 1


def test_nothing_is_sent_behind_a_call_that_turned_out_slow_and_another_replica_takes_what_waits():
    bench = Bench()
    bench.call()
    first = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.serve(0.0001, 30)
    slow, behind = bench.call(), bench.call()
    assert slow.replica is first and behind.replica is first, "it has always been fast"
    bench.advance(0.02)
    waiting = bench.call()
    assert waiting.replica is None
    bench.advance(0.06)
    second = bench.ready(bench.effects.started[-1])
    assert second is not first
    assert waiting.replica is second


def test_one_owners_long_calls_leave_places_for_others():
    bench = Bench(max_processes=8, max_processes_per_owner=2)
    greedy = [bench.scheduler.define(python_version("/code", key=f"g{n}", owner="greedy")) for n in range(5)]
    modest = bench.scheduler.define(python_version("/code", key="m", owner="modest"))
    calls = [bench.call(version) for version in greedy]
    assert len(bench.effects.started) == 2, "the share of one owner"
    other = bench.call(modest)
    assert len(bench.effects.started) == 3
    bench.ready(bench.effects.started[2])
    assert other.replica is not None
    first = bench.ready(bench.effects.started[0])
    bench.reply(calls[0])
    assert first in bench.effects.killed and first.doom == "room", "another of theirs waits for the place"
    bench.exit(first)
    assert [replica.version for replica in bench.effects.started[3:]] == [greedy[2]]


def test_a_new_version_finds_a_place_where_calls_inside_calls_went_beyond_the_owners_number():
    bench = Bench(max_processes=9, max_processes_per_owner=2, replicas=1)
    deep, new = (bench.scheduler.define(python_version("/code", key=key, owner="one")) for key in ("deep", "new"))
    chain = [bench.call(deep)]
    bench.ready()
    for depth in (1, 2, 3):
        chain.append(bench.call(deep, depth=depth))
        bench.advance(0.1)
        bench.ready()
    for call in reversed(chain):
        bench.reply(call)
    assert len(bench.scheduler.replicas) == 4, "two more than one owner may have"
    waiting = bench.call(new)
    for _ in range(3):
        assert bench.effects.started[-1].version is deep
        bench.exit(bench.effects.killed[-1])
    assert bench.ready().version is new and waiting.replica is not None


def test_large_inputs_are_not_sent_ahead():
    bench = Bench(replicas=1)
    bench.call()
    replica = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.serve(0.00005, times=50)
    for _ in range(4):
        bench.call(payload=bytes(1 << 20))
    assert len(replica.in_flight) == 1


def test_a_call_that_ran_in_a_crash_is_refused_and_those_behind_it_go_to_another_replica():
    bench = Bench()
    bench.call()
    replica = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.serve(0.00005, times=50)
    calls = [bench.call() for _ in range(4)]
    assert len(replica.in_flight) == 4
    bench.exit(replica)
    answer = bench.answer_of(calls[0])
    assert isinstance(answer, Refusal) and answer.code == "crashed" and answer.retriable
    assert "SIGSEGV" in answer.message
    bench.ready()
    assert [call for _, call in bench.effects.sent[-3:]] == calls[1:]


def test_running_out_of_memory_is_the_algorithms_failure_and_names_the_limit():
    bench = Bench()
    version = bench.define("m", memory_bytes=64 << 20)
    call = bench.call(version)
    bench.exit(bench.ready(), Ending("signal 9 (SIGKILL)", out_of_memory=True))
    answer = bench.answer_of(call)
    assert isinstance(answer, Failure) and answer.error_type == "OutOfMemoryError" and "64 MiB" in answer.message


def test_at_the_deadline_the_caller_is_told_and_the_replica_killed_and_replaced():
    bench = Bench()
    stuck = bench.call(timeout_s=1)
    replica = bench.ready()
    waiting = bench.call(timeout_s=20)
    bench.advance(1.0)
    assert bench.code_of(stuck) == "deadline" and bench.effects.killed == [replica]
    bench.exit(replica, Ending("signal 9 (SIGKILL)"))
    assert bench.code_of(waiting) is None
    bench.ready()
    assert bench.effects.sent[-1][1] is waiting


def test_a_late_reply_is_dropped():
    bench = Bench()
    call = bench.call(timeout_s=1)
    bench.ready()
    bench.advance(1.0)
    bench.reply(call)
    assert bench.code_of(call) == "deadline"


def test_a_call_that_waits_past_its_deadline_is_told_so():
    bench = Bench()
    call = bench.call(timeout_s=0.5)
    bench.advance(0.5)
    assert bench.code_of(call) == "deadline"
    bench.ready()
    assert not bench.effects.sent


def test_replies_to_nothing_are_dropped_and_too_many_of_them_end_the_replica():
    bench = Bench()
    call = bench.call()
    replica = bench.ready()
    for number in range(MAX_STRAYS + 1):
        assert not bench.effects.killed
        bench.scheduler.on_reply(replica, Result(10_000 + number, "json", 0.0), b"", bench.now)
    assert bench.effects.killed == [replica] and bench.answer_of(call) is None


def test_a_reply_with_the_id_of_another_replicas_call_is_dropped():
    bench = Bench()
    first = bench.call()
    bench.ready()
    other = bench.call(bench.define("other"))
    thief = bench.ready()
    bench.scheduler.on_reply(thief, Result(first.serial, "json", 0.0), b"forged", bench.now)
    assert bench.answer_of(first) is None and bench.answer_of(other) is None


def test_a_version_that_cannot_start_fails_its_calls_and_is_retried_with_growing_pauses():
    bench = Bench()
    first, second = bench.call(), bench.call()
    bench.exit_of = bench.ready(error="no module named x")
    for call in (first, second):
        answer = bench.answer_of(call)
        assert isinstance(answer, Failure) and answer.error_type == "InitializationError"
        assert (answer.message, answer.stacktrace) == ("no module named x", "trace")
    bench.exit(bench.exit_of, Ending("exit code 0"))
    bench.advance(0.4)
    at_once = bench.call()
    assert isinstance(bench.answer_of(at_once), Failure) and len(bench.effects.started) == 1
    bench.advance(0.2)
    bench.call()
    assert len(bench.effects.started) == 2
    bench.exit(bench.ready(error="still"), Ending("exit code 0"))
    bench.advance(0.6)
    bench.call()
    assert len(bench.effects.started) == 2


def test_a_replica_that_ends_by_itself_after_loading_is_not_restarted_without_pause():
    bench = Bench()
    bench.call()
    replica = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.exit(replica)  # it has worked: the next may start at once
    bench.call()
    bench.cancel(bench.call())
    assert len(bench.effects.started) == 2
    for call in [pending for pending in bench.version.queue]:
        bench.cancel(call)
    bench.exit(bench.ready(), Ending("exit code 0"))
    answer = bench.answer_of(bench.call())
    assert isinstance(answer, Failure) and "right after loading" in answer.message


def test_loading_that_takes_too_long_is_ended():
    bench = Bench(load_s=5.0)
    call = bench.call()
    bench.advance(5.0)
    answer = bench.answer_of(call)
    assert isinstance(answer, Failure) and "within 5 s" in answer.message
    assert bench.effects.killed == bench.effects.started


def test_a_sandbox_that_cannot_be_started_is_our_fault_and_worth_a_retry():
    bench = Bench()
    call = bench.call()
    bench.exit(bench.effects.started[0], Ending("bwrap is missing", is_platform=True))
    answer = bench.answer_of(call)
    assert isinstance(answer, Refusal) and answer.code == "unavailable" and answer.retriable
    assert 0 < answer.retry_after_s <= 1


@pytest.mark.parametrize(("queue_min", "accepted"), [(3, 3), (1, 1)])
def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(queue_min: int, accepted: int):
    bench = Bench(queue_min=queue_min, queue_per_slot=1)
    calls = [bench.call() for _ in range(accepted + 1)]
    assert [bench.code_of(call) for call in calls] == [None] * accepted + ["busy"]
    answer = bench.answer_of(calls[-1])
    assert isinstance(answer, Refusal) and answer.retriable and answer.retry_after_s > 0


def test_in_a_full_queue_a_small_payer_takes_a_place_of_the_greedy_one():
    bench = Bench(queue_min=4, queue_per_slot=1)
    greedy = [bench.call(payer="greedy") for _ in range(4)]
    small = bench.call(payer="small")
    assert bench.code_of(small) is None and bench.code_of(greedy[3]) == "busy"
    assert bench.code_of(bench.call(payer="greedy")) == "busy"


def test_a_call_that_cannot_meet_its_deadline_is_refused_early():
    bench = Bench(replicas=1)
    bench.call()
    bench.ready()
    bench.now += 2
    bench.reply(bench.effects.sent[0][1])
    for _ in range(4):
        bench.call()
    assert bench.code_of(bench.call(timeout_s=3)) == "busy"
    assert bench.code_of(bench.call(timeout_s=30)) is None


def test_inputs_that_wait_are_bounded_in_bytes():
    bench = Bench(max_queued_bytes=1000)
    assert bench.code_of(bench.call(payload=bytes(600))) is None
    late = bench.call(payload=bytes(600))
    assert bench.code_of(late) == "busy"


def test_an_idle_replica_ends_and_a_used_one_does_not():
    bench = Bench(idle_s=10.0)
    bench.call()
    replica = bench.ready()
    bench.reply(bench.effects.sent[0][1])
    bench.advance(9)
    bench.serve(0.1)
    bench.advance(9)
    assert not bench.effects.killed
    bench.advance(1)
    assert bench.effects.killed == [replica] and replica.doom == "idle"


def test_a_host_that_is_full_ends_the_longest_idle_replica_for_another_version():
    bench = Bench(max_processes=2)
    replicas = []
    for key in ("a", "b"):
        call = bench.call(bench.define(key))
        replicas.append(bench.ready())
        bench.now += 1
        bench.reply(call)
    wanting = bench.call(bench.define("c"))
    assert bench.effects.killed == [replicas[0]]
    bench.exit(replicas[0], Ending("signal 9 (SIGKILL)"))
    bench.ready()
    assert bench.effects.sent[-1][1] is wanting


def test_a_version_with_many_replicas_gives_one_up_for_a_version_with_none():
    bench = Bench(max_processes=2)
    calls = [bench.call()]
    bench.ready()
    calls.append(bench.call())
    bench.advance(0.1)
    bench.ready()
    bench.call(), bench.call()
    wanting = bench.call(bench.define("other"))
    assert not bench.effects.killed  # both are busy: the next to finish goes
    last = calls[1]
    bench.reply(last)
    assert bench.effects.killed == [last.replica]
    bench.exit(last.replica, Ending("signal 9 (SIGKILL)"))
    assert bench.effects.started[-1].version is wanting.version


def test_a_cancelled_call_is_not_run_and_one_that_runs_is_not_answered():
    bench = Bench()
    running, waiting = bench.call(), bench.call()
    bench.ready()
    bench.cancel(waiting)
    bench.cancel(running)
    bench.reply(running)
    assert not bench.effects.replies and len(bench.effects.sent) == 1


def test_a_cancelled_call_that_goes_on_is_killed_long_before_its_deadline():
    bench = Bench()
    call = bench.call(timeout_s=200)
    replica = bench.ready()
    bench.cancel(call)
    assert bench.effects.told_replicas == [(replica, Cancel(call.serial))]
    bench.advance(CANCEL_GRACE_S)
    assert not bench.effects.killed
    bench.advance(GHOST_GRACE_S + 0.01)
    assert bench.effects.killed == [replica] and not bench.effects.replies
    assert replica.doom == "cancelled"


def test_a_cancelled_call_beside_others_is_asked_to_stop_and_the_others_go_on():
    bench = Bench()
    version = bench.define("many", concurrency=2)
    leaving, staying = bench.call(version, timeout_s=9), bench.call(version, timeout_s=20)
    replica = bench.ready()
    bench.cancel(leaving)
    bench.advance(5)
    assert not bench.effects.killed
    bench.reply(staying)
    bench.advance(5)
    assert bench.effects.killed == [replica], "at the deadline of the one that left"


def test_items_go_to_a_caller_who_wants_them_and_no_more_than_a_window():
    bench = Bench()
    call = bench.call(wants_items=True)
    replica = bench.ready()
    told = bench.effects.told_callers
    assert [type(message) for _, message, _ in told] == [Waiting]
    for _ in range(WINDOW):
        bench.scheduler.on_item(replica, Item(call.serial, "json"), b"1", bench.now)
    bench.scheduler.on_item(replica, Progress(call.serial, 0.5, "half"), b"", bench.now)
    assert len(told) == 1 + WINDOW + 1 and not bench.effects.killed
    bench.scheduler.on_more(call, 3)
    assert bench.effects.told_replicas == [(replica, More(call.serial, 3))]
    for _ in range(3):
        bench.scheduler.on_item(replica, Item(call.serial, "json"), b"1", bench.now)
    bench.scheduler.on_more(call, WINDOW + 100)
    assert bench.effects.told_replicas[-1] == (replica, More(call.serial, WINDOW)), "no more than were sent"
    bench.reply(call)
    bench.scheduler.on_item(replica, Item(call.serial, "json"), b"late", bench.now)
    assert told[-1][2] != b"late"


def test_a_replica_that_sends_items_without_asking_is_ended():
    bench = Bench()
    call = bench.call(wants_items=True)
    replica = bench.ready()
    for _ in range(WINDOW + 1):
        bench.scheduler.on_item(replica, Item(call.serial, "json"), b"1", bench.now)
    assert replica.doom == "protocol"


def test_items_beyond_the_windows_bytes_end_the_replica_and_one_alone_may_be_large():
    bench = Bench()
    call = bench.call(wants_items=True)
    replica = bench.ready()
    large = bytes(WINDOW_BYTES + 1)
    for _ in range(2):
        bench.scheduler.on_item(replica, Item(call.serial, "binary"), large, bench.now)
        bench.scheduler.on_more(call, 1)
    bench.scheduler.on_item(replica, Item(call.serial, "binary"), large, bench.now)
    assert not replica.doom
    bench.scheduler.on_item(replica, Item(call.serial, "binary"), b"1", bench.now)
    assert replica.doom == "protocol"


def test_a_replica_that_floods_with_reports_is_ended_and_one_that_goes_on_for_long_is_not():
    bench = Bench()
    call = bench.call(wants_items=True)
    replica = bench.ready()
    report = Progress(call.serial, 0.5)
    for _ in range(600):
        bench.now += 0.05
        bench.scheduler.on_item(replica, report, b"", bench.now)
    assert not replica.doom
    for _ in range(2000):
        bench.scheduler.on_item(replica, report, b"", bench.now)
    assert replica.doom == "protocol"


def test_items_for_a_caller_who_wants_none_are_strays():
    bench = Bench()
    call = bench.call()
    replica = bench.ready()
    for _ in range(MAX_STRAYS + 1):
        bench.scheduler.on_item(replica, Item(call.serial, "json"), b"1", bench.now)
    assert replica.doom == "protocol" and not bench.effects.told_callers


def test_a_caller_who_streams_hears_why_it_waits_until_it_is_served():
    bench = Bench()
    bench.version.start_s = 4.0
    first, second = bench.call(wants_items=True), bench.call(wants_items=True)
    heard = [(call, message) for call, message, _ in bench.effects.told_callers]
    assert heard == [
        (first, Waiting(first.call.id, "starting", 0, 4.0)), (second, Waiting(second.call.id, "starting", 1, 4.0))
    ]  # fmt: skip
    bench.advance(1.5)
    assert [call for call, _, _ in bench.effects.told_callers] == [first, second, first, second]
    bench.ready()
    bench.advance(1.5)
    assert [call for call, _, _ in bench.effects.told_callers][4:] == [second, second]


def test_kept_versions_have_their_replicas_without_calls_and_keep_them_when_idle():
    bench = Bench(idle_s=10.0)
    version = bench.scheduler.define(python_version("/code", key="kept", scaling=Scaling(min_replicas=2)))
    bench.scheduler.on_keep(["kept", "nobody knows this one"], bench.now)
    first = bench.ready()
    second = bench.ready()
    assert first is not second and len(bench.effects.started) == 2
    bench.advance(1000)
    assert version.ready == [first, second] and not bench.effects.killed
    bench.exit(first)
    bench.advance(1)
    assert len(bench.effects.started) == 3, "a kept one that died is replaced, after the pause that all have"
    bench.ready()
    bench.scheduler.on_keep([], bench.now)
    bench.advance(1000)
    assert not version.ready


def test_what_an_owner_keeps_is_bounded():
    bench = Bench(max_kept_per_owner=3)
    for key in ("a", "b", "c"):
        bench.scheduler.define(python_version("/code", key=key, scaling=Scaling(min_replicas=2)))
    bench.scheduler.on_keep(["a", "b", "c"], bench.now)
    for replica in bench.effects.started:  # grows while they become ready
        bench.ready(replica)
    started = [replica.version.spec.key for replica in bench.effects.started]
    assert sorted(started) == ["a", "a", "b"]


def test_an_author_chooses_how_many_and_how_long_within_the_operators_limits():
    bench = Bench(max_replicas=3, max_idle_s=100.0)
    scaling = Scaling(max_replicas=9, idle_s=500.0)
    version = bench.scheduler.define(python_version("/code", key="busy", scaling=scaling))
    for _ in range(20):
        bench.call(version)
    for replica in bench.effects.started:
        bench.ready(replica)
        bench.advance(1)
    assert len(bench.effects.started) == 3
    for replica in bench.effects.started:
        while replica.in_flight:
            bench.reply(next(iter(replica.in_flight.values())))
    bench.advance(99)
    assert not bench.effects.killed
    bench.advance(2)
    assert len(bench.effects.killed) == 3


def test_calls_that_wait_for_calls_of_their_own_version_find_a_replica():
    """Both replicas hold calls that wait for calls below them, three levels deep."""
    bench = Bench()
    bench.call(), bench.call()
    for replica in bench.effects.started:
        bench.ready(replica)
        bench.advance(1)
    assert len(bench.effects.started) == 2
    outer = bench.call(payer="b")
    chain = []
    for depth in (1, 2, 3):
        chain.append(bench.call(depth=depth))
        bench.ready()
        assert chain[-1].replica is not None, f"depth {depth} has a replica"
        assert chain[-1].replica.min_depth == depth
    assert outer.replica is None, "calls from outside do not get what is kept for those inside"
    for call in reversed(chain):
        bench.reply(call)
    assert outer.replica is None
    num_started = len(bench.effects.started)
    again = bench.call(depth=1)
    assert again.replica is not None and again.replica.min_depth, "one that is kept for such calls is used again"
    assert len(bench.effects.started) == num_started


def test_an_inner_call_goes_before_its_payers_others_and_not_before_those_of_other_payers():
    bench = Bench(replicas=1)
    running = bench.call()
    bench.ready()
    mine, theirs, inner = bench.call(payer="a"), bench.call(payer="b"), bench.call(payer="a", depth=1)
    replica = bench.effects.started[0]
    bench.reply(running)
    assert list(replica.in_flight.values()) == [inner, theirs, mine]


def test_one_payers_crashes_pause_that_payer_alone():
    bench = Bench()
    for _ in range(3):
        bench.call(payer="poison")
        replica = bench.ready()
        bench.exit(replica)
    assert bench.code_of(bench.call(payer="poison")) == "unavailable"
    fine = bench.call(payer="b")
    bench.ready()
    bench.reply(fine)
    assert isinstance(bench.answer_of(fine), Result)
    bench.advance(1)
    assert bench.answer_of(bench.call(payer="poison")) is None, "after the pause it may try again"


def test_a_crash_of_somebody_long_ago_does_not_make_one_payers_crashes_everybodys():
    bench = Bench()
    for payer in ("b", "poison", "poison", "poison"):
        bench.call(payer=payer)
        bench.exit(bench.ready())
        if payer == "b":
            for succeeds in "cb":
                call = bench.call(payer=succeeds)
                if succeeds == "c":
                    bench.ready()
                bench.reply(call)
            bench.exit(bench.scheduler.versions[bench.version.spec.key].ready[0])
    assert bench.code_of(bench.call(payer="poison")) == "unavailable"
    assert bench.answer_of(bench.call(payer="c")) is None, "others are not turned away"


def test_a_version_that_crashes_for_several_payers_backs_off_and_says_so():
    bench = Bench()
    for payer in "abc":
        bench.call(payer=payer)
        bench.exit(bench.ready())
    answer = bench.answer_of(bench.call(payer="d"))
    assert isinstance(answer, Refusal) and answer.retriable and "call after call" in answer.message
    assert bench.effects.pauses and bench.effects.pauses[-1][2] > 0
    bench.advance(1)
    bench.call(payer="d")
    assert bench.effects.started[-1].phase == "starting"


def test_a_draining_host_refuses_what_comes_and_answers_what_it_has():
    bench = Bench()
    running, waiting = bench.call(), bench.call()
    bench.ready()
    bench.scheduler.on_drain()
    assert bench.code_of(bench.call()) == "draining"
    bench.reply(running)
    bench.reply(waiting)
    assert isinstance(bench.answer_of(waiting), Result) and bench.scheduler.num_open == 0
    bench.scheduler.on_drained(bench.now)
    assert bench.effects.killed == bench.effects.started


def test_replicas_with_a_stale_mount_are_replaced_after_their_calls():
    bench = Bench()
    call = bench.call()
    replica = bench.ready()
    bench.scheduler.retire(bench.version, "stale", bench.now)
    assert not bench.effects.killed
    bench.reply(call)
    assert bench.effects.killed == [replica]
    bench.call()
    assert len(bench.effects.started) == 2


def test_a_replica_with_concurrency_gets_as_many_calls_and_all_of_them_count_as_begun():
    bench = Bench()
    version = bench.define("wide", concurrency=3)
    calls = [bench.call(version) for _ in range(4)]
    replica = bench.ready()
    assert len(replica.in_flight) == 3
    bench.exit(replica)
    assert [bench.code_of(call) for call in calls] == ["crashed"] * 3 + [None]


def test_when_memory_is_short_the_longest_idle_replica_makes_room_and_none_that_is_kept():
    bench = Bench()
    kept = bench.scheduler.define(python_version("/code", key="kept", scaling=Scaling(min_replicas=1)))
    bench.scheduler.on_keep(["kept"], bench.now)
    bench.ready()
    idle = []
    for key in ("a", "b"):
        call = bench.call(bench.define(key))
        idle.append(bench.ready())
        bench.reply(call)
        bench.now += 1
    bench.scheduler.fleet.end_longest_idle()
    assert bench.effects.killed == idle[:1]
    bench.scheduler.fleet.end_longest_idle()
    bench.scheduler.fleet.end_longest_idle()
    assert bench.effects.killed == idle and kept.ready
