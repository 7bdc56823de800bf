"""The scheduler's decisions, driven by hand with a clock of our own."""

import pytest

from serai_gpu_pool.core import Broken, LoadFailure, Outcome, Refused
from serai_gpu_pool.scheduling import known
from serai_gpu_pool.scheduling.copies import Residence
from serai_gpu_pool.settings import BatchLimits
from serai_gpu_pool.testing.bench import MIB, Bench

ONE_BY_ONE = BatchLimits(max_items=1)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_calls_of_a_cold_model_cause_one_load_and_grow_into_batches():
    bench = Bench(late_s=10.0)
    for _ in range(50):
        bench.call("m")
        bench.advance()
    bench.advance(0.5)
    assert len(bench.effects.loads) == 1
    bench.loaded("m")
    while bench.work():
        pass
    sizes = [len(batch.tickets) for batch in bench.effects.batches]
    assert sizes[0] == 1 and max(sizes) >= 8 and sum(sizes) == 50 and len(sizes) <= 25


def test_a_free_device_takes_what_is_there_and_a_busy_one_lets_the_queue_grow():
    bench = Bench()
    bench.resident("m", seconds=0.010)
    bench.knows("m", n1=0.010, n2=0.011, n4=0.012, n8=0.014)
    for at in range(8):
        bench.call("m")
        bench.advance(0.0001 * at)
    assert [len(batch.tickets) for batch in bench.effects.batches] == [1], "it is thought to take 10 ms"
    bench.done(seconds=0.010)
    assert [len(batch.tickets) for batch in bench.effects.batches] == [1, 7]


def test_the_next_batch_is_sent_shortly_before_the_last_one_ends_and_no_third():
    bench = Bench(batch=ONE_BY_ONE, lead_s=0.002)
    bench.resident("m", seconds=0.010)
    for _ in range(3):
        bench.call("m")
    bench.advance()
    assert len(bench.effects.batches) == 1
    assert bench.scheduler.next_wakeup(bench.now) == pytest.approx(bench.now + 0.008)
    bench.advance(0.008)
    assert len(bench.effects.batches) == 2
    bench.advance(0.008)
    assert len(bench.effects.batches) == 2


def test_a_batch_that_is_shorter_than_a_timer_is_followed_at_once():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("m", seconds=0.001)
    for _ in range(3):
        bench.call("m")
    bench.advance()
    assert len(bench.effects.batches) == 2


def test_payers_share_the_device_and_one_that_floods_it_delays_only_itself():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("flood", seconds=0.010)
    bench.resident("calm", seconds=0.010)
    for _ in range(20):
        bench.call("flood", payer="greedy")
    bench.advance()
    ticket = bench.call("calm", payer="modest")
    bench.advance()
    bench.done(seconds=0.010)
    assert [batch.model for batch in bench.effects.batches][:2] == ["flood", "calm"]
    bench.done(seconds=0.010)
    assert bench.end(ticket).kind == "ok"


def test_what_a_payer_uses_is_charged_and_the_other_goes_more_often():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("slow", seconds=0.020)
    bench.resident("quick", seconds=0.005)
    for _ in range(30):
        bench.call("slow", payer="a")
        bench.call("quick", payer="b")
    bench.advance()
    for _ in range(20):
        running = next(iter(bench.scheduler.devices["cpu"].running.values()))
        bench.work(seconds=0.020 if running.model == "slow" else 0.005)
    names = [batch.model for batch in bench.effects.batches[:20]]
    assert names.count("quick") >= 3 * names.count("slow") > 0


def test_calls_of_one_payer_go_by_priority():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("m", seconds=0.010)
    bench.call("m")
    bench.advance()
    late, urgent = bench.call("m", priority=3), bench.call("m", priority=-3)
    bench.done(seconds=0.010)
    bench.done(seconds=0.010)
    assert bench.end(urgent).kind == "ok" and bench.end(late) is None


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_least_recently_used_model_goes_for_a_new_one():
    bench = Bench(budget=75)
    for name in "ab":
        bench.resident(name, size=5)
        bench.advance(1)
    bench.call("c", size=33)
    bench.advance()
    assert bench.effects.gone == ["a"]
    assert [key for _, key in bench.effects.loads] == ["a", "b"], "not before the device says that it is free"
    bench.left("a")
    assert [key for _, key in bench.effects.loads] == ["a", "b", "c"]


def test_a_leased_model_is_not_evicted_while_patience_lasts_and_goes_after_its_batch_then():
    bench = Bench(budget=24, patience_s=0.1)
    bench.resident("a")
    bench.advance(1)
    running = bench.call("a")
    bench.advance()
    waiting = bench.call("b")
    bench.advance()
    assert bench.effects.gone == []
    bench.advance(0.2)
    late = bench.call("a")
    bench.advance()
    assert bench.effects.gone == [], "it is leased"
    bench.done()
    assert bench.end(running).kind == "ok"
    assert bench.effects.gone == ["a"]
    bench.left("a")
    bench.loaded("b")
    bench.done()
    assert bench.end(waiting).kind == "ok"
    assert bench.end(late) is None, "it waits for its model to come back"


def test_a_busy_model_cannot_keep_another_one_out_for_ever():
    bench = Bench(budget=24, patience_s=0.1)
    bench.resident("a")
    waiting = bench.call("b")
    for _ in range(100):
        bench.call("a")
        bench.advance(0.01)
        if bench.effects.gone:
            break
        bench.done()
    else:
        pytest.fail("never evicted")
    assert bench.end(waiting) is None


def test_small_models_do_not_keep_a_large_one_out_for_ever():
    bench = Bench(budget=100, patience_s=0.1, min_residence_loads=0.0)
    for number in range(4):
        bench.resident(f"small-{number}", size=9)
    large = bench.call("large", size=45, payer="large")
    for turn in range(200):
        bench.call(f"small-{turn % 12}", size=9, payer=f"p{turn % 3}")
        bench.advance(0.02)
        for key in bench.effects.gone:
            bench.left(key)
        bench.effects.gone.clear()
        for _, key in bench.effects.loads:
            if bench.scheduler.devices["cpu"].copies[key].place.value == "loading":
                bench.loaded(key, size=90 if key == "large" else 9)
        if bench.end(large) is not None:
            break
        bench.work()
    assert bench.end(large) is not None and bench.end(large).kind == "ok"
    assert turn < 60


