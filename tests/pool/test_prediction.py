"""When models are expected again."""

import random

import pytest

from serai_gpu_pool.prediction import Predictor, Uses


def uses(*times, load_s=0.1):
    made = Uses()
    for at in times:
        made.add(at, load_s)
    return made


def test_three_calls_at_even_distances_announce_the_fourth():
    predictor = Predictor()
    for at in (100.0, 160.0, 220.0):
        assert predictor.next_due() is None
        predictor.used("timer", 0.5, at)
    due = predictor.next_due()
    assert due is not None
    assert 278.0 < due < 279.5, "earlier than the call by the load time and the doubt about the clock"
    assert predictor.due(due - 0.01) == []
    assert predictor.due(due) == ["timer"]
    assert predictor.due(due + 100) == [], "once per expected call"


def test_a_call_that_comes_moves_the_expectation_and_one_that_does_not_come_ends_it():
    predictor = Predictor()
    for at in (100.0, 160.0, 220.0, 280.0):
        predictor.used("timer", 0.5, at)
    assert predictor.due(300.0) == []
    assert predictor.due(340.0) == ["timer"]
    assert predictor.next_due() is None, "it has stopped; nobody loads for it for ever"


def test_random_calls_announce_nothing():
    dice = random.Random(3)
    predictor = Predictor()
    at, announced = 0.0, 0
    for _ in range(500):
        at += dice.expovariate(0.1)
        announced += len(predictor.due(at))
        predictor.used("random", 0.01, at)
    assert announced <= 10, "two gaps that are alike by chance"


def test_calls_of_one_tick_are_one_use():
    predictor = Predictor()
    for tick in (100.0, 160.0, 220.0):
        for late in (0.0, 0.02, 0.3):
            predictor.used("timer", 0.5, tick + late)
    assert predictor.due(279.5) == ["timer"]


def test_a_shaky_clock_is_expected_earlier():
    dice = random.Random(1)
    exact, shaky = Predictor(), Predictor()
    for tick in range(1, 12):
        exact.used("m", 0.1, 60.0 * tick)
        shaky.used("m", 0.1, 60.0 * tick + dice.uniform(-2, 2))
    first, second = exact.next_due(), shaky.next_due()
    assert first is not None and second is not None
    assert second < first


def test_what_was_forgotten_is_not_announced_and_the_longest_unused_is_forgotten_first():
    predictor = Predictor(max_known=2)
    for at in (10.0, 20.0, 30.0):
        for name in ("a", "b"):
            predictor.used(name, 0.1, at)
    predictor.used("c", 0.1, 31.0)
    assert predictor.due(40.0) == ["b"]
    predictor.forget("b")
    assert predictor.next_due() is None


def test_steady_demand_is_not_announced():
    predictor = Predictor()
    for step in range(1000):
        predictor.used("hot", 0.5, 10.0 + 0.1 * step)
    assert predictor.next_due() is None


def test_many_models_are_announced_in_the_order_of_their_times():
    predictor = Predictor()
    for tick in (1, 2, 3):
        for number in range(200):
            predictor.used(f"m{number}", 0.01, 1000.0 * tick + number)
    assert predictor.due(4100.0) == [f"m{number}" for number in range(106)], "0.5 % of a gap is the least doubt"


def test_memoryless_calls_have_one_rate_however_long_ago_the_last_one_was():
    dice = random.Random(8)
    times, at = [], 0.0
    for _ in range(40):
        at += dice.expovariate(1.0)
        times.append(at)
    made = uses(*times, load_s=0.0)
    assert made.rate(at + 0.01, 1.0) == pytest.approx(1.0, rel=0.6)
    assert made.rate(at + 1.0, 1.0) == pytest.approx(made.rate(at + 0.01, 1.0), rel=0.5)


def test_a_long_pause_lowers_the_rate_more_than_in_proportion_to_the_mean():
    made = uses(*(float(at) for at in range(1, 20)))
    assert made.rate(100.0, 1.0) < 3 / 81, "not one use in five seconds, as the mean of all gaps would have it"


def test_rates_are_positive_and_finite_whatever_happened():
    for made in (uses(), uses(5.0), uses(5.0, 5.0), uses(1.0, 2.0, 3.0), uses(1.0, 1e6), uses(1.0, 2.0, 1e9)):
        for now in (5.0, 1e9, 2e9):
            for usual in (0.0, 1.0, 1e6):
                assert 0 < made.rate(now, usual) < float("inf")
