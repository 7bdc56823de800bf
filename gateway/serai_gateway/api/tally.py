"""What this worker has counted, in a file that the others read: a count costs no more than adding to a number.

One file a worker, `run/metrics/calls-<pid>`: 64-bit counters, laid out by `OUTCOMES` and `BUCKETS_S`.
Files of workers that have died stay, so that totals never go back; the folder is emptied when Serai starts.
"""

import mmap
import os
from bisect import bisect_left
from pathlib import Path

#: Every way a call can end, as `/metrics` names it: what the algorithm said, or a platform error's code.
OUTCOMES = (
    "ok",
    "algorithm_error",
    "caller_gone",
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "conflict",
    "too_large",
    "unsupported_type",
    "unprocessable",
    "too_many_requests",
    "internal",
    "crashed",
    "unavailable",
    "deadline_exceeded",
    "no_space",
)
_PLACE = {outcome: at for at, outcome in enumerate(OUTCOMES)}

#: Upper bounds of the histogram of call durations, in seconds; the last bucket has none.
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_FIRST_BUCKET = len(OUTCOMES)
_SUM_US = _FIRST_BUCKET + len(BUCKETS_S) + 1
_NUM_COUNTERS = _SUM_US + 1
_NUM_BYTES = _NUM_COUNTERS * 8


class Tally:
    """The counters of one worker process. Make it in the worker: a file belongs to one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"calls-{os.getpid()}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _NUM_BYTES)
            self._counters = memoryview(mmap.mmap(descriptor, _NUM_BYTES)).cast("Q")
        finally:
            os.close(descriptor)

    def count(self, outcome: str, duration_s: float) -> None:
        counters = self._counters
        counters[_PLACE[outcome]] += 1
        counters[_FIRST_BUCKET + bisect_left(BUCKETS_S, duration_s)] += 1
        counters[_SUM_US] += int(duration_s * 1e6)


class Totals:
    """What all workers have counted together."""

    def __init__(self, folder: Path) -> None:
        sums = [0] * _NUM_COUNTERS
        for path in folder.glob("calls-*"):
            raw = path.read_bytes()
            if len(raw) == _NUM_BYTES:  # else it is just being made
                sums = [old + new for old, new in zip(sums, memoryview(raw).cast("Q"), strict=True)]
        self.outcomes = dict(zip(OUTCOMES, sums, strict=False))
        self.buckets = sums[_FIRST_BUCKET:_SUM_US]
        self.sum_s = sums[_SUM_US] / 1e6