def test_a_model_stays_for_its_minimum_residence():
    bench = Bench(budget=24, patience_s=0.0, min_residence_loads=1.0)
    bench.resident("a", load_s=2.0)
    bench.call("b")
    bench.advance(1.0)
    assert bench.effects.gone == []
    assert bench.scheduler.next_wakeup(bench.now) == pytest.approx(1002.0)
    bench.advance(1.0)
    assert bench.effects.gone == ["a"]


def test_a_model_that_was_loaded_for_a_call_answers_it_before_it_goes():
    bench = Bench(budget=24, patience_s=0.0, min_residence_loads=0.0)
    first = bench.call("a")
    bench.call("b", payer="q")
    bench.advance(1.0)
    bench.loaded("a")
    assert bench.effects.gone == [] and len(bench.effects.batches) == 1
    bench.done()
    assert bench.end(first).kind == "ok" and bench.effects.gone == ["a"]


def test_a_model_larger_than_the_budget_is_refused_with_both_numbers():
    bench = Bench(budget=24)
    end = bench.end(bench.call("huge", size=25))
    assert isinstance(end, Refused) and end.code == "too_large"
    assert "needs 25 MiB" in end.message and "budget of cpu is 24 MiB" in end.message


def test_a_model_that_turns_out_larger_than_the_budget_goes_again_and_is_remembered():
    bench = Bench(budget=24)
    ticket = bench.call("m")
    bench.advance()
    bench.loaded("m", size=30)
    assert bench.end(ticket).code == "too_large"
    assert bench.effects.gone == ["m"]
    bench.left("m")
    assert bench.end(bench.call("m")).code == "too_large"
    assert len(bench.effects.loads) == 1


def test_a_model_that_turns_out_larger_than_thought_makes_others_go():
    bench = Bench(budget=60)
    bench.resident("a", size=10)
    bench.advance(1)
    bench.call("b", size=10)
    bench.advance()
    bench.loaded("b", size=55)
    assert bench.effects.gone == ["a"]


def test_a_model_that_does_not_fit_beside_pinned_ones_after_all_goes_itself():
    bench = Bench(budget=60)
    bench.order("a", "pin")
    bench.advance()
    bench.loaded("a", size=30)
    waits = bench.call("b", size=10)
    bench.advance(1)
    bench.loaded("b", size=50)
    assert bench.effects.gone == ["b"] and bench.scheduler.counts.evictions == {"too_large": 1}
    bench.left("b")
    bench.call("a")
    bench.advance()
    assert [batch.model for batch in bench.effects.batches] == ["a"], "the device works on"
    assert bench.end(waits).code == "unavailable" and "unpin" in bench.end(waits).message


def test_weights_go_to_the_host_tier_while_it_has_room_and_come_back_from_there():
    bench = Bench(budget=24, host=15)
    bench.call("a")
    bench.advance()
    bench.loaded("a", size=14, pages=True)
    bench.done()
    bench.advance(1)
    bench.call("b")
    bench.advance()
    assert bench.effects.page_outs == [(bench.worker(), "a")]
    bench.left("a", kept=10)
    assert bench.scheduler.host.used == 10 * MIB
    bench.loaded("b", size=14, pages=True)
    bench.done()
    bench.advance(1)
    bench.call("a")
    bench.advance()
    bench.left("b", kept=5)
    assert bench.effects.page_ins == [(bench.worker(), "a")]
    assert bench.effects.closes == []
    bench.loaded("a", size=14, pages=True)
    assert bench.scheduler.host.used == 5 * MIB, "only b is there now"


def test_a_host_tier_over_its_budget_closes_what_was_used_longest_ago_and_no_more():
    bench = Bench(budget=200, host=25)
    for name in "abc":
        bench.resident(name, pages=True)
        bench.advance(1)
    for name in "abc":
        bench.order(name, "unload")
        bench.advance()
        bench.left(name, kept=10)
    assert bench.effects.closes == [(bench.worker(), "a")]
    assert bench.scheduler.host.used == 30 * MIB, "it counts until it has gone"
    bench.left("a")
    assert bench.scheduler.host.used == 20 * MIB


def test_weights_on_a_gpu_are_copies_and_those_in_memory_count_from_the_load_on():
    bench = Bench(devices=2, host=50)
    bench.call("m")
    bench.advance()
    assert bench.effects.loads == [(bench.worker(device="cuda:0"), "m")]
    bench.loaded("m", pages=True, device="cuda:0")
    assert bench.scheduler.host.used == 10 * MIB
    bench.lost(device="cuda:0")
    assert bench.scheduler.host.used == 0
    bench.scheduler.check_integrity()


def test_a_hot_model_is_opened_again_in_its_faster_form_and_each_form_has_times_of_its_own():
    bench = Bench(improve_after=2)
    bench.resident("m", improves=True)
    bench.call("m")
    bench.advance()
    bench.done()
    assert bench.effects.improvements == [(bench.worker(), "m")]
    bench.call("m")
    bench.advance()
    assert len(bench.effects.batches) == 2, "the form that it has answers meanwhile"
    bench.done()
    bench.improved("m", size=20)
    device = bench.scheduler.devices["cpu"]
    assert device.ledger.resident["m"] == 20 * MIB and device.ledger.free == 80 * MIB
    model = bench.scheduler.models["m"]
    first = model.times["cpu"].known
    assert first and model.times_on("cpu").known == {}
    bench.call("m")
    bench.advance()
    bench.done(seconds=0.001)
    assert model.times_on("cpu").known == {1: 0.001} and model.times["cpu"].known == first
    bench.order("m", "unload")
    bench.advance()
    bench.left("m")
    assert model.times_on("cpu").known == {1: 0.001}, "on the host it stays in that form"
    bench.order("m", "unload")
    bench.advance()
    bench.left("m")
    assert model.times_on("cpu").known == first, "it opens in the first form again"


