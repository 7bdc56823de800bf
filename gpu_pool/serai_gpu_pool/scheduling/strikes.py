"""Models that keep killing the worker are kept away from it for a while. Pure."""

from collections import deque
from collections.abc import Hashable

#: Crashes or hangs in the window before a model is locked out. Two may be bad luck: another model's fault, or a kill.
MAX_STRIKES = 3
#: Seconds in which strikes are counted, and for which a model is locked out then.
WINDOW_S = 600.0


class Strikes:
    __slots__ = ("_when",)

    def __init__(self) -> None:
        self._when: dict[Hashable, deque[float]] = {}

    def add(self, model: Hashable, now: float) -> bool:
        """Count one crash or hang. True when the model has now used up its strikes; the count then begins anew."""
        when = self._when.setdefault(model, deque())
        when.append(now)
        while when[0] <= now - WINDOW_S:
            when.popleft()
        if len(when) < MAX_STRIKES:
            return False
        del self._when[model]
        return True
