"""What a number may change: the table of `releases`, row by row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway import releases
from serai_gateway.releases import INCREMENTS, NotInThisStep, Release
from serai_gateway.versions import Semver

NETWORK, BOTH = frozenset({"network"}), frozenset({"network", "calls"})


@pytest.mark.parametrize(
    ("before", "now", "least"),
    [
        (Release(True, NETWORK), Release(True, BOTH), "major"),
        (Release(True, NETWORK), Release(True, frozenset({"calls"})), "major"),
        (Release(True, BOTH), Release(True, NETWORK), "minor"),
        (Release(True, BOTH), Release(True, BOTH), "revision"),
        (Release(False, BOTH), Release(True, BOTH), "minor"),
        (Release(True, BOTH), Release(False, BOTH), "minor"),
        (Release(True, BOTH, "closed"), Release(True, BOTH, "open"), "minor"),
        (Release(True, BOTH, "closed", 0), Release(True, BOTH, "closed", 1), "major"),
        (Release(True, BOTH, "closed", 2), Release(True, BOTH, "closed", 1), "minor"),
        (Release(True, BOTH, "closed", 2), Release(True, BOTH, "closed", 0), "minor"),
    ],
)
def test_each_change_needs_its_step(before, now, least):
    assert releases.smallest_step(before, now) == least
    for step in INCREMENTS:
        if INCREMENTS.index(step) >= INCREMENTS.index(least):
            releases.check_step(step, before, now)
        else:
            with pytest.raises(NotInThisStep, match=f"a {step} version may not .*; publish it as a {least} version"):
                releases.check_step(step, before, now)


RELEASES = st.builds(
    Release,
    st.booleans(),
    st.frozensets(st.sampled_from(["network", "calls"])),
    st.sampled_from(["open", "closed"]),
    st.integers(0, 2),
)


@settings(deadline=None)
@given(RELEASES, RELEASES)
def test_no_revision_and_no_minor_version_gives_code_more_rights_or_makes_what_was_free_cost(before, now):
    def is_allowed(step):
        try:
            releases.check_step(step, before, now)
        except NotInThisStep:
            return False
        return True

    assert is_allowed("major")
    assert is_allowed(releases.smallest_step(before, now))
    if is_allowed("minor"):
        assert now.permissions <= before.permissions
        assert before.royalty_microcredits or not now.royalty_microcredits
    assert is_allowed("revision") == (before == now)


def test_the_step_is_the_first_part_that_differs():
    numbers = [Semver(1, 2, 3), Semver(1, 2, 9), Semver(1, 3, 0), Semver(2, 0, 0)]
    assert [releases.step_between(numbers[0], number) for number in numbers[1:]] == ["revision", "minor", "major"]
