"""What batches of a model take, as measured, and what follows for the next batch. Pure.

Measured sizes are kept as moving averages; sizes between two measured ones are interpolated. A size beyond the largest
measured one is extrapolated along the last slope, and never below it.
"""

from bisect import bisect_left, insort

#: Weight of the newest measurement: of a slower one (it may have been disturbed), of a faster one (it may not).
_SLOWER, _FASTER = 0.25, 0.5
#: A measurement counts as at most so many times what was known: one hiccup is no change of the model.
_MOST = 3.0
#: Measurements of a size before it is believed; the best of them counts, since the first run of anything is slow.
_TRIALS = 3
#: A larger batch has to be this much faster per item to be worth its latency.
_WORTH_IT = 0.97
#: Every so many batches a larger size than the best known one is tried again: machines and inputs change.
_TRY_EVERY = 64


class Times:
    """Seconds by batch size, of one model on one device in one form."""

    __slots__ = ("_batches", "_seconds", "_sizes", "_trials")

    def __init__(self) -> None:
        self._sizes: list[int] = []  # that are believed, sorted
        self._seconds: dict[int, float] = {}
        self._trials: dict[int, int] = {}  # measurements of sizes that are not believed yet
        self._batches = 0

    @property
    def known(self) -> dict[int, float]:
        return {size: self._seconds[size] for size in sorted(self._seconds)}

    def recall(self, size: int, seconds: float) -> None:
        """It was measured before."""
        if size not in self._sizes:
            insort(self._sizes, size)
        self._trials.pop(size, None)
        self._seconds[size] = seconds

    def learn(self, size: int, seconds: float) -> None:
        self._batches += 1
        before = self._seconds.get(size)
        trials = self._trials.get(size, 0)
        if before is None or trials:
            self._seconds[size] = seconds if before is None else min(before, seconds)
            self._trials[size] = trials + 1
            if trials + 1 == _TRIALS:
                self.recall(size, self._seconds[size])
        else:
            step = min(seconds, _MOST * before) - before
            self._seconds[size] = before + (_SLOWER if step > 0 else _FASTER) * step

    def predict(self, size: int) -> float:
        """Seconds that a batch of this size takes; 0 when nothing is known."""
        exact = self._seconds.get(size)
        if exact is not None:
            return exact
        sizes = self._sizes or sorted(self._seconds)
        if not sizes:
            return 0.0
        at = bisect_left(sizes, size)
        if at == 0:
            return self._seconds[sizes[0]]  # not proportionally less: most of a small batch is fixed cost
        low = sizes[at - 1]
        if at == len(sizes):
            slope = self._seconds[low] / low
            return self._seconds[low] + slope * (size - low)
        high = sizes[at]
        share = (size - low) / (high - low)
        return self._seconds[low] + share * (self._seconds[high] - self._seconds[low])

    def per_item(self, size: int) -> float:
        return self.predict(size) / size

    def best_size(self, waiting: int, max_items: int, max_seconds: float) -> int:
        """How many of `waiting` calls to run together: the size with the least time per item, small ones preferred.

        A size that nobody has tried is tried when the sizes below it paid: otherwise nobody would ever know.
        """
        most = min(waiting, max_items)
        if most <= 1 or not self._sizes:
            return 1
        best, best_time = 1, self.per_item(1)
        size, largest = 2, self._sizes[-1]
        while (size := min(size, most)) <= 2 * largest:  # a step into the unknown, not a leap
            per_item = self.per_item(size)
            if size in self._trials or (size > largest and self._is_worth_trying()):
                per_item = min(per_item, best_time * _WORTH_IT * 0.99)
            if per_item * size > max_seconds:
                break
            if per_item < best_time * _WORTH_IT:
                best, best_time = size, per_item
            if size == most:
                break
            size *= 2
        if self._batches % _TRY_EVERY == 0 and 2 * best <= most and self.predict(2 * best) <= max_seconds:
            return 2 * best
        return best

    def _is_worth_trying(self) -> bool:
        """Did the largest size that was tried pay?"""
        sizes = self._sizes
        return len(sizes) == 1 or self.per_item(sizes[-1]) < self.per_item(sizes[-2]) * _WORTH_IT