def test_a_worker_that_does_not_give_memory_back_is_replaced_although_calls_wait():
    bench = Bench()
    bench.resident("a")
    bench.resident("b")
    bench.order("a", "unload")
    bench.advance()
    bench.left("a", process=900)
    assert len(bench.effects.kills) == 1 and "accounted for" in bench.effects.kills[0][1]
    ticket = bench.call("b")
    bench.lost("killed")
    bench.ready()
    bench.loaded("b")
    bench.done()
    assert bench.end(ticket).kind == "ok" and bench.scheduler.counts.leaks == 1


# ── out of memory ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_out_of_memory_is_tried_once_more_alone_with_more_set_aside():
    bench = Bench()
    bench.resident("m", seconds=0.010)
    bench.knows("m", n1=0.010, n2=0.011)
    bench.call("m")
    bench.advance()
    tickets = [bench.call("m") for _ in range(2)]
    bench.done(seconds=0.010)
    bench.done(kinds=("OutOfMemoryError", "ok"))
    assert bench.end(tickets[0]) is None and bench.end(tickets[1]).kind == "ok"
    retried = bench.effects.batches[-1]
    assert retried.tickets == [tickets[0]] and retried.activation_bytes >= 8 * MIB
    assert bench.scheduler.counts.out_of_memory == {"run": 1}
    bench.done(kinds=("OutOfMemoryError",))
    assert bench.end(tickets[0]).kind == "OutOfMemoryError"


def test_results_that_found_no_room_beside_others_are_run_again_alone_and_once():
    bench = Bench()
    bench.resident("m", seconds=0.010)
    bench.knows("m", n1=0.010, n3=0.011)
    bench.call("m")
    bench.advance()
    tickets = [bench.call("m") for _ in range(3)]
    bench.done(seconds=0.010)
    bench.done(kinds=("ok", "no_room", "no_room"))
    assert bench.end(tickets[1]) is None and bench.end(tickets[2]) is None
    again = []
    for kind in ("ok", "no_room"):
        again += bench.effects.batches[-1].tickets
        bench.done(kinds=(kind,))
    assert sorted(ticket.id for ticket in again) == [ticket.id for ticket in tickets[1:]], "each by itself"
    assert [bench.end(ticket).kind for ticket in (tickets[0], *again)] == ["ok", "ok", "no_room"]


def test_one_large_input_does_not_shut_out_the_small_ones_after_it():
    bench = Bench(budget=40)
    bench.resident("m")
    for _ in range(6):
        run_out_of_memory(bench, "m")
    small = bench.call("m")
    bench.advance()
    bench.done(peak=1)
    assert bench.end(small).kind == "ok"
    assert bench.effects.batches[-1].activation_bytes == 0, "what a failed run was given says nothing of this one"


