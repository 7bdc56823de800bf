"""Who has to go when room is needed. Pure: a policy is one function.

What no policy may touch is decided before it is asked: see `Candidate`. To try another policy, write a function of
type `Policy` and name it in the settings of the scheduler.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Candidate(NamedTuple):
    """A resident model that may go: not leased, not queued for, past its minimum residence."""

    model: str
    num_bytes: int
    last_used: float
    load_s: float  # what bringing it back would cost


#: Candidates and the bytes that are needed to the models that go, or None when all of them are not enough.
Policy = Callable[[Iterable[Candidate], int], "list[str] | None"]


def least_recently_used(candidates: Iterable[Candidate], wanted_bytes: int) -> list[str] | None:
    """The longest unused first, and no more of them than are needed."""
    victims: list[str] = []
    for candidate in sorted(candidates, key=lambda one: one.last_used):
        if wanted_bytes <= 0:
            break
        victims.append(candidate.model)
        wanted_bytes -= candidate.num_bytes
    return victims if wanted_bytes <= 0 else None
