"""How many of a model's calls go to the device at once. Pure.

A free device takes what is queued, now: nothing here ever waits. While it is busy the queue grows, and so does the
next batch. The limits only keep one batch from holding the device for long.
"""

from dataclasses import dataclass

#: Weight of the newest batch in a model's moving average. A few batches forget a slow first run.
_NEWEST = 0.25


@dataclass(frozen=True, slots=True)
class BatchLimits:
    #: From here on, stacking a small model saves next to nothing more (measured flat from 32 to 128).
    max_items: int = 64
    #: An input of this size is work enough to hide the cost of a call: more of them in one batch only add latency.
    max_bytes: int = 512 * 1024
    #: No other model should wait longer than this for one batch, where it can be avoided.
    max_seconds: float = 0.025


class ServiceTime:
    """Seconds that one item of a model takes in a batch, as a moving average; 0 until one has run."""

    __slots__ = ("per_item_s",)

    def __init__(self) -> None:
        self.per_item_s = 0.0

    def learn(self, num_items: int, duration_s: float) -> None:
        sample = duration_s / num_items
        self.per_item_s = sample if not self.per_item_s else self.per_item_s + _NEWEST * (sample - self.per_item_s)


def max_items(time: ServiceTime, limits: BatchLimits) -> int:
    """Items that the next batch may hold: at least one."""
    if not time.per_item_s:
        return limits.max_items
    return max(1, min(limits.max_items, int(limits.max_seconds / time.per_item_s)))
