"""What policies are held against: they know what no policy can know. Both are given to the same scheduler.

Offline: when each model is called next. The greedy choice by cost and size is not the optimum (which is NP-hard for
unequal sizes), but close to it. Known rates: how often each is called, not when. Where arrivals have no memory, no
policy that cannot see the future gets further than that.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from serai_gpu_pool.eviction import Candidate, Policy, cheapest
from serai_gpu_pool.simulator.traces import Trace

#: A model that is called at this very moment is worth no more than one that is called so soon.
_SOON_S = 1e-3


class _Rate(Protocol):
    def __call__(self, model: str, now: float, /) -> float: ...


class _Informed:
    """Worth: seconds of loading by bytes, times uses a second as somebody knows them."""

    def __init__(self, rate: _Rate) -> None:
        self._rate = rate
        self._costs: dict[str, float] = {}  # seconds a byte

    def loaded(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        self._costs[model] = load_s / max(num_bytes, 1)

    def used(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        self._costs[model] = load_s / max(num_bytes, 1)

    def worth(self, model: str, now: float) -> float:
        return self._rate(model, now) * self._costs.get(model, 0.0)

    def victims(self, candidates: Iterable[Candidate], wanted_bytes: int, now: float) -> list[str] | None:
        candidates = list(candidates)
        worths = [self._rate(one.model, now) * one.load_s / max(one.num_bytes, 1) for one in candidates]
        return cheapest(candidates, worths, wanted_bytes)

    def evicted(self, model: str, now: float) -> None:
        """It knows already what comes."""

    def forget(self, model: str) -> None:
        self._costs.pop(model, None)


def offline(trace: Trace) -> Callable[[], Policy]:
    """Belady weighed by cost: who is needed latest, by what it costs to bring back and frees."""
    uses = _times_by_model(trace)

    def rate(model: str, now: float) -> float:
        own = uses.get(model, [])
        at = bisect_right(own, now)
        return 1 / max(own[at] - now, _SOON_S) if at < len(own) else 0.0

    return lambda: _Informed(rate)


def known_rates(trace: Trace) -> Callable[[], Policy]:
    """Each model's mean rate over the whole trace."""
    rates = {name: len(own) / max(trace.seconds, _SOON_S) for name, own in _times_by_model(trace).items()}
    return lambda: _Informed(lambda model, now: rates.get(model, 0.0))


def _times_by_model(trace: Trace) -> dict[str, list[float]]:
    order = np.argsort(trace.calls, kind="stable")
    bounds = np.searchsorted(trace.calls[order], np.arange(len(trace.models) + 1))
    return {
        model.name: trace.times[order[bounds[at] : bounds[at + 1]]].tolist() for at, model in enumerate(trace.models)
    }


#: References by name.
REFERENCES: dict[str, Callable[[Trace], Callable[[], Policy]]] = {"offline": offline, "known-rates": known_rates}
