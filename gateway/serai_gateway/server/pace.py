"""Is a client keeping up? Two clocks without a clock: each is told what happened and what time it is."""

from serai_gateway.server.limits import HttpLimits


class BodyPace:
    """How fast a request body arrives. Time in which we did not read it is not the client's."""

    __slots__ = ("_limits", "_marked_at", "_marked_bytes", "_num_bytes", "_raised", "_started")

    def __init__(self, limits: HttpLimits, now: float, *, raised: bool) -> None:
        """`raised`: the path takes larger bodies, so only the rate counts."""
        self._limits = limits
        self._raised = raised
        self._started = self._marked_at = now
        self._num_bytes = self._marked_bytes = 0

    def arrived(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes

    def excuse(self, seconds: float) -> None:
        self._started += seconds
        self._marked_at += seconds

    def is_too_slow(self, now: float) -> bool:
        limits = self._limits
        if not self._raised and now - self._started >= limits.body_deadline_s:
            return True
        if now - self._marked_at < limits.body_window_s:
            return False
        if self._num_bytes - self._marked_bytes < limits.min_body_bytes_per_s * limits.body_window_s:
            return True
        self._marked_at, self._marked_bytes = now, self._num_bytes
        return False


class WriteWatch:
    """Whether a client takes what is written to it. Exists only while something is waiting to be taken."""

    __slots__ = ("_limits", "_marked_at", "_marked_bytes")

    def __init__(self, limits: HttpLimits, now: float, waiting_bytes: int) -> None:
        self._limits = limits
        self._marked_at = now
        self._marked_bytes = waiting_bytes

    def drained(self, now: float, waiting_bytes: int) -> None:
        """The client took enough that more could be written."""
        self._marked_at, self._marked_bytes = now, waiting_bytes

    def is_stuck(self, now: float, waiting_bytes: int) -> bool:
        limits = self._limits
        if now - self._marked_at < limits.write_deadline_s:
            return False
        if self._marked_bytes - waiting_bytes < limits.min_write_bytes_per_s * limits.write_deadline_s:
            return True
        self._marked_at, self._marked_bytes = now, waiting_bytes
        return False
