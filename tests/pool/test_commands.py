"""What operators ask of single models: done when it is so, and otherwise they are told why it cannot be."""

from serai_gpu_pool.core import Broken, Refused
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.testing.bench import MIB, Bench


def test_a_model_is_loaded_without_a_call_and_the_order_is_settled_when_it_is_there():
    bench = Bench()
    order = bench.order("m", "load")
    bench.advance()
    assert bench.effects.loads == [(bench.worker(), "m")] and not bench.settled
    bench.loaded("m")
    assert bench.settled == {order.id: None}
    bench.order("m", "load")
    bench.advance()
    assert len(bench.settled) == 2 and len(bench.effects.loads) == 1, "it is there already"


def test_a_pinned_model_is_loaded_and_stays_until_it_is_unpinned():
    bench = Bench(budget=30)
    bench.order("a", "pin")
    bench.advance()
    bench.loaded("a")
    bench.advance(100)
    refused = bench.end(bench.call("b", size=22))
    assert refused.code == "unavailable" and refused.retriable and "pinned hold 10 MiB" in refused.message
    order = bench.order("b", "pin", size=22)
    bench.advance(10)
    assert bench.settled[order.id] == refused and not bench.effects.gone
    bench.order("a", "unpin")
    bench.call("b", size=22)
    bench.advance()
    assert bench.effects.gone == ["a"]


def test_a_run_beside_pinned_models_gets_what_they_leave_and_does_not_wait_for_more():
    bench = Bench(budget=30)
    bench.resident("m")
    bench.scheduler.models["m"].activation_bytes[1] = 15 * MIB
    for name in ("a", "b"):
        bench.order(name, "pin", size=4)
        bench.advance()
        bench.loaded(name, size=8)
    waits = bench.call("m")
    bench.advance()
    (batch,) = bench.effects.batches
    assert batch.tickets == [waits] and batch.activation_bytes == 4 * MIB


def test_a_pinned_model_comes_back_after_its_worker_was_lost():
    bench = Bench()
    bench.order("m", "pin")
    bench.advance()
    bench.loaded("m")
    bench.lost()
    bench.effects.loads.clear()
    bench.ready()
    assert bench.effects.loads == [(bench.worker(), "m")]


def test_a_pinned_model_that_cannot_be_loaded_is_tried_again_later_and_not_at_once():
    bench = Bench(retry_load_s=1.0)
    bench.order("m", "pin")
    bench.advance()
    bench.loaded("m")
    bench.lost()
    bench.ready()
    bench.load_failed("m", "damaged")
    assert len(bench.effects.loads) == 2
    assert bench.scheduler.next_wakeup(bench.now) == bench.now + 1.0
    bench.advance(1.0)
    assert len(bench.effects.loads) == 3


def test_a_pinned_model_that_ends_its_worker_is_not_loaded_for_ever():
    bench = Bench()
    bench.order("bad", "pin", timeout=10_000)
    for _ in range(3):
        bench.advance()
        assert bench.effects.loads.pop() == (bench.worker(), "bad")
        bench.lost("signal 11")
        bench.ready()
    bench.advance()
    assert not bench.effects.loads
    assert "signal 11" in bench.settled[1].message


def test_an_unload_waits_for_the_batch_that_runs_and_calls_may_bring_the_model_back():
    bench = Bench()
    bench.resident("m")
    running = bench.call("m")
    bench.advance()
    order = bench.order("m", "unload")
    bench.advance()
    late = bench.call("m")
    bench.advance()
    bench.done()
    assert bench.end(running).kind == "ok" and bench.effects.gone == ["m"] and not bench.settled
    bench.left("m")
    assert bench.settled == {order.id: None}
    assert bench.effects.loads[-1][1] == "m" and bench.end(late) is None
    assert bench.scheduler.counts.evictions == {"requested": 1}


def test_what_is_not_in_memory_is_unloaded_already():
    bench = Bench()
    order = bench.order("m", "unload")
    bench.advance()
    assert bench.settled == {order.id: None}


def test_an_order_that_cannot_be_carried_out_in_time_says_so_and_is_forgotten():
    bench = Bench(budget=30, late_s=100.0)
    bench.resident("a")
    bench.call("a")
    bench.advance()
    order = bench.order("b", "pin", size=20, timeout=5.0)
    bench.advance(1.0)
    bench.advance(4.0)
    assert bench.settled[order.id].code == "deadline" and bench.settled[order.id].retriable
    bench.done()
    bench.left("a")
    bench.advance(10)
    assert [key for _, key in bench.effects.loads] == ["a"], "nobody wants b any more"


