"""The latest evictions, and why: an operator who asks wants an answer. Pure."""

from collections import deque
from typing import NamedTuple

from serai_gpu_pool.scheduling.copies import Copy

#: Evictions that are remembered.
_KEPT = 64
#: Ages that are kept until somebody asks for them; who never asks gets the first ones.
_MOST_AGES = 10_000
#: Ages at eviction that are counted, in seconds: upper bounds.
AGE_BUCKETS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)


class Eviction(NamedTuple):
    key: str
    name: str
    algorithm: str
    reason: str
    at: float
    age_s: float
    worth: float


class History:
    __slots__ = ("_ages", "latest")

    def __init__(self) -> None:
        self.latest: deque[Eviction] = deque(maxlen=_KEPT)
        self._ages: list[float] = []

    def evicted(self, copy: Copy, worth: float, reason: str, now: float) -> None:
        age_s = now - copy.loaded_at
        spec = copy.model.spec
        algorithm = f"{spec.owner}/{spec.algorithm}"
        self.latest.appendleft(Eviction(copy.key, spec.name, algorithm, reason, now, age_s, worth))
        if len(self._ages) < _MOST_AGES:
            self._ages.append(age_s)

    def take_ages(self) -> list[float]:
        """Ages at eviction since the last time that somebody asked, in seconds."""
        ages, self._ages = self._ages, []
        return ages
