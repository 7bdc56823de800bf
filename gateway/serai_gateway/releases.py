"""What a new number may change beside the version before it: who calls 1.2.0 must be able to trust 1.2.1. Pure.

                        revision   minor   major
may do more                no        no     yes
may do less                no       yes     yes
public or private          no       yes     yes
source open or closed      no       yes     yes
royalty                    no       yes     yes
royalty on what was free   no        no     yes
"""

from typing import NamedTuple

from serai_gateway.versions import Increment, Semver

INCREMENTS: tuple[Increment, ...] = ("revision", "minor", "major")


class Release(NamedTuple):
    """What callers rely on in a version."""

    public: bool
    permissions: frozenset[str]  # of "network" and "calls"
    source_visibility: str = "closed"
    royalty_microcredits: int = 0


class NotInThisStep(ValueError):
    """The version changes something that callers do not expect of its number."""


def step_between(before: Semver, now: Semver) -> Increment:
    """What kind of step it is from one number to a greater one."""
    if now.major != before.major:
        return "major"
    return "minor" if now.minor != before.minor else "revision"


def check_step(step: Increment, before: Release, now: Release) -> None:
    """Raises NotInThisStep with what has changed and which number may."""
    needed, why = _needed(before, now)
    if INCREMENTS.index(step) < INCREMENTS.index(needed):
        raise NotInThisStep(f"a {step} version may not change {why}; publish it as a {needed} version")


def smallest_step(before: Release, now: Release) -> Increment:
    """The least that may follow."""
    return _needed(before, now)[0]


def _needed(before: Release, now: Release) -> tuple[Increment, str]:
    if now.permissions - before.permissions:
        return "major", f"what the algorithm may do ({_words(now)} instead of {_words(before)})"
    if now.royalty_microcredits and not before.royalty_microcredits:
        return "major", "a free algorithm into one with a royalty"
    if now.royalty_microcredits != before.royalty_microcredits:
        return "minor", f"the royalty ({now.royalty_microcredits} instead of {before.royalty_microcredits})"
    if now.permissions != before.permissions:
        return "minor", f"what the algorithm may do ({_words(now)} instead of {_words(before)})"
    if now.public != before.public:
        return "minor", "whether the algorithm is public or private"
    if now.source_visibility != before.source_visibility:
        return "minor", f"the source from {before.source_visibility} to {now.source_visibility}"
    return "revision", ""


def _words(release: Release) -> str:
    return " and ".join(sorted(release.permissions)) or "nothing"
