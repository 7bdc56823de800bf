"""How calls are divided: what may be asked for, and that each version gets its part."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway import traffic, versions

PUBLIC = {"1.0.0", "1.1.0", "2.0.0"}


@st.composite
def routings(draw):
    numbers = draw(st.lists(st.integers(0, 50), min_size=1, max_size=traffic.MAX_SHARES, unique=True))
    cuts = sorted(draw(st.lists(st.integers(1, 99), min_size=len(numbers) - 1, max_size=len(numbers) - 1, unique=True)))
    edges = [0, *cuts, 100]
    return [(f"{n}.0.0", high - low) for n, low, high in zip(numbers, edges[:-1], edges[1:], strict=True)]


@settings(deadline=None)
@given(routings(), st.floats(0, 1, exclude_max=True))
def test_a_call_gets_a_version_that_is_in_the_routing_and_none_else(routing, point):
    assert traffic.pick(routing, point) in dict(routing)


@settings(deadline=None)
@given(routings())
def test_each_version_gets_exactly_its_part_of_equally_spread_calls(routing):
    picked = [traffic.pick(routing, (at + 0.5) / 100) for at in range(100)]
    assert {number: picked.count(number) for number in set(picked)} == dict(routing)


@settings(deadline=None)
@given(routings())
def test_what_is_accepted_is_the_same_routing_newest_first(routing):
    checked = traffic.check_routing(routing, {number for number, _ in routing})
    assert dict(checked) == dict(routing)
    assert [versions.parse_semver(number) for number, _ in checked] == sorted(
        (versions.parse_semver(number) for number, _ in routing), reverse=True
    )
    assert dict(routing)[traffic.most(checked)] == max(percent for _, percent in routing)


@pytest.mark.parametrize(
    ("routing", "complaint"),
    [
        ([], "1 to 10"),
        ([("1.0.0", 100)] * 11, "1 to 10"),
        ([("1.0.0", 99)], "add up to 99 percent"),
        ([("1.0.0", 60), ("1.1.0", 41)], "add up to 101 percent"),
        ([("1.0.0", 0), ("1.1.0", 100)], "1 to 100 percent, not 0"),
        ([("1.0.0", -1), ("1.1.0", 101)], "1 to 100 percent"),
        ([("1.0.0", 50), ("1.0.0", 50)], "named twice"),
        ([("3.0.0", 100)], "3.0.0 is no public version"),
    ],
)
def test_what_is_no_routing_is_refused_with_the_reason(routing, complaint):
    with pytest.raises(traffic.InvalidRouting, match=complaint):
        traffic.check_routing(routing, PUBLIC)


@pytest.mark.parametrize("number", ["1", "latest", "", "9223372036854775808.0.0", "a" * 40, "1.0.0 "])
def test_only_whole_numbers_are_routed(number):
    with pytest.raises(versions.InvalidVersion):
        traffic.check_routing([(number, 100)], PUBLIC)
