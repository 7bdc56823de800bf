"""What batches of a model take, as measured, and what follows for the next batch. Pure.

Measured sizes are kept as moving averages; sizes between two measured ones are interpolated. A size beyond the largest
measured one is extrapolated along the last slope, and never below it.
"""

from bisect import bisect_left, insort

#: Weight of the newest measurement. A few batches forget a slow first run.
_NEWEST = 0.25
#: A larger batch has to be this much faster per item to be worth its latency.
_WORTH_IT = 0.97
#: Every so many batches a larger size than the best known one is tried again: machines and inputs change.
_TRY_EVERY = 64


class Times:
    """Seconds by batch size, of one model on one device in one form."""

    __slots__ = ("_batches", "_seconds", "_sizes")

    def __init__(self) -> None:
        self._sizes: list[int] = []  # sorted
        self._seconds: dict[int, float] = {}
        self._batches = 0

    @property
    def known(self) -> dict[int, float]:
        return {size: self._seconds[size] for size in self._sizes}

    def learn(self, size: int, seconds: float) -> None:
        self._batches += 1
        before = self._seconds.get(size)
        if before is None:
            insort(self._sizes, size)
            self._seconds[size] = seconds
        else:
            self._seconds[size] = before + _NEWEST * (seconds - before)

    def clear(self) -> None:
        """The model now runs in another form: all that is known is out of date."""
        self._sizes.clear()
        self._seconds.clear()

    def predict(self, size: int) -> float:
        """Seconds that a batch of this size takes; 0 when nothing is known."""
        exact = self._seconds.get(size)
        if exact is not None:
            return exact
        sizes = self._sizes
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
        size = 2
        while True:
            size = min(size, most)
            if size > 2 * self._sizes[-1]:  # a step into the unknown, not a leap
                break
            per_item = self.per_item(size)
            if size > self._sizes[-1] and self._is_worth_trying():
                per_item = min(per_item, best_time * _WORTH_IT * 0.99)
            if per_item * size > max_seconds:
                break
            if per_item < best_time * _WORTH_IT:
                best, best_time = size, per_item
            if size == most:
                break
            size *= 2
        return best

    def _is_worth_trying(self) -> bool:
        """Did the largest size that was tried pay, or is it time to look again?"""
        sizes = self._sizes
        if len(sizes) == 1:
            return True
        last, before = self.per_item(sizes[-1]), self.per_item(sizes[-2])
        return last < before * _WORTH_IT or self._batches % _TRY_EVERY == 0