def test_an_order_for_a_model_that_can_never_be_loaded_is_answered_at_once():
    bench = Bench(budget=30)
    order = bench.order("huge", "load", size=40)
    bench.advance()
    assert bench.settled[order.id].code == "too_large"
    other = bench.order("m", "pin", format="saved_model", owner="ann")
    bench.advance()
    assert bench.settled[other.id].code == "unavailable" and "tensorflow" in bench.settled[other.id].message


def test_an_order_for_a_broken_model_gets_the_reason():
    bench = Bench()
    order = bench.order("m", "load")
    bench.advance()
    bench.load_failed("m", "broken")
    assert bench.settled[order.id] == Broken("no good")


def test_a_pinned_model_that_turns_out_too_large_is_let_go_and_not_wanted_again():
    bench = Bench(budget=30)
    bench.order("m", "pin", timeout=100)
    bench.advance()
    bench.loaded("m", size=50)
    assert bench.effects.gone == ["m"]
    bench.left("m")
    assert isinstance(bench.settled[1], Refused) and bench.settled[1].code == "too_large"
    bench.advance(1000)
    assert len(bench.effects.loads) == 1 and bench.scheduler.next_wakeup(bench.now) is None


def test_a_worker_that_was_started_for_an_order_is_not_taken_for_idle():
    bench = Bench(budget=2000, max_owner_workers=1, frameworks=("torch",))
    bench.order("a", "load", format="torchscript", owner="ann")
    bench.order("b", "load", format="torchscript", owner="ben")
    bench.advance()
    bench.ready(owner="ann")
    bench.advance(1.0)
    assert not bench.effects.kills
    bench.loaded("a", owner="ann")
    assert len(bench.effects.kills) == 1, "now nobody wants it, and ben waits"


# ── what owners may, where others publish the same file ──────────────────────────────────────────────────────


def release(bench: Bench, name: str, owner: str) -> Order:
    order = Order(1000 + len(bench.settled), "release", bench.now + 60, None, owner)
    bench.scheduler.on_order(order, bench.scheduler.models[name].spec, bench.now)
    bench.advance()
    return order


def test_an_owner_releases_a_model_that_nobody_else_uses():
    bench = Bench()
    bench.resident("m")
    order = release(bench, "m", "ann")
    assert bench.effects.gone == ["m"] and not bench.settled
    bench.left("m")
    assert bench.settled == {order.id: None}


def test_what_others_have_used_within_a_minute_is_not_released():
    bench = Bench()
    bench.resident("m")  # called for ann's version
    bench.advance(59.0)
    order = release(bench, "m", "mallory")
    assert bench.settled == {order.id: None} and bench.effects.gone == []
    bench.call("m", caller="mallory")
    bench.advance()
    bench.done()
    release(bench, "m", "mallory")
    assert bench.effects.gone == [], "his own calls make it no less used"
    bench.advance(1.5)
    release(bench, "m", "mallory")
    assert bench.effects.gone == ["m"]


def test_what_is_loaded_for_others_is_not_released_before_it_has_answered_them():
    bench = Bench()
    waits = bench.call("m", caller="ann", payer="q")
    bench.advance()
    order = release(bench, "m", "mallory")
    assert not bench.settled
    bench.loaded("m")
    bench.done()
    assert bench.end(waits).kind == "ok" and bench.effects.gone == []
    assert bench.settled == {order.id: None}
    loads = bench.order("other", "load")  # of whoever: not by mallory
    bench.advance()
    release(bench, "other", "mallory")
    bench.loaded("other")
    assert bench.effects.gone == [] and bench.settled[loads.id] is None


def test_only_an_operator_takes_a_pin_away():
    bench = Bench()
    bench.order("m", "pin")
    bench.advance()
    bench.loaded("m")
    bench.advance(100.0)
    end = bench.settled[release(bench, "m", "mallory").id]
    assert isinstance(end, Refused) and end.code == "invalid" and "operator" in end.message and not end.retriable
    assert bench.scheduler.models["m"].pinned and bench.effects.gone == []
    bench.order("m", "unload")
    bench.advance()
    assert bench.effects.gone == ["m"] and not bench.scheduler.models["m"].pinned