def run_out_of_memory(bench: Bench, name: str, payer: str = "p", size: int = 10) -> list[int]:
    """A call that runs out of memory as often as it is tried. MiB that were set aside for its runs."""
    first = len(bench.effects.batches)
    ticket = bench.call(name, size, payer=payer)
    bench.advance()
    for _ in range(2):
        if bench.end(ticket) is None:
            bench.done(kinds=("OutOfMemoryError",))
    assert getattr(bench.end(ticket), "kind", None) == "OutOfMemoryError"
    return [batch.activation_bytes // MIB for batch in bench.effects.batches[first:]]


def test_calls_that_run_out_of_memory_again_and_again_drive_nobody_out():
    bench = Bench(budget=100)
    bench.resident("neighbour", size=60)
    bench.resident("m")
    given = [run_out_of_memory(bench, "m") for _ in range(14)]
    assert given[:3] == [[0, 8], [0, 16], [0, 25]], "one more guess each time, up to a quarter of the device"
    assert given[3:] == [[0]] * 11, "none is made twice"
    assert run_out_of_memory(bench, "m", payer="q") == [0, 8], "what did not help one payer may help another"
    assert bench.effects.gone == []
    honest = bench.call("m", payer="r")
    bench.advance()
    bench.done()
    assert bench.end(honest).kind == "ok" and bench.effects.batches[-1].activation_bytes == 0


def test_others_go_for_a_guess_once_and_not_again_for_a_payer_whom_it_has_not_helped():
    bench = Bench(budget=32, patience_s=0.0)
    bench.resident("m", size=2)
    for name in ("a", "b", "a"):
        bench.call(name, size=6)
        bench.advance(1)
        bench.loaded(name, size=14)
        bench.done()
        if name == "b":
            hopeless = bench.call("m")
            bench.advance(1)
            bench.done(kinds=("OutOfMemoryError",))
            assert bench.effects.gone == ["a"], "8 MiB are wanted where 2 are free"
            bench.left("a")
            bench.done(kinds=("OutOfMemoryError",))
            assert bench.end(hopeless).kind == "OutOfMemoryError"
    assert run_out_of_memory(bench, "m") == [0]
    assert bench.effects.gone == ["a"]


def test_a_run_that_succeeds_with_more_set_aside_is_given_as_much_the_next_time():
    bench = Bench(budget=100)
    bench.resident("m")
    ticket = bench.call("m")
    bench.advance()
    bench.done(kinds=("OutOfMemoryError",))
    assert bench.effects.batches[-1].wants_measure
    bench.done()
    assert bench.end(ticket).kind == "ok"
    bench.call("m")
    bench.advance()
    assert bench.effects.batches[-1].activation_bytes == 8 * MIB
    bench.done(peak=40)
    bench.call("m")
    bench.advance()
    bench.done(kinds=("OutOfMemoryError",))
    assert bench.effects.batches[-1].activation_bytes == 40 * MIB, "more than a quarter, since a run really took it"


def test_what_one_ticket_is_to_have_is_not_set_aside_for_others_and_not_after_it_has_gone():
    bench = Bench(budget=100, batch=ONE_BY_ONE)
    bench.resident("m", seconds=0.010)
    retried = bench.call("m")
    bench.advance()
    other = bench.call("m", payer="q")
    bench.done(seconds=0.010, kinds=("OutOfMemoryError",))
    assert bench.effects.batches[-1].tickets == [other] and bench.effects.batches[-1].activation_bytes == 0
    assert bench.scheduler.models["m"].guessed_bytes == 8 * MIB
    bench.scheduler.on_cancel(retried)
    assert bench.scheduler.models["m"].guessed_bytes == 0
    bench.done()
    assert bench.end(other).kind == "ok"


def test_what_a_run_needs_is_measured_again_and_a_peak_is_forgotten():
    bench = Bench()
    bench.resident("m")
    model = bench.scheduler.models["m"]
    model.activation_bytes[1] = 64 * MIB
    for _ in range(400):
        bench.call("m")
        bench.advance()
        bench.done(peak=1 if bench.effects.batches[-1].wants_measure else 0)
        bench.effects.batches.clear()
    assert model.activation_bytes[1] <= 2 * MIB


def test_a_load_out_of_memory_is_tried_once_more_with_more_room():
    bench = Bench(budget=100)
    ticket = bench.call("m", size=10)
    bench.advance()
    reserved = bench.scheduler.devices["cpu"].ledger.reserved_bytes
    bench.load_failed("m", "memory")
    assert bench.scheduler.devices["cpu"].ledger.reserved_bytes == 2 * reserved
    bench.load_failed("m", "memory", "not enough")
    assert bench.end(ticket).code == "unavailable" and bench.end(ticket).retriable
    assert bench.scheduler.counts.out_of_memory == {"load": 2}


def test_others_go_for_what_a_run_needs_beside_the_weights():
    bench = Bench(budget=100)
    bench.resident("a", size=45)
    bench.advance(1)
    bench.resident("m", size=20)
    bench.scheduler.models["m"].activation_bytes[1] = 50 * MIB
    bench.call("m")
    bench.advance(1)
    assert bench.effects.gone == ["a"] and not bench.effects.batches
    bench.left("a")
    assert [batch.activation_bytes for batch in bench.effects.batches] == [50 * MIB]


# ── who is refused ───────────────────────────────────────────────────────────────────────────────────────────


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
    bench.resident("m", seconds=1.0)
    for _ in range(5):
        bench.call("m")
    end = bench.end(bench.call("m", timeout=2.0))
    assert end.code == "busy" and end.retriable and end.retry_after_s > 2
    assert bench.end(bench.call("m", timeout=20.0)) is None


def test_an_idle_pool_admits_everybody_whatever_it_expects():
    bench = Bench()
    bench.resident("m", seconds=10.0)
    ticket = bench.call("m", timeout=0.5)
    bench.advance()
    bench.done(seconds=0.001)
    assert bench.end(ticket).kind == "ok"


def test_a_wrong_estimate_is_put_right_although_others_keep_the_pool_busy():
    bench = Bench()
    bench.resident("busy", seconds=0.001)
    bench.resident("unlucky", seconds=100.0)
    for _ in range(40):
        bench.call("busy")
        bench.advance()
        ticket = bench.call("unlucky", timeout=1.0, payer="q")
        bench.advance()
        while bench.work():
            pass
        assert bench.end(ticket) is not None and bench.end(ticket).kind == "ok"


def test_several_calls_that_all_seem_hopeless_are_not_all_given_up():
    bench = Bench()
    bench.resident("m", seconds=10.0)
    bench.scheduler.models["m"].times_on("cpu").learn(2, 11.0)
    hasty, patient = bench.call("m", timeout=0.5), bench.call("m", timeout=25.0)
    bench.now += 20.0
    bench.scheduler.advance(bench.now)
    assert bench.end(hasty).code == "deadline"
    assert [batch.tickets for batch in bench.effects.batches] == [[patient]]


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), -float("inf")])
def test_a_deadline_in_the_past_is_refused_at_once(timeout):
    bench = Bench()
    assert bench.end(bench.call("m", timeout=timeout)).code == "deadline"
    assert bench.scheduler.num_live == 0


def test_a_call_without_a_deadline_sets_no_timer():
    bench = Bench()
    bench.call("m", timeout=float("inf"))
    assert bench.scheduler.next_wakeup(bench.now) is None


def test_a_queued_call_is_told_when_its_deadline_passes_and_its_model_is_not_loaded_for_it():
    bench = Bench(budget=40)
    bench.call("a")
    bench.advance()
    ticket = bench.call("b", timeout=0.2)
    assert bench.scheduler.next_wakeup(bench.now) == bench.now + 0.2
    bench.advance(0.2)
    assert bench.end(ticket).code == "deadline"
    bench.loaded("a")
    bench.done()
    assert [key for _, key in bench.effects.loads] == ["a"]


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
    assert bench.effects.batches[0].tickets[0].payload == b"", "nobody reads it any more"


def test_a_draining_pool_refuses_what_comes_and_finishes_what_is_there():
    bench = Bench()
    before = bench.call("m")
    bench.scheduler.on_drain()
    assert bench.end(bench.call("m")).code == "draining"
    bench.advance()
    bench.loaded("m")
    bench.done()
    assert bench.end(before).kind == "ok" and bench.scheduler.num_live == 0


# ── workers that end ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_lost_worker_costs_no_call():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("m")
    ran, waited = bench.call("m"), bench.call("m")
    bench.advance()
    bench.lost()
    assert bench.end(ran) is None and bench.end(waited) is None
    bench.ready()
    bench.loaded("m")
    while bench.work():
        pass
    assert bench.end(ran).kind == bench.end(waited).kind == "ok"
    assert [batch.tickets for batch in bench.effects.batches[-2:]] == [[ran], [waited]], "in their order"


