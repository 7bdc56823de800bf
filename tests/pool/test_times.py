"""What batches take, as measured, and how large the next one is to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.scheduling.times import Times


def learned(**seconds: float) -> Times:
    """`n1=0.01` for batches of one that took 10 ms, often enough to believe it."""
    times = Times()
    for name, one in seconds.items():
        for _ in range(5):
            times.learn(int(name[1:]), one)
    return times


def test_nothing_is_predicted_of_what_nobody_knows():
    assert Times().predict(1) == 0.0 and Times().predict(64) == 0.0


def test_sizes_between_two_measured_ones_lie_between_them_and_larger_ones_above():
    times = learned(n1=0.010, n4=0.016)
    assert times.predict(1) == 0.010
    assert times.predict(2) == pytest.approx(0.012)
    assert times.predict(8) == pytest.approx(0.032), "the last time per item goes on"
    assert learned(n4=0.016).predict(2) == 0.016, "most of a small batch is fixed cost"


def test_a_model_that_became_faster_is_known_to_be_after_a_few_runs():
    times = learned(n1=1.0)
    for _ in range(20):
        times.learn(1, 0.001)
    assert times.predict(1) < 0.01


def test_one_outlier_does_not_turn_everything_over():
    times = learned(n1=0.001)
    times.learn(1, 0.1)
    assert times.predict(1) < 0.03


def test_the_first_batch_of_an_unknown_model_is_of_one():
    assert Times().best_size(50, 64, 0.025) == 1
    assert learned(n1=0.001).best_size(1, 64, 0.025) == 1


def test_sizes_grow_step_by_step_as_long_as_that_pays():
    times, sizes = Times(), [0]
    for _ in range(40):
        sizes.append(times.best_size(64, 64, 1.0))
        times.learn(sizes[-1], 0.001 + 0.0001 * sizes[-1])
    assert sizes[1] == 1 and sizes[-1] == 64
    assert all(after <= 2 * max(sizes[: at + 1], default=1) for at, after in enumerate(sizes[1:]) if after > 1)


def test_where_stacking_does_not_pay_batches_stay_small_but_are_tried_again_sometimes():
    times, sizes = Times(), []
    for _ in range(300):
        sizes.append(times.best_size(64, 64, 10.0))
        times.learn(sizes[-1], 0.005 * sizes[-1])
    assert sizes.count(1) > 270 and max(sizes[100:]) > 1


def test_a_model_that_becomes_worth_stacking_is_found_out():
    times = Times()
    for _ in range(100):
        size = times.best_size(64, 64, 10.0)
        times.learn(size, 0.005 * size)
    sizes = []
    for _ in range(1000):
        sizes.append(times.best_size(64, 64, 10.0))
        times.learn(sizes[-1], 0.005)
    assert sizes[-1] >= 8


def test_the_first_run_of_anything_is_slow_and_does_not_count():
    times = Times()
    for seconds in (1.0, 0.001, 0.001):
        times.learn(1, seconds)
    assert times.predict(1) == 0.001


def test_a_larger_batch_that_pays_only_beyond_a_hump_is_found_if_the_hump_was_measured():
    times = learned(n1=0.002, n2=0.0065, n4=0.0070, n8=0.0078)
    times.learn(1, 0.002)
    assert times.best_size(8, 64, 1.0) == 8
    assert times.best_size(3, 64, 1.0) == 1


def test_no_batch_takes_longer_than_others_should_wait():
    times = learned(n1=0.010, n2=0.014, n4=0.022, n8=0.038)
    assert times.best_size(64, 64, 0.025) == 4
    assert learned(n1=5.0, n2=5.1).best_size(64, 64, 0.025) == 1, "one always runs"


sizes_and_seconds = st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 100.0)), max_size=12)


@given(sizes_and_seconds, st.integers(1, 300), st.integers(1, 64), st.floats(0.001, 1.0))
def test_the_size_is_within_all_limits_whatever_was_measured(measured, waiting, max_items, max_seconds):
    times = Times()
    for size, seconds in measured:
        times.learn(size, seconds)
    size = times.best_size(waiting, max_items, max_seconds)
    assert 1 <= size <= min(waiting, max_items)
    assert all(times.predict(one) >= 0 for one in range(1, 80))
