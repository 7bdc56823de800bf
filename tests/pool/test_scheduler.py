"""The scheduler's decisions, driven by hand with a clock of our own."""

import pytest

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.batching import BatchLimits
from serai_gpu_pool.core import Broken, LoadFailure, Outcome, Refused, Ticket
from serai_gpu_pool.scheduler import Scheduler
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.testing.fakes import RecordedEffects

MIB = 1 << 20


class Bench:
    """A scheduler with a worker that is up, and short ways to say what happens to it."""

    def __init__(self, budget: int = 100 * MIB, **limits):
        self.effects = RecordedEffects()
        self.scheduler = Scheduler(budget, Limits(**limits), self.effects)
        self.now = 1000.0
        self.last = 0
        self.scheduler.on_worker_ready(self.now)

    def call(self, name: str, size: int = 10 * MIB, payer: str = "p", timeout: float = 60.0) -> Ticket:
        self.last += 1
        ticket = Ticket(self.last, name, payer, self.now + timeout, b"input")
        self.scheduler.on_call(ticket, ModelSpec(name, name, "/nowhere", "onnx", size), self.now)
        return ticket

    def advance(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.scheduler.on_time(self.now)
        self.scheduler.advance(self.now)
        self.scheduler.residency.ledger.check_integrity()

    def loaded(self, name: str, size: int = 10 * MIB, load_s: float = 0.01) -> None:
        self.scheduler.on_loaded(name, size, load_s, self.now)
        self.advance()

    def done(self, at: int = -1, duration: float = 0.001) -> None:
        batch = self.effects.batches[at]
        results = [(Outcome(0), b"") for _ in batch.tickets]
        self.scheduler.on_batch_done(batch.id, results, duration, self.now)
        self.advance()

    def lost(self, reason: str = "signal 9") -> None:
        self.scheduler.on_worker_lost(reason, self.now)
        self.scheduler.on_worker_ready(self.now)
        self.advance()

    def serve(self, name: str, **more) -> Ticket:
        """A call of a model from cold to its end."""
        ticket = self.call(name, **more)
        self.advance()
        self.loaded(name)
        self.done()
        assert self.effects.ends[ticket].kind == "ok"
        return ticket

    def end(self, ticket: Ticket):
        return self.effects.ends.get(ticket)


def test_many_calls_of_a_cold_model_cause_one_load_and_leave_as_one_batch():
    bench = Bench()
    for _ in range(50):
        bench.call("m")
    bench.advance()
    assert len(bench.effects.loads) == 1
    bench.advance(0.5)
    assert len(bench.effects.loads) == 1
    bench.loaded("m")
    assert [len(batch.tickets) for batch in bench.effects.batches] == [50]


def test_a_free_device_takes_what_is_there_and_a_busy_one_lets_the_queue_grow():
    bench = Bench(depth=1)
    bench.serve("m")
    bench.effects.batches.clear()
    bench.call("m")
    bench.advance()
    for _ in range(7):
        bench.call("m")
        bench.advance()
    assert [len(batch.tickets) for batch in bench.effects.batches] == [1]
    bench.done()
    assert [len(batch.tickets) for batch in bench.effects.batches] == [1, 7]


def test_a_second_batch_waits_at_the_device_and_a_third_does_not():
    bench = Bench(batch=BatchLimits(max_items=1))
    bench.serve("m")
    bench.effects.batches.clear()
    for _ in range(3):
        bench.call("m")
    bench.advance()
    assert len(bench.effects.batches) == 2


def test_models_take_turns_at_the_device():
    bench = Bench(depth=1, batch=BatchLimits(max_items=1))
    for name in "ab":
        bench.serve(name)
    bench.effects.batches.clear()
    for name in "aaabbb":
        bench.call(name)
    bench.advance()
    for _ in range(5):
        bench.done()
    assert "".join(batch.model for batch in bench.effects.batches) == "ababab"


def test_the_least_recently_used_model_goes_for_a_new_one():
    bench = Bench(budget=75 * MIB)
    for name in "ab":
        bench.serve(name, size=5 * MIB)
        bench.advance(1)
    bench.call("c", size=30 * MIB)
    bench.advance()
    assert bench.effects.drops == ["a"]
    assert [spec.name for spec in bench.effects.loads] == ["a", "b"], "not before the device says that it is free"
    bench.scheduler.on_dropped("a", bench.now)
    bench.advance()
    assert [spec.name for spec in bench.effects.loads] == ["a", "b", "c"]


def test_a_leased_model_is_not_evicted_while_patience_lasts_and_goes_after_its_batch_then():
    bench = Bench(budget=24 * MIB, patience_s=0.1)
    bench.serve("a")
    bench.advance(1)
    running = bench.call("a")
    bench.advance()
    waiting = bench.call("b")
    bench.advance()
    assert bench.effects.drops == []
    bench.advance(0.2)
    late = bench.call("a")
    bench.advance()
    assert bench.effects.drops == [], "it is leased"
    bench.done()
    assert bench.end(running).kind == "ok"
    assert bench.effects.drops == ["a"]
    bench.scheduler.on_dropped("a", bench.now)
    bench.advance()
    bench.loaded("b")
    bench.done()
    assert bench.end(waiting).kind == "ok"
    assert bench.end(late) is None, "it waits for its model to come back"


def test_a_busy_model_cannot_keep_another_one_out_for_ever():
    bench = Bench(budget=24 * MIB, patience_s=0.1)
    bench.serve("a")
    waiting = bench.call("b")
    for _ in range(100):
        bench.call("a")
        bench.advance(0.01)
        if bench.effects.drops:
            break
        bench.done()
    else:
        pytest.fail("never evicted")
    assert bench.end(waiting) is None


def test_a_model_stays_for_its_minimum_residence():
    bench = Bench(budget=24 * MIB, patience_s=0.0, min_residence_loads=1.0)
    bench.call("a")
    bench.advance()
    bench.loaded("a", load_s=2.0)
    bench.done()
    bench.call("b")
    bench.advance(1.0)
    assert bench.effects.drops == []
    assert bench.scheduler.next_wakeup() == pytest.approx(1002.0)
    bench.advance(1.0)
    assert bench.effects.drops == ["a"]


def test_a_model_larger_than_the_budget_is_refused_with_both_numbers():
    bench = Bench(budget=24 * MIB)
    end = bench.end(bench.call("huge", size=25 * MIB))
    assert isinstance(end, Refused) and end.code == "too_large"
    assert str(25 * MIB) in end.message and str(24 * MIB) in end.message


def test_a_model_that_turns_out_larger_than_the_budget_goes_again_and_is_remembered():
    bench = Bench(budget=24 * MIB)
    ticket = bench.call("m")
    bench.advance()
    bench.loaded("m", size=30 * MIB)
    assert bench.end(ticket).code == "too_large"
    assert bench.effects.drops == ["m"]
    bench.scheduler.on_dropped("m", bench.now)
    assert bench.end(bench.call("m")).code == "too_large"
    assert len(bench.effects.loads) == 1


def test_a_model_that_turns_out_larger_than_thought_makes_others_go():
    bench = Bench(budget=60 * MIB)
    bench.serve("a", size=10 * MIB)
    bench.advance(1)
    bench.call("b", size=10 * MIB)
    bench.advance()
    bench.loaded("b", size=55 * MIB)
    assert bench.effects.drops == ["a"]


def test_a_full_queue_refuses_with_a_time_to_come_back():
    bench = Bench(max_queued=3)
    for _ in range(3):
        bench.call("m")
    end = bench.end(bench.call("m"))
    assert end.code == "busy" and end.retriable and end.retry_after_s > 0


def test_too_many_bytes_of_input_are_refused():
    bench = Bench(max_queued_bytes=12)
    bench.call("a")
    bench.call("b")
    assert bench.end(bench.call("c")).code == "busy"


def test_a_call_that_would_wait_past_its_deadline_is_refused_at_once():
    bench = Bench()
    bench.call("m")
    bench.advance()
    bench.loaded("m")
    bench.done(duration=1.0)
    for _ in range(5):
        bench.call("m")
    assert bench.end(bench.call("m", timeout=2.0)).code == "busy"
    assert bench.end(bench.call("m", timeout=20.0)) is None


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), -float("inf")])
def test_a_deadline_in_the_past_is_refused_at_once(timeout):
    bench = Bench()
    assert bench.end(bench.call("m", timeout=timeout)).code == "deadline"
    assert bench.scheduler.num_live == 0