def test_a_poisoned_call_ends_after_its_second_worker_and_its_mates_are_answered():
    bench = Bench()
    bench.resident("m", seconds=0.010)
    bench.knows("m", n1=0.010, n2=0.011)
    bench.call("m")
    bench.advance()
    poisoned, mate = bench.call("m"), bench.call("m")
    bench.done(seconds=0.010)
    bench.lost("signal 11")
    bench.ready()
    bench.loaded("m")
    assert bench.effects.batches[-1].tickets == [poisoned]
    bench.lost("signal 11")
    assert bench.end(poisoned).code == "crashed" and "signal 11" in bench.end(poisoned).message
    bench.ready()
    bench.loaded("m")
    bench.done()
    assert bench.end(mate).kind == "ok"


def test_three_crashes_lock_a_model_out_for_a_while_and_others_go_on():
    bench = Bench()
    for _ in range(3):
        bench.call("bad")
        bench.advance()
        bench.loaded("bad")
        bench.lost("signal 11")
        bench.ready()
    end = bench.end(bench.call("bad"))
    assert end.code == "unavailable" and "signal 11" in end.message and 599 < end.retry_after_s <= 600
    assert bench.end(bench.call("bad", caller="ben")) is None, "another owner's version is not locked out"
    bench.advance(600.0)
    assert bench.end(bench.call("bad")) is None


def crash_three_times(bench, payer):
    for _ in range(3):
        bench.call("bad", payer=payer)
        bench.advance()
        bench.loaded("bad")
        bench.lost("signal 11")
        bench.ready()


def test_one_caller_locks_out_only_itself_and_a_second_one_or_the_author_everybody():
    bench = Bench()
    crash_three_times(bench, "mallory")
    assert bench.end(bench.call("bad", payer="mallory")).code == "unavailable"
    kept = bench.call("bad", payer="bob")
    assert bench.end(kept) is None
    bench.scheduler.on_cancel(kept)
    crash_three_times(bench, "trudy")
    assert bench.end(bench.call("bad", payer="bob")).code == "unavailable"
    own = Bench()
    crash_three_times(own, "ann")
    assert own.end(own.call("bad", payer="bob")).code == "unavailable", "ann is the author of the version"


def test_a_caller_who_fills_a_queue_gives_up_places_to_others():
    bench = Bench(max_queued=4)
    flood = [bench.call("m", payer="flood") for _ in range(5)]
    assert [bench.end(one) is None for one in flood] == [True] * 4 + [False]
    other = bench.call("m", payer="bob")
    assert bench.end(other) is None and bench.end(flood[3]).code == "busy" and bench.end(flood[2]) is None


def test_a_hung_run_costs_its_callers_a_deadline_and_its_neighbours_nothing():
    bench = Bench(run_timeout_s=30.0)
    for name in "ab":
        bench.resident(name)
    hung = bench.call("a", timeout=200)
    bench.advance()
    bench.advance(29.0)
    other = bench.call("b", timeout=200)
    bench.advance()
    assert bench.effects.batches[-1].model == "b", "it runs beside the one that does not end"
    bench.advance(1.0)
    assert bench.effects.kills == [(bench.worker(), "a run took longer than 30 s")]
    bench.advance(1.0)
    assert len(bench.effects.kills) == 1, "killed once"
    bench.lost("killed")
    bench.ready()
    assert bench.end(hung).code == "deadline" and not bench.end(hung).retriable
    bench.loaded("b")
    bench.done()
    assert bench.end(other).kind == "ok"


def test_a_late_batch_does_not_hold_up_others_not_even_the_one_right_behind_it():
    bench = Bench(late_s=0.25)
    for name in "ab":
        bench.resident(name, seconds=0.001)
    bench.call("a", timeout=200)
    bench.advance()
    behind = bench.call("b", payer="q", timeout=200)
    bench.advance()
    first, second = bench.effects.batches
    assert (first.model, second.model, first.lane == second.lane) == ("a", "b", True)
    assert bench.scheduler.next_wakeup(bench.now) == pytest.approx(bench.now + 0.25)
    bench.advance(0.25)
    third = bench.effects.batches[-1]
    assert third.tickets == [behind] and third.lane != first.lane
    bench.done(2)
    assert bench.end(behind).kind == "ok"
    bench.done(1)
    assert bench.scheduler.counts.ignored_messages == 0, "the late answer is one that was asked for"
    ledger = bench.scheduler.devices["cpu"].ledger
    assert ledger.leases("b") == 0 and ledger.leases("a") == 1


def test_a_model_that_is_known_to_be_slow_holds_up_nobody():
    bench = Bench()
    bench.resident("slow", seconds=6.0)
    bench.resident("quick", seconds=0.001)
    for _ in range(3):
        slow = bench.call("slow", payer="mallory")
        bench.advance()
        assert bench.effects.batches[-1].tickets == [slow]
        for _ in range(20):
            bench.advance(0.3)
            ticket = bench.call("quick", payer="victim", timeout=3.0)
            bench.advance()
            assert bench.effects.batches[-1].tickets == [ticket]
            bench.done()
            assert bench.end(ticket).kind == "ok"
        bench.done([batch.tickets for batch in bench.effects.batches].index([slow]), seconds=6.0)
        assert bench.end(slow).kind == "ok"


def test_a_slow_model_with_several_callers_runs_one_after_the_other_and_nothing_twice():
    bench = Bench()
    bench.resident("slow", seconds=2.0)
    bench.resident("quick", seconds=0.001)
    tickets = [bench.call("slow", payer=f"p{number}", timeout=100) for number in range(4)]
    for number in range(4):
        bench.advance()
        assert len(bench.effects.batches) == number + 1, "each begins when the one before it has ended"
        bench.advance(2.0)
        bench.done(seconds=2.0)
    assert all(bench.end(ticket).kind == "ok" for ticket in tickets)
    assert bench.scheduler.counts.retried == bench.scheduler.counts.late_batches == 0
    assert not any(batch.is_disowned for batch in bench.effects.batches)


