"""What the scheduler counts. Plain numbers: they are touched for every call."""

from bisect import bisect_left
from collections import Counter

#: Upper bounds in seconds: from a free replica at once to a queue that is nearly refused.
WAIT_BUCKETS_S = (0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Figures:
    """Totals since the start."""

    __slots__ = ("calls", "ends", "starts", "strays", "wait_counts", "wait_sum_s")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()  # by outcome
        self.starts = 0
        self.ends: Counter[str] = Counter()  # by reason
        self.strays = 0
        self.wait_counts = [0] * (len(WAIT_BUCKETS_S) + 1)
        self.wait_sum_s = 0.0

    def waited(self, seconds: float) -> None:
        self.wait_counts[bisect_left(WAIT_BUCKETS_S, seconds)] += 1
        self.wait_sum_s += seconds