def test_a_queued_call_is_told_when_its_deadline_passes_and_its_model_is_not_loaded_for_it():
    bench = Bench(budget=40 * MIB)
    bench.call("a")
    bench.advance()
    ticket = bench.call("b", timeout=1.0)
    assert bench.scheduler.next_wakeup() == bench.now + 1.0
    bench.advance(1.0)
    assert bench.end(ticket).code == "deadline"
    bench.loaded("a")
    bench.done()
    assert [spec.name for spec in bench.effects.loads] == ["a"]


def test_a_cancelled_call_ends_silently_wherever_it_is():
    bench = Bench()
    first, second = bench.call("m"), bench.call("m")
    bench.scheduler.on_cancel(first)
    bench.advance()
    bench.loaded("m")
    bench.scheduler.on_cancel(second)
    bench.done()
    assert bench.effects.ends == {} and bench.scheduler.num_live == 0
    assert [len(batch.tickets) for batch in bench.effects.batches] == [1]


def test_a_lost_worker_fails_what_ran_and_repeats_what_only_waited():
    bench = Bench(batch=BatchLimits(max_items=1))
    bench.serve("m")
    ran, waited = bench.call("m"), bench.call("m")
    bench.advance()
    bench.lost()
    assert bench.end(ran).code == "crashed" and bench.end(ran).retriable
    assert bench.end(waited) is None
    assert [spec.name for spec in bench.effects.loads] == ["m", "m"]
    bench.loaded("m")
    bench.done()
    assert bench.end(waited).kind == "ok"


