"""When a model will be used again, from when it was used before. Pure.

Uses       of one model: the latest gaps between its uses, and what they say about the next one
Predictor  of all models: which of them are used by the clock, and when each has to be loaded to be there in time
"""

import heapq
import math
from collections import deque

#: Gaps that are remembered of a model. Measured on Zipf, drifting and bursty traces: with 8 rates are 2 % worse because
#: they are noisy, with 32 a model that has become unpopular stays for longer than least-recently-used would keep it.
_GAPS = 16
#: Uses that every model is thought to have had before its first one, at the mean rate of all models.
_PRIOR_USES = 0.5
#: Gaps of a memoryless model that every model is thought to have had: few observed ones say little about their spread.
_PRIOR_GAPS = 4.0
#: Squared coefficient of variation up to which gaps count as memoryless: beyond it a long pause is news.
_MEMORYLESS = 1.05
#: The same, below which uses count as driven by a clock, by the number of gaps that were seen: two gaps have to agree
#: within 4 %, which two random ones do once in fifty times, four and more within about a seventh of their mean.
_BY_THE_CLOCK = {2: 0.0004, 3: 0.002, 4: 0.02}
#: As a share of the gap: nobody's clock is known more exactly than this.
_LEAST_BLUR = 0.005
#: Of a gap: a use that is overdue by so much is not coming any more.
_OVERDUE = 0.5


class Uses:
    """One model's uses. A use within one load time of the last counted one is the same use: nobody could have evicted
    the model and brought it back in between. So a model in steady demand counts as used once a load time.
    """

    __slots__ = ("_gaps", "_load_s", "_sum", "_sum_of_squares", "is_regular", "last", "last_counted")

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=_GAPS)
        self._load_s = 0.0
        self._sum = 0.0
        self._sum_of_squares = -1.0  # negative: has to be summed up again
        self.is_regular = False
        self.last = self.last_counted = -math.inf

    def add(self, now: float, load_s: float) -> bool:
        """It was used. Whether that counts as a use of its own."""
        self.last, self._load_s = now, load_s
        gap_s = now - self.last_counted
        if gap_s < load_s:
            return False
        if gap_s < math.inf:
            self._gaps.append(gap_s)
            self._sum_of_squares = -1.0
        self.last_counted = now
        return True

    @property
    def mean_gap_s(self) -> float:
        """Seconds; 0 before the second use."""
        self._sum_up()
        return self._sum / len(self._gaps) if self._gaps else 0.0

    def expected_next(self) -> tuple[float, float] | None:
        """Where it is used by the clock: when it is due, and by how many seconds it may be early or late."""
        self._sum_up()
        return (self.last_counted + self.mean_gap_s, self._blur_s()) if self.is_regular else None

    def _blur_s(self) -> float:
        """Twice the standard deviation of its gaps."""
        count, mean_s = len(self._gaps), self._sum / len(self._gaps)
        variance = max(self._sum_of_squares / count - mean_s * mean_s, 0.0)
        return max(2 * math.sqrt(variance), _LEAST_BLUR * mean_s)

    def rate(self, now: float, usual_gap_s: float) -> float:
        """Uses a second to be expected from now on; `usual_gap_s`: mean gap of all models.

        (1) By the clock: the inverse of what is left until then, and no more than once a load time. (2) Memoryless:
        uses by seconds. (3) In bursts: its gaps are thought to be exponential with a rate that is drawn anew for each
        of them (Lomax). The longer such a model has been idle, the longer its pause is likely to go on.
        """
        self._sum_up()
        count, total, squares = len(self._gaps), self._sum, self._sum_of_squares
        idle_s = max(now - self.last, 0.0)
        if self.is_regular:
            gap_s = total / count
            left_s = self.last_counted + gap_s - now
            if left_s > -_OVERDUE * gap_s:
                return 1 / max(abs(left_s), self._blur_s(), self._load_s)
        if not count:
            idle_s = min(idle_s, usual_gap_s) if idle_s == math.inf else idle_s  # loaded, but not used yet
            return _PRIOR_USES / max(idle_s + _PRIOR_USES * usual_gap_s, 1e-9)
        mean_s = (total + idle_s + _PRIOR_USES * usual_gap_s) / (count + _PRIOR_USES)
        if idle_s * count > total:  # longer than usual: this gap tells something before it has ended
            count, total, squares = count + 1, total + idle_s, squares + idle_s * idle_s
        spread = max(count * squares / (total * total) - 1, 0.0)
        spread = (count * spread + _PRIOR_GAPS) / (count + _PRIOR_GAPS)
        if spread <= _MEMORYLESS:
            return 1 / mean_s
        shape = 2 * spread / (spread - 1)
        return shape / (idle_s + (shape - 1) * mean_s)

    def _sum_up(self) -> None:
        """Again from the start: subtracting the squares of long gaps that go would leave nothing but rounding."""
        if self._sum_of_squares >= 0:
            return
        count = len(self._gaps)
        self._sum = sum(self._gaps)
        self._sum_of_squares = sum(gap * gap for gap in self._gaps)
        limit = _BY_THE_CLOCK.get(min(count, max(_BY_THE_CLOCK)), 0.0)
        self.is_regular = bool(limit) and count * self._sum_of_squares / (self._sum * self._sum) - 1 < limit


#: Load times that lie between two calls at least for a prefetch to make sense: what is called more often stays anyway.
_MIN_LOADS = 4.0


class Predictor:
    """Tells which models to load before they are called."""

    __slots__ = ("_due", "_heap", "_max_known", "_uses")

    def __init__(self, max_known: int = 16_384) -> None:
        self._max_known = max_known
        self._uses: dict[str, tuple[Uses, float]] = {}  # with the load time; the longest unused first
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def used(self, model: str, load_s: float, now: float) -> None:
        """It was called. `load_s`: how long before its next call it should be asked for."""
        uses = self._uses.pop(model, (None, 0.0))[0] or Uses()
        self._uses[model] = uses, load_s
        if len(self._uses) > self._max_known:
            self.forget(next(iter(self._uses)))
        if not uses.add(now, load_s):
            return
        self._due.pop(model, None)
        expected = uses.expected_next()
        if expected is not None and uses.mean_gap_s > _MIN_LOADS * load_s:
            at_s, blur_s = expected
            self._due[model] = at = max(now, at_s - blur_s - load_s)
            heapq.heappush(self._heap, (at, model))
            if len(self._heap) > 4 * len(self._due) + 64:
                self._heap = [(at, model) for model, at in self._due.items()]
                heapq.heapify(self._heap)

    def forget(self, model: str) -> None:
        self._uses.pop(model, None)
        self._due.pop(model, None)

    def next_due(self) -> float | None:
        """When to ask `due` again."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[str]:
        """Models to load now, each once per expected use: those that are resident already can be left alone."""
        models: list[str] = []
        while (at := self.next_due()) is not None and at <= now:
            model = heapq.heappop(self._heap)[1]
            del self._due[model]
            models.append(model)
        return models
