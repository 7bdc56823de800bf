"""Who has to go when room is needed. Pure: a policy is told what was used and gives every model a worth.

What no policy may touch is decided before it is asked: see `Candidate`. One object may serve several devices: then what
it knows of a model moves with the model. To add a policy, write a class like `Reuse` and name it in `POLICIES`.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from serai_gpu_pool.prediction import Uses

#: Models that a policy remembers, resident or not. Beyond it the longest unused are forgotten; about 1 KiB each.
MAX_KNOWN = 16_384
#: A reload costs this much at least, however fast it was measured: two messages and a turn of the worker.
_MIN_LOAD_S = 1e-4
#: Worth is told per GiB, or its numbers are hard to read.
_UNIT_BYTES = 1 << 30


class Candidate(NamedTuple):
    """A resident model that may go: not leased, not queued for, not pinned, past its minimum residence."""

    model: str
    num_bytes: int
    last_used: float
    load_s: float  # what bringing it back would cost, from the tier it would go to


class Policy(Protocol):
    """Knows what was used, and what it is worth to keep it. Takes and returns names of models; holds none of them."""

    def loaded(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        """It is resident. Not a use: it may have been loaded ahead of one."""
        ...

    def used(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        """A batch begins. `load_s`: seconds to bring it back if it went now."""
        ...

    def worth(self, model: str, now: float) -> float:
        """The least worth goes first. Only comparable within one policy; 0 for what it does not know."""
        ...

    def victims(self, candidates: Iterable[Candidate], wanted_bytes: int, now: float) -> list[str] | None:
        """Who goes, so that as many bytes are free; nobody in vain. None: all candidates are not enough."""
        ...

    def evicted(self, model: str, now: float) -> None:
        """It goes, chosen by this policy or by somebody else."""
        ...

    def forget(self, model: str) -> None:
        """It was deleted and does not come back."""
        ...


def cheapest(candidates: Iterable[Candidate], worths: Iterable[float], wanted_bytes: int) -> list[str] | None:
    """The least worth first until there is room; then those that are not needed are spared, the most worth first.

    Measured against the selection with the least loss in all, which prefers one large model to several small ones: this
    one leaves more free for the next load and costs 5 % less load time.
    """
    heap = [(worth, place, one) for place, (worth, one) in enumerate(zip(worths, candidates, strict=True))]
    heapq.heapify(heap)
    going: list[Candidate] = []
    surplus = -wanted_bytes
    while surplus < 0:
        if not heap:
            return None
        going.append(heapq.heappop(heap)[2])
        surplus += going[-1].num_bytes
    kept: set[str] = set()
    for one in reversed(going):
        if one.num_bytes <= surplus:
            surplus -= one.num_bytes
            kept.add(one.model)
    return [one.model for one in going if one.model not in kept]


class _Remembering:
    """Size and cost of what was used lately, and nothing about the rest."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}  # bytes, load time; the longest unused first

    def loaded(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        self._known.pop(model, None)
        self._known[model] = max(num_bytes, 1), max(load_s, _MIN_LOAD_S)
        if len(self._known) > MAX_KNOWN:
            self.forget(next(iter(self._known)))

    def used(self, model: str, num_bytes: int, load_s: float, now: float) -> None:
        self.loaded(model, num_bytes, load_s, now)
        self._learn(model, now)

    def _learn(self, model: str, now: float) -> None:
        """Called for each use, after size and cost were noted."""

    def worth(self, model: str, now: float) -> float:
        raise NotImplementedError

    def victims(self, candidates: Iterable[Candidate], wanted_bytes: int, now: float) -> list[str] | None:
        candidates = list(candidates)
        return cheapest(candidates, [self.worth(one.model, now) for one in candidates], wanted_bytes)

    def evicted(self, model: str, now: float) -> None:
        """Nothing to learn from that."""

    def forget(self, model: str) -> None:
        self._known.pop(model, None)

    def _cost(self, model: str) -> float:
        """Seconds of loading for each GiB that it frees; what nobody knows costs nothing."""
        num_bytes, load_s = self._known.get(model, (1, 0.0))
        return load_s * _UNIT_BYTES / num_bytes


#: Of a model that was loaded and waits for its first use.
_NEVER = Uses()


class Reuse(_Remembering):
    """Worth: seconds of loading that keeping one GiB of the model saves in each second from now on.

    That is what it costs to bring back, times how often it is likely to be asked for again (`Uses.rate`), by size. It
    keeps what Greedy-Dual-Size-Frequency is after, cost by size by frequency, and gets the frequency from gaps between
    uses instead of a count and a clock: rates that can be compared at any moment, and pauses that mean something.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uses: dict[str, Uses] = {}
        self._num_uses = 0
        self._began_at = 0.0

    def _learn(self, model: str, now: float) -> None:
        uses = self._uses.get(model)
        if uses is None:
            uses = self._uses[model] = Uses()
        if not self._num_uses:
            self._began_at = now
        self._num_uses += uses.add(now, self._known[model][1])

    def worth(self, model: str, now: float) -> float:
        usual_gap_s = len(self._known) * (now - self._began_at) / max(self._num_uses, 1)
        return self._uses.get(model, _NEVER).rate(now, usual_gap_s) * self._cost(model)

    def forget(self, model: str) -> None:
        super().forget(model)
        self._uses.pop(model, None)


class _Counting(_Remembering):
    """Counts uses, each worth half as much after a while: when every known model was used so often, on average."""

    _half_life_uses = 8.0

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, tuple[float, float, float]] = {}  # count, the clock then, seconds then
        self._clock = 0.0  # uses of all models, in units of known models

    def _learn(self, model: str, now: float) -> None:
        count, _, at = self._counts.get(model, (0.0, 0.0, float("-inf")))
        if now - at < self._known[model][1]:
            return  # the same use: nobody could have evicted it and brought it back meanwhile
        count = self._count(model) + 1
        self._clock += 1 / len(self._known)
        self._counts[model] = count, self._clock, now

    def _count(self, model: str) -> float:
        count, clock, _ = self._counts.get(model, (0.0, 0.0, 0.0))
        return count * 0.5 ** ((self._clock - clock) / self._half_life_uses)

    def forget(self, model: str) -> None:
        super().forget(model)
        self._counts.pop(model, None)


class GreedyDualSizeFrequency(_Counting):
    """Worth: the clock at the last use, plus uses times cost by size. The clock is the worth of what went last.

    Cherkasova 1998, with counts that outlive an eviction and age. Where all models cost the same this is LFU with
    dynamic ageing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worths: dict[str, float] = {}
        self._inflation = 0.0

    def _learn(self, model: str, now: float) -> None:
        super()._learn(model, now)
        self._worths[model] = self._inflation + self._count(model) * self._cost(model)

    def worth(self, model: str, now: float) -> float:
        return self._worths.get(model, 0.0)

    def evicted(self, model: str, now: float) -> None:
        self._inflation = max(self._inflation, self._worths.get(model, 0.0))

    def forget(self, model: str) -> None:
        super().forget(model)
        self._worths.pop(model, None)


class LeastFrequentlyUsed(_Counting):
    """Worth: how often it was used, ageing."""

    def worth(self, model: str, now: float) -> float:
        return self._count(model)


class LeastRecentlyUsed(_Remembering):
    """Worth: when it was used last."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def _learn(self, model: str, now: float) -> None:
        self._last[model] = now

    def worth(self, model: str, now: float) -> float:
        return self._last.get(model, 0.0)

    def victims(self, candidates: Iterable[Candidate], wanted_bytes: int, now: float) -> list[str] | None:
        candidates = list(candidates)
        return cheapest(candidates, [one.last_used for one in candidates], wanted_bytes)

    def forget(self, model: str) -> None:
        super().forget(model)
        self._last.pop(model, None)


class LargestFirst(_Remembering):
    """Worth: how little room it takes. As few as possible go."""

    def worth(self, model: str, now: float) -> float:
        return _UNIT_BYTES / self._known[model][0] if model in self._known else 0.0


#: By the name under which an operator asks for it.
POLICIES: dict[str, Callable[[], Policy]] = {
    "reuse": Reuse,
    "gdsf": GreedyDualSizeFrequency,
    "lru": LeastRecentlyUsed,
    "lfu": LeastFrequentlyUsed,
    "largest": LargestFirst,
}
#: See benchmarks/README.md, C6 and C7: the fewest load seconds on each of their traces.
DEFAULT_POLICY = "reuse"