def test_a_hung_run_costs_its_callers_a_deadline_and_only_its_model_a_strike():
    bench = Bench(run_timeout_s=30.0, batch=BatchLimits(max_items=1))
    for name in "ab":
        bench.serve(name)
    hung, other = bench.call("a", timeout=200), bench.call("b", timeout=200)
    bench.advance()
    assert bench.scheduler.next_wakeup() == bench.now + 30.0
    bench.advance(30.0)
    assert bench.effects.kills == ["a run took longer than 30 s"]
    bench.advance(1.0)
    assert len(bench.effects.kills) == 1, "killed once"
    bench.lost("killed")
    assert bench.end(hung).code == "deadline" and not bench.end(hung).retriable
    assert bench.end(other) is None


def test_the_second_batch_has_its_whole_time_after_the_first():
    bench = Bench(run_timeout_s=30.0, batch=BatchLimits(max_items=1))
    bench.serve("a")
    bench.call("a", timeout=200), bench.call("a", timeout=200)
    bench.advance()
    bench.advance(20.0)
    bench.done(-2)
    bench.advance(20.0)
    assert bench.effects.kills == []
    bench.advance(10.0)
    assert len(bench.effects.kills) == 1


def test_a_hung_load_is_ended_too():
    bench = Bench(load_timeout_s=60.0)
    ticket = bench.call("a", timeout=200)
    bench.advance()
    bench.advance(60.0)
    assert bench.effects.kills == ["a load took longer than 60 s"]
    bench.lost("killed")
    assert bench.end(ticket) is None and len(bench.effects.loads) == 2, "not started: tried again"


def test_three_crashes_lock_a_model_out_for_a_while_and_others_go_on():
    bench = Bench()
    for _ in range(3):
        bench.call("bad")
        bench.advance()
        bench.loaded("bad")
        bench.lost("signal 11")
    end = bench.end(bench.call("bad"))
    assert end.code == "unavailable" and "signal 11" in end.message and 599 < end.retry_after_s <= 600
    bench.serve("good")
    bench.advance(600.0)
    assert bench.end(bench.call("bad")) is None


def test_a_broken_model_fails_its_callers_and_is_tried_again_later_and_later():
    bench = Bench(retry_load_s=1.0)
    for attempt in range(3):
        ticket = bench.call("m")
        bench.advance()
        assert len(bench.effects.loads) == attempt + 1
        bench.scheduler.on_load_failed("m", LoadFailure("broken", "no good"), bench.now)
        assert bench.end(ticket) == Broken("no good")
        assert bench.end(bench.call("m")) == Broken("no good"), "without another load"
        bench.advance(2.0**attempt)


def test_a_damaged_file_is_our_fault():
    bench = Bench()
    ticket = bench.call("m")
    bench.advance()
    bench.scheduler.on_load_failed("m", LoadFailure("damaged", "checksum"), bench.now)
    assert bench.end(ticket).code == "unavailable"


def test_a_draining_pool_refuses_what_comes_and_finishes_what_is_there():
    bench = Bench()
    before = bench.call("m")
    bench.scheduler.on_drain()
    assert bench.end(bench.call("m")).code == "draining"
    bench.advance()
    bench.loaded("m")
    bench.done()
    assert bench.end(before).kind == "ok" and bench.scheduler.num_live == 0


def test_a_worker_that_cannot_be_started_is_told_to_those_who_wait_until_one_is_there():
    bench = Bench()
    bench.scheduler.on_worker_lost("exit code 1", bench.now)
    ticket = bench.call("m")
    bench.scheduler.on_start_failed("exit code 1")
    assert bench.end(ticket).code == "unavailable" and "exit code 1" in bench.end(ticket).message
    assert bench.end(bench.call("m")).code == "unavailable"
    bench.scheduler.on_worker_ready(bench.now)
    assert bench.end(bench.call("m")) is None


def test_late_and_forged_answers_of_a_worker_are_dropped():
    bench = Bench()
    bench.serve("m")
    bench.scheduler.on_loaded("m", 1, 0.1, bench.now)
    bench.scheduler.on_loaded("never", 1, 0.1, bench.now)
    bench.scheduler.on_dropped("m", bench.now)
    bench.scheduler.on_load_failed("m", LoadFailure("broken", ""), bench.now)
    bench.scheduler.on_batch_done(77, [], 0.1, bench.now)
    bench.advance()
    assert bench.scheduler.counts.ignored_messages == 5


def test_a_worker_that_answers_with_the_wrong_number_of_results_is_ended():
    bench = Bench()
    bench.call("m"), bench.call("m")
    bench.advance()
    bench.loaded("m")
    bench.scheduler.on_batch_done(bench.effects.batches[0].id, [(Outcome(0), b"")], 0.1, bench.now)
    assert len(bench.effects.kills) == 1
