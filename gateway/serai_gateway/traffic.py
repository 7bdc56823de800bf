"""How the calls that name no version are divided among versions: all to one, or a part to a newer one first. Pure.

()                              the newest public version
(("1.4.0", 100),)               that one, whatever is published after it: this is how one rolls back
(("1.5.0", 10), ("1.4.0", 90))  one call in ten tries the new one
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from serai_gateway import versions

Routing = tuple[tuple[str, int], ...]

#: Most versions that share the calls. Two compare, three are a ladder; more tell nobody anything.
MAX_SHARES = 10

_T = TypeVar("_T")


class InvalidRouting(ValueError):
    """Calls cannot be divided like this."""


def check_routing(shares: Iterable[tuple[str, int]], public: Collection[str]) -> Routing:
    """`shares` (number, percent), the newest version first. `public`: the numbers that may be in it.

    Raises InvalidRouting, versions.InvalidVersion.
    """
    routing = [(versions.parse_semver(number), percent) for number, percent in shares]
    if not 1 <= len(routing) <= MAX_SHARES:
        raise InvalidRouting(f"calls are divided among 1 to {MAX_SHARES} versions, not {len(routing)}")
    for semver, percent in routing:
        if not 1 <= percent <= 100:
            raise InvalidRouting(f"{semver}: the part of a version is 1 to 100 percent, not {percent}")
        if str(semver) not in public:
            raise InvalidRouting(f"{semver} is no public version of this algorithm; publish it first")
    if len({semver for semver, _ in routing}) < len(routing):
        raise InvalidRouting("a version is named twice; name each one once")
    total = sum(percent for _, percent in routing)
    if total != 100:
        raise InvalidRouting(f"the parts add up to {total} percent; they must add up to 100")
    return tuple((str(semver), percent) for semver, percent in sorted(routing, reverse=True))


def pick(choices: Sequence[tuple[_T, int]], point: float) -> _T:
    """Whose part `point` lies in. The parts add up to 100; `point` is at least 0 and below 1."""
    left = point * 100
    for choice, percent in choices:
        left -= percent
        if left < 0:
            return choice
    return choices[-1][0]  # of a rounding error


def most(choices: Sequence[tuple[_T, int]]) -> _T:
    """What gets the largest part, of equal ones the first."""
    return max(choices, key=lambda choice: choice[1])[0]
