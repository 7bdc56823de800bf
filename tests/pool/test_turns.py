"""Each payer gets the same share of the devices' time, however much it asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.scheduling import turns as turns_module
from serai_gpu_pool.scheduling.turns import Turns


def served(turns: Turns, *payers: str) -> str:
    """Whoever of these is furthest behind."""
    return min(payers, key=lambda one: (turns.clock(one), one))


def test_time_is_shared_equally_whatever_a_turn_costs():
    turns, had = Turns(), {"slow": 0.0, "quick": 0.0}
    for payer in had:
        turns.joined(payer, 1.0)
    for _ in range(1000):
        payer = served(turns, *had)
        seconds = 0.1 if payer == "slow" else 0.01
        turns.charge(payer, seconds)
        had[payer] += seconds
    assert had["slow"] == pytest.approx(had["quick"], abs=0.11)


def test_who_was_away_is_next_but_gets_nothing_back_for_the_time_before():
    turns = Turns()
    turns.joined("busy", 1.0)
    for _ in range(100):
        turns.charge("busy", 1.0)
    turns.joined("new", 1.0)
    order = []
    for _ in range(60):
        order.append(served(turns, "busy", "new"))
        turns.charge(order[-1], 1.0)
    assert order[0] == "new" and 29 <= order.count("new") <= 31


def test_what_is_under_way_counts_and_is_put_right_when_it_is_known():
    turns = Turns()
    for payer in ("a", "b"):
        turns.joined(payer, 1.0)
    turns.charge("a", 1.0)
    assert served(turns, "a", "b") == "b", "before a's item has ended"
    turns.charge("b", 0.5)
    turns.correct("a", -0.9)
    assert served(turns, "a", "b") == "a", "it was quicker than that"
    turns.correct("nobody", 5.0)
    assert turns.clock("nobody") == turns.clock("somebody")


def test_a_few_small_calls_of_who_was_away_are_not_torn_apart_but_that_is_no_way_to_get_more():
    turns = Turns()
    turns.joined("heavy", 1.0)
    for _ in range(100):
        turns.charge("heavy", 0.02)
    order: list[str] = []
    for _ in range(200):
        turns.joined("light", 0.005)
        order.append(served(turns, "light", "heavy"))
        turns.charge(order[-1], 0.005 if order[-1] == "light" else 0.02)
        turns.left("light", 0.005)
    assert order[:4] == ["light"] * 4
    assert order.count("light") == pytest.approx(160, abs=6), "four small ones for one large, in the end"


def test_a_ticket_waits_for_its_own_and_for_the_share_of_others_meanwhile():
    turns = Turns()
    for _ in range(10):
        turns.joined("crowd", 1.0)
    turns.joined("me", 1.0)
    assert turns.ahead_s("me", 1.0) == pytest.approx(3.0), "one of mine, and two turns of the crowd's"
    assert turns.ahead_s("crowd", 1.0) == pytest.approx(11.0), "ten of its own, and all that is mine"
    assert turns.ahead_s("somebody", 1.0) == pytest.approx(2.0), "one turn of each of the others"


def test_payers_that_are_done_are_forgotten_and_those_that_wait_are_not():
    turns = Turns()
    turns.joined("patient", 1.0)
    for number in range(5000):
        payer = f"p{number}"
        turns.joined(payer, 0.1)
        turns.left(payer, 0.1)
        turns.charge(payer, 0.1)
    turns.charge("patient", 0.1)
    assert len(turns._clock) <= 2 * turns_module._MAX_IDLE + 2 and "patient" in turns._clock
    assert turns.total_backlog_s == pytest.approx(1.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1e6))))
def test_the_backlog_is_what_waits_and_nothing_when_nobody_waits(steps):
    turns = Turns()
    waiting: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for payer, joins, cost in steps:
        if joins:
            turns.joined(payer, cost)
            waiting[payer].append(cost)
        elif waiting[payer]:
            turns.left(payer, waiting[payer].pop(0))
            turns.charge(payer, cost)
        assert turns.total_backlog_s == pytest.approx(sum(map(sum, waiting.values())), abs=1e-3)
        assert all(turns.ahead_s(one, 1.0) >= -1e-3 for one in "abcd")
    for payer, costs in waiting.items():
        for cost in costs:
            turns.left(payer, cost)
    assert turns.total_backlog_s == 0