def test_a_slow_model_gets_its_turn_although_others_always_wait():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("slow", seconds=1.0)
    bench.resident("quick", seconds=0.010)
    slow = [bench.call("slow", payer="s", timeout=100) for _ in range(3)]
    ends_at: dict[int, float] = {}
    until = bench.now + 5.0
    while bench.now < until:
        while len(bench.scheduler.models["quick"].queue) < 2:
            bench.call("quick", payer="q")
        bench.advance(0.010)
        for at, batch in enumerate(bench.effects.batches):
            if batch.model == "slow" and bench.now >= ends_at.setdefault(batch.id, bench.now + 1.0):
                ends_at[batch.id] = float("inf")
                bench.done(at, seconds=1.0)
            elif batch.model == "quick" and bench.end(batch.tickets[0]) is None:
                bench.done(at, seconds=0.010)
    assert [bench.end(ticket) is not None for ticket in slow] == [True] * 3


def test_slow_models_of_many_leave_a_lane_to_those_that_are_quick():
    bench = Bench(budget=200)
    for number in range(6):
        bench.resident(f"slow-{number}", seconds=5.0)
    bench.resident("quick", seconds=0.001)
    for number in range(6):
        bench.call(f"slow-{number}", payer=f"p{number}", timeout=100)
    bench.advance()
    assert len(bench.effects.batches) == 3
    ticket = bench.call("quick", payer="q", timeout=1.0)
    bench.advance()
    assert bench.effects.batches[-1].tickets == [ticket]
    bench.done()
    bench.done(0, seconds=5.0)
    assert len(bench.effects.batches) == 5, "the next slow one has its turn"


def test_a_slow_model_never_waits_inside_of_a_worker_behind_another_nor_another_behind_it():
    bench = Bench(batch=ONE_BY_ONE)
    for name, seconds in (("slow", 2.0), ("medium", 0.4), ("quick", 0.001)):
        bench.resident(name, seconds=seconds)
    bench.call("quick", payer="q")
    bench.advance()
    slow = bench.call("slow", payer="s")
    bench.advance()
    assert len(bench.effects.batches) == 1
    bench.done()
    assert bench.effects.batches[-1].tickets == [slow]
    bench.call("medium", payer="m")
    bench.advance()
    behind = bench.call("quick", payer="q")
    bench.advance(0.399)
    assert [batch.model for batch in bench.effects.batches] == ["quick", "slow", "medium"]
    assert bench.scheduler.next_wakeup(bench.now) == pytest.approx(bench.now + 0.101)
    bench.advance(0.101)
    assert bench.effects.batches[-1].tickets == [behind], "half a second is the longest that anybody has alone"
    assert not any(batch.is_disowned for batch in bench.effects.batches)


def test_slow_models_of_one_author_have_one_lane_on_a_device_in_whichever_worker():
    bench = Bench(budget=2000, frameworks=("torch",))
    for owner in ("evil", "ben"):
        bench.resident("slow", seconds=0.001, owner=owner)
        bench.scheduler.models[f"{owner}/slow"].times_on("cpu").recall(1, 5.0)
    bench.resident("mine", seconds=5.0)
    bench.call("mine", caller="evil", timeout=100)
    bench.advance()
    bench.call("slow", format="torchscript", owner="evil", payer="e", timeout=100)
    bench.call("slow", format="torchscript", owner="ben", payer="b", timeout=100)
    bench.advance()
    assert [batch.model for batch in bench.effects.batches] == ["mine", "ben/slow"]


def test_inputs_of_calls_that_were_passed_on_are_kept_for_the_worker_that_may_still_read_them():
    bench = Bench(late_s=0.25)
    for name in "ab":
        bench.resident(name, seconds=0.001)
    bench.call("a", timeout=200)
    bench.advance()
    behind = bench.call("b", payer="q", payload=b"still read")
    bench.advance()
    bench.advance(0.25)
    bench.done(2)
    assert behind.payload == b"" and bench.effects.batches[1].payloads == [b"still read"]


def test_an_author_whose_model_is_stuck_gets_no_second_lane_and_others_do():
    bench = Bench(late_s=0.25)
    for name in ("stuck", "other"):
        bench.resident(name, seconds=0.001)
    bench.call("stuck", timeout=200)
    bench.advance()
    bench.advance(0.25)
    bench.call("stuck", timeout=200)
    bench.call("other", caller="ben", payer="q", timeout=200)
    bench.advance()
    assert [batch.model for batch in bench.effects.batches] == ["stuck", "other"]


def test_nobody_waits_for_the_memory_of_a_model_that_is_held_by_an_endless_run():
    bench = Bench(budget=60, patience_s=0.1, late_s=0.25)
    bench.resident("endless", size=20)
    bench.resident("idle", size=15)
    bench.call("endless", timeout=200)
    bench.advance(1.0)
    ticket = bench.call("new", size=14, payer="q")
    bench.advance(0.25)
    assert bench.effects.gone == ["idle"]
    bench.left("idle")
    bench.loaded("new")
    bench.done()
    assert bench.end(ticket).kind == "ok"


def test_a_run_that_is_thought_to_be_long_is_still_ended_in_time():
    bench = Bench(run_timeout_s=30.0, late_factor=8.0)
    bench.resident("m", seconds=10.0)
    bench.call("m", timeout=500)
    bench.advance()
    assert bench.scheduler.next_wakeup(bench.now) == bench.now + 30.0
    bench.advance(30.0)
    assert len(bench.effects.kills) == 1


def test_the_second_batch_has_its_whole_time_after_the_first():
    bench = Bench(run_timeout_s=30.0, late_s=100.0, batch=ONE_BY_ONE)
    bench.resident("a")
    bench.call("a", timeout=200), bench.call("a", timeout=200)
    bench.advance()
    bench.advance(20.0)
    bench.done(-2)
    bench.advance(20.0)
    assert bench.effects.kills == []
    bench.advance(10.0)
    assert len(bench.effects.kills) == 1


