"""Policies: what each prefers, what all of them promise, and how they fare on whole traces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.eviction import DEFAULT_POLICY, MAX_KNOWN, POLICIES, Candidate
from serai_gpu_pool.simulator.reference import known_rates, offline
from serai_gpu_pool.simulator.replay import replay
from serai_gpu_pool.simulator.traces import azure, zipf

MB = 10**6


def told(name, *uses, size=10 * MB, load_s=0.1):
    """A policy that was told of uses: (model, when)."""
    policy = POLICIES[name]()
    for model, at in uses:
        policy.used(model, size, load_s, at)
    return policy


def candidates(*models, size=10 * MB, load_s=0.1, last_used=0.0):
    return [Candidate(model, size, last_used, load_s) for model in models]


sizes_and_uses = st.lists(
    st.tuples(st.integers(1, 200 * MB), st.floats(0, 1), st.lists(st.floats(0, 1000), max_size=6)), max_size=12
)


@pytest.mark.parametrize("name", POLICIES)
@given(models=sizes_and_uses, wanted=st.integers(0, 10**9))
def test_victims_free_enough_and_nobody_goes_in_vain(name, models, wanted):
    policy = POLICIES[name]()
    uses = sorted((at, number) for number, (_, _, times) in enumerate(models) for at in times)
    for at, number in uses:
        policy.used(str(number), models[number][0], models[number][1], at)
    offered = [
        Candidate(str(number), size, max(times, default=0.0), load_s)
        for number, (size, load_s, times) in enumerate(models)
    ]
    size_of = {one.model: one.num_bytes for one in offered}
    victims = policy.victims(offered, wanted, 1001.0)
    if victims is None:
        assert sum(size_of.values()) < wanted
        return
    freed = sum(size_of[model] for model in victims)
    assert freed >= wanted
    assert all(freed - size_of[model] < wanted for model in victims)
    assert len(set(victims)) == len(victims)


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_policy_does_not_know_is_worth_nothing_and_may_be_asked_about(name):
    policy = POLICIES[name]()
    assert policy.worth("never seen", 5.0) == 0
    policy.evicted("never seen", 5.0)
    policy.forget("never seen")
    assert policy.victims(candidates("never seen"), 1, 5.0) == ["never seen"]


@pytest.mark.parametrize("name", POLICIES)
def test_the_least_worth_goes_first(name):
    policy = POLICIES[name]()
    for number in range(8):
        for use in range(1 + number):
            policy.used(f"m{number}", (8 - number) * MB, 0.5, 10.0 + 20 * use + number)
    offered = [Candidate(f"m{number}", (8 - number) * MB, 10.0 + 21 * number, 0.5) for number in range(8)]
    worths = {one.model: policy.worth(one.model, 200.0) for one in offered}
    assert policy.victims(offered, 1, 200.0) == [min(worths, key=lambda model: worths[model])]


@pytest.mark.parametrize("name", POLICIES)
def test_memory_of_models_is_bounded_and_the_longest_unused_are_forgotten(name):
    policy = POLICIES[name]()
    for number in range(MAX_KNOWN + 10):
        policy.used(f"m{number}", MB, 0.1, 1.0 + number)
    now = MAX_KNOWN + 20.0
    assert policy.worth("m0", now) == 0
    assert policy.worth(f"m{MAX_KNOWN + 9}", now) > 0


def test_least_recently_used_goes_by_the_last_use_alone():
    offered = [Candidate("new", 10, 3.0, 9.0), Candidate("old", 10, 1.0, 1.0), Candidate("middle", 10, 2.0, 5.0)]
    assert POLICIES["lru"]().victims(offered, 15, 4.0) == ["old", "middle"]
    assert POLICIES["lru"]().victims(offered, 31, 4.0) is None


def test_least_frequently_used_forgets_old_fame():
    policy = told("lfu", *(("star of old", at) for at in range(1, 40)))
    assert policy.worth("star of old", 40.0) > 30
    for at in range(40, 240):
        policy.used(f"m{at % 4}", MB, 0.1, float(at))
    assert policy.worth("star of old", 240.0) < policy.worth("m0", 240.0)


def test_largest_first_takes_as_few_as_possible():
    policy = POLICIES["largest"]()
    offered = [Candidate(f"m{size}", size, 0.0, 1.0) for size in (5, 50, 20)]
    for one in offered:
        policy.used(one.model, one.num_bytes, 1.0, 1.0)
    assert policy.victims(offered, 30, 2.0) == ["m50"]


@pytest.mark.parametrize("name", ["gdsf", "reuse"])
def test_what_is_costly_to_bring_back_for_the_bytes_it_frees_stays(name):
    policy = POLICIES[name]()
    for at in (10.0, 20.0, 31.0):
        policy.used("large and quick", 200 * MB, 0.1, at)
        policy.used("small and slow", 10 * MB, 0.2, at)
    offered = [Candidate("small and slow", 10 * MB, 31.0, 0.2), Candidate("large and quick", 200 * MB, 31.0, 0.1)]
    assert policy.victims(offered, 10 * MB, 32.0) == ["large and quick"]


@pytest.mark.parametrize("name", ["gdsf", "reuse", "lfu"])
def test_how_often_a_model_was_used_is_remembered_after_its_eviction(name):
    regulars = [("regular", at) for at in (1, 4, 6, 11, 15, 17, 22)]
    policy = told(name, *sorted([*regulars, ("stranger", 16)], key=lambda one: one[1]))
    policy.evicted("regular", 23.0)
    policy.evicted("stranger", 23.0)
    policy.used("regular", 10 * MB, 0.1, 24.0)
    policy.used("stranger", 10 * MB, 0.1, 24.0)
    assert policy.worth("regular", 25.0) > policy.worth("stranger", 25.0)


def test_the_clock_of_gdsf_lets_newcomers_outlive_what_is_not_used_any_more():
    policy = told("gdsf", *(("once loved", at) for at in range(1, 30, 2)))
    for number in range(400):
        name, now = f"new{number}", 40.0 + number
        policy.used(name, 10 * MB, 0.1, now)
        victim = policy.victims(candidates("once loved", name), 10 * MB, now)
        if victim == ["once loved"]:
            return
        policy.evicted(name, now)
    pytest.fail("it stays for ever")


def test_reuse_keeps_a_burst_while_it_lasts_and_lets_it_go_in_the_pause():
    bursts = [("bursty", 100.0 * burst + step) for burst in range(1, 4) for step in (0, 1, 2, 3, 4)]
    steady = [("steady", 20.0 * step + 7 * (step % 2)) for step in range(1, 16)]
    policy = told("reuse", *sorted([*bursts, *steady], key=lambda one: one[1]))
    assert policy.worth("bursty", 305.0) > policy.worth("steady", 305.0)
    policy.used("steady", 10 * MB, 0.1, 327.0)
    assert policy.worth("bursty", 350.0) < policy.worth("steady", 350.0)


def test_reuse_knows_what_is_called_by_a_clock():
    timer = [("timer", 60.0 * tick) for tick in range(1, 8)]
    random = [("random", at) for at in (10, 31, 95, 102, 180, 199, 260, 275, 350, 400)]
    policy = told("reuse", *sorted([*timer, *random], key=lambda one: one[1]))
    assert policy.worth("timer", 425.0) < policy.worth("random", 425.0), "it is not due for a long time"
    assert policy.worth("timer", 478.0) > policy.worth("random", 478.0), "it is due in two seconds"


def test_a_model_that_was_loaded_ahead_is_not_used_yet_but_worth_something():
    policy = told("reuse", ("a", 10), ("b", 20), ("a", 31))
    policy.loaded("ahead", 10 * MB, 0.1, 40.0)
    assert policy.worth("ahead", 41.0) > 0
    before = told("reuse", *(("timer", 10.0 * tick) for tick in range(1, 6)))
    before.loaded("timer", 10 * MB, 0.1, 59.0)
    assert before.worth("timer", 59.5) > before.worth("timer", 52.0), "still by the clock"


def test_steady_demand_counts_once_a_load_time():
    policy = told("reuse", ("other", 1.0))
    for step in range(3000):
        policy.used("frantic", 10 * MB, 0.1, 2.0 + step * 0.001)
        if step % 25 == 0:
            policy.used("brisk", 10 * MB, 0.1, 2.0 + step * 0.001)
    ratio = policy.worth("frantic", 5.0) / policy.worth("brisk", 5.0)
    assert 0.5 < ratio < 2, "neither could be evicted and brought back between two uses"


@pytest.mark.parametrize("name", ["gdsf", "reuse"])
@pytest.mark.parametrize("drift", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [0.8, 1.2])
def test_where_all_models_are_alike_it_loads_no_more_than_least_recently_used(name, drift, alpha):
    trace = zipf(96, 300, 20, alpha, seed=3, same=True, drift_every_s=drift)
    budget = trace.total_bytes // 4
    own, lru = (replay(trace, POLICIES[one](), budget).load_s for one in (name, "lru"))
    assert own <= 1.02 * lru


@pytest.mark.parametrize("alpha", [0.8, 1.0, 1.2])
def test_where_models_differ_the_default_is_far_better_than_least_recently_used(alpha):
    trace = zipf(96, 600, 20, alpha, seed=4)
    budget = trace.total_bytes // 4
    own, lru = (replay(trace, POLICIES[one](), budget).load_s for one in (DEFAULT_POLICY, "lru"))
    assert 1.3 * own <= lru


def test_the_default_comes_close_to_knowing_every_rate_and_beats_it_where_calls_have_a_pattern():
    trace = zipf(96, 600, 20, 1.0, seed=5)
    own = replay(trace, POLICIES[DEFAULT_POLICY](), trace.total_bytes // 4).load_s
    assert own <= 1.08 * replay(trace, known_rates(trace)(), trace.total_bytes // 4).load_s
    trace = azure(150, 3600, seed=5)
    own = replay(trace, POLICIES[DEFAULT_POLICY](), trace.total_bytes // 4).load_s
    assert own < replay(trace, known_rates(trace)(), trace.total_bytes // 4).load_s


def test_nobody_beats_the_reference_that_knows_what_comes():
    trace = zipf(96, 300, 20, 1.0, seed=6)
    best = replay(trace, offline(trace)(), trace.total_bytes // 4).load_s
    for make in POLICIES.values():
        assert best < replay(trace, make(), trace.total_bytes // 4).load_s