def test_a_hung_load_holds_up_nobody_and_is_ended_and_three_of_them_are_enough():
    bench = Bench(load_timeout_s=60.0, late_s=0.25)
    bench.call("a", timeout=2000)
    bench.call("b", timeout=2000, payer="q")
    bench.advance()
    bench.advance(0.25)
    assert [key for _, key in bench.effects.loads] == ["a", "b"]
    bench.loaded("b")
    bench.done()
    for _ in range(3):
        bench.advance(60.0)
        assert bench.effects.kills.pop() == (bench.worker(), "a load took longer than 60 s")
        bench.lost("killed")
        bench.ready()
    end = bench.end(bench.call("a"))
    assert end.code == "unavailable" and "3 times" in end.message


def test_a_departure_that_hangs_ends_its_worker():
    bench = Bench(load_timeout_s=60.0)
    bench.resident("a")
    bench.order("a", "unload", timeout=1000)
    bench.advance()
    bench.advance(60.0)
    assert bench.effects.kills == [(bench.worker(), "an eviction took longer than 60 s")]
    bench.lost("killed")
    assert bench.scheduler.devices["cpu"].ledger.free == 100 * MIB


def test_a_suspect_is_loaded_with_nothing_beside_it_although_others_are_always_busy():
    bench = Bench(batch=ONE_BY_ONE)
    bench.resident("busy")
    suspect = bench.call("suspect", timeout=500, payer="q")
    bench.call("busy")
    bench.advance()
    assert bench.effects.loads[-1][1] == "suspect"
    bench.lost()
    bench.ready()
    bench.effects.batches.clear()
    for _ in range(50):
        if bench.end(suspect) is not None:
            break
        bench.call("busy", timeout=500)
        bench.advance(0.001)
        worker = bench.scheduler.devices["cpu"].workers[bench.worker()]
        if worker.loading:
            key = next(iter(worker.loading))
            assert key != "suspect" or not worker.batches
            bench.loaded(key)
        bench.work()
    assert bench.end(suspect).kind == "ok"


def test_a_broken_model_fails_its_callers_and_is_tried_again_later_and_later():
    bench = Bench(retry_load_s=1.0)
    for attempt in range(3):
        ticket = bench.call("m")
        bench.advance()
        assert len(bench.effects.loads) == attempt + 1
        bench.load_failed("m")
        assert bench.end(ticket) == Broken("no good")
        assert bench.end(bench.call("m")) == Broken("no good"), "without another load"
        bench.advance(2.0**attempt)


def test_a_damaged_file_is_our_fault():
    bench = Bench()
    ticket = bench.call("m")
    bench.advance()
    bench.load_failed("m", "damaged", "checksum")
    assert bench.end(ticket).code == "unavailable"


def test_a_worker_that_cannot_be_started_is_told_to_those_who_wait_until_one_is_there():
    bench = Bench()
    bench.lost("exit code 1")
    ticket = bench.call("m")
    for attempt in range(3):
        assert bench.end(ticket) is None and len(bench.effects.starts) == attempt + 2
        bench.start_failed("exit code 1")
        bench.advance(5.0)
    assert bench.end(ticket).code == "unavailable" and "exit code 1" in bench.end(ticket).message
    assert bench.end(bench.call("m")) is None, "by now it may be tried again"
    bench.advance()
    bench.start_failed("exit code 1")
    assert bench.end(bench.call("m")).code == "unavailable"
    bench.advance(5.0)
    bench.call("m")
    bench.advance()
    bench.ready()
    assert bench.effects.loads[-1][1] == "m"


def test_late_and_forged_answers_of_a_worker_are_dropped():
    bench = Bench()
    bench.resident("m")
    scheduler, worker = bench.scheduler, bench.worker()
    scheduler.on_loaded(worker, "m", Residence(1, 1, True, True), 0.1, bench.now)
    scheduler.on_loaded(worker, "never", Residence(1, 1, True, True), 0.1, bench.now)
    scheduler.on_left(worker, "m", 1, 1, bench.now)
    scheduler.on_improved(worker, "m", None, bench.now)
    scheduler.on_load_failed(worker, "m", LoadFailure("broken", ""), bench.now)
    scheduler.on_batch_done(worker, 77, [], 0.1, 0, bench.now)
    bench.advance()
    assert scheduler.counts.ignored_messages == 6


def test_a_worker_that_answers_with_the_wrong_number_of_results_is_ended_once():
    bench = Bench(batch=ONE_BY_ONE)
    bench.call("m"), bench.call("m")
    bench.advance()
    bench.loaded("m")
    for batch in bench.effects.batches:
        bench.scheduler.on_batch_done(batch.worker, batch.id, [(Outcome(0), b"")] * 2, 0.1, 0, bench.now)
    assert len(bench.effects.kills) == 1


# ── workers of single owners ─────────────────────────────────────────────────────────────────────────────────


def test_models_that_are_programs_get_a_worker_of_their_owner_and_it_ends_when_it_is_idle():
    bench = Bench(budget=2000, frameworks=("torch",), worker_idle_s=60.0)
    ticket = bench.call("m", format="torchscript", owner="ann")
    bench.advance()
    assert bench.effects.starts[-1] == bench.worker("ann")
    bench.ready("ann", base=200)
    bench.loaded("m", owner="ann")
    bench.done()
    assert bench.end(ticket).kind == "ok"
    assert bench.scheduler.next_wakeup(bench.now) == bench.now + 60.0
    bench.advance(60.0)
    assert bench.effects.kills == [(bench.worker("ann"), "idle")]
    bench.lost("killed", "ann")
    assert bench.scheduler.devices["cpu"].ledger.free == 2000 * MIB
    assert bench.scheduler.next_wakeup(bench.now) is None


def test_a_worker_with_a_pinned_model_is_never_idle_and_nobody_is_woken_for_it():
    bench = Bench(budget=2000, frameworks=("torch",), worker_idle_s=60.0)
    bench.order("m", "pin", format="torchscript", owner="ann")
    bench.advance()
    bench.ready("ann")
    bench.loaded("m", owner="ann")
    bench.advance(100.0)
    assert not bench.effects.kills and bench.scheduler.next_wakeup(bench.now) is None


def test_an_idle_worker_of_another_owner_makes_room_and_only_one_at_a_time():
    bench = Bench(budget=800, frameworks=("torch",))
    for owner in ("ann", "ben"):
        bench.call("m", format="torchscript", owner=owner)
        bench.advance()
        bench.ready(owner, base=300)
        bench.loaded("m", owner=owner)
        bench.done()
        bench.advance(1.0)
    bench.call("m", format="torchscript", owner="cem")
    for _ in range(5):
        bench.advance(0.1)
    assert [id.owner for id, _ in bench.effects.kills] == ["ann"], "the longest idle, and then we wait for it"


def test_owners_take_turns_when_there_are_more_than_may_have_a_worker():
    bench = Bench(budget=5000, frameworks=("torch",), max_owner_workers=1, batch=ONE_BY_ONE)
    bench.call("m", format="torchscript", owner="busy", timeout=500)
    bench.advance()
    bench.ready("busy")
    bench.loaded("m", owner="busy")
    waits = bench.call("m", format="torchscript", owner="new", timeout=500, payer="q")
    for _ in range(1200):
        bench.call("m", format="torchscript", owner="busy", timeout=500)
        bench.advance(0.01)
        if bench.effects.kills:
            break
        bench.work()
    assert bench.effects.kills == [(bench.worker("busy"), "it had its turn, and others wait")]
    bench.lost("killed", "busy")
    assert bench.effects.starts[-1] == bench.worker("new")
    bench.ready("new")
    bench.loaded("m", owner="new")
    bench.done()
    assert bench.end(waits).kind == "ok"


def test_owners_that_wait_for_a_worker_do_not_hold_up_models_that_share_one():
    bench = Bench(budget=5000, frameworks=("torch",), max_owner_workers=1)
    for number in range(50):
        bench.call("m", format="torchscript", owner=f"owner-{number}", payer=f"p{number}", timeout=500)
        bench.advance()
    bench.call("shared", payer="q")
    bench.advance()
    assert (bench.worker(), "shared") in bench.effects.loads


# ── several devices ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_one_device_cannot_keep_up_with_gets_a_second_copy():
    bench = Bench(devices=2, replicate_s=0.25, batch=ONE_BY_ONE)
    bench.call("m")
    bench.advance()
    first = bench.effects.loads[0][0].device
    bench.loaded("m", device=first)
    bench.done(seconds=0.1)
    for _ in range(5):
        bench.call("m")
    bench.advance()
    assert len(bench.effects.loads) == 2
    second = bench.effects.loads[1][0].device
    assert second != first
    bench.loaded("m", device=second)
    assert {batch.device for batch in bench.effects.batches[1:]} == {first, second}


# ── memory of the scheduler itself ───────────────────────────────────────────────────────────────────────────


def test_models_that_nobody_uses_are_forgotten(monkeypatch):
    monkeypatch.setattr(known, "MAX_KNOWN", 50)
    bench = Bench()
    bench.resident("kept", size=5)
    bench.order("pinned", "pin", size=5)
    bench.advance()
    bench.loaded("pinned", size=5)
    for number in range(200):
        bench.scheduler.on_cancel(bench.call(f"m{number}"))
        bench.advance(1.0)
    scheduler = bench.scheduler
    assert len(scheduler.models) <= 51 and {"kept", "pinned", "m199"} <= set(scheduler.models)
    assert set(scheduler.devices["cpu"].copies) <= set(scheduler.models)


# ── what a worker of an owner says ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("claims", [-(1 << 60), 1 << 60])
def test_a_worker_of_an_owner_that_lies_about_memory_drives_nobody_out(claims):
    bench = Bench(budget=3000, host=500, frameworks=("torch",))
    bench.resident("good", pages=True)
    bench.call("m", format="torchscript", owner="evil")
    bench.advance()
    worker, device = bench.worker("evil"), bench.scheduler.devices["cpu"]
    bench.scheduler.on_worker_ready(worker, claims, claims, bench.now)
    bench.advance()
    assert 0 <= device.ledger.free <= 3000 * MIB
    bench.scheduler.on_loaded(worker, "evil/m", Residence(claims, claims, True, True), 0.1, bench.now)
    bench.advance()
    bench.advance(5.0)
    assert 0 <= device.ledger.free <= 3000 * MIB and bench.scheduler.host.used >= 0
    for batch in bench.effects.batches:
        bench.scheduler.on_batch_done(worker, batch.id, [(Outcome(0), b"")], 0.1, claims, bench.now)
    bench.order("m", "unload", format="torchscript", owner="evil")
    bench.advance()
    bench.scheduler.on_left(worker, "evil/m", claims, claims, bench.now)
    bench.advance()
    assert 0 <= device.ledger.free <= 3000 * MIB and 0 <= bench.scheduler.host.used <= 500 * MIB
    assert not [key for key in bench.effects.gone if key == "good"]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -5.0, 0.0])
def test_a_worker_of_an_owner_that_lies_about_time_pays_for_what_it_took(seconds):
    bench = Bench(budget=3000, frameworks=("torch",), late_s=100.0)
    bench.resident("m", owner="evil", load_s=seconds)
    bench.call("m", format="torchscript", owner="evil", payer="evil")
    bench.advance()
    bench.now += 2.0
    bench.done(seconds=seconds)
    model = bench.scheduler.models["evil/m"]
    assert model.stats.compute_s == pytest.approx(2.0)
    assert model.load_s["disk"] >= 0 and model.times_on("cpu").predict(1) >= 0
    waiting = bench.call("good", payer="good")
    bench.advance()
    bench.loaded("good")
    bench.work()
    assert bench.end(waiting).kind == "ok"
