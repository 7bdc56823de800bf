"""Whose turn it is: each payer gets the same share of the devices' time, however much it asks for. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over device seconds: a payer's clock advances by the time that its
items took, the one whose clock is furthest behind goes next, and who was away starts at the clock of those who were
not.
"""

#: Payers that are remembered without having anything queued; beyond it the half that is furthest behind is forgotten.
_MAX_IDLE = 1024


#: Who was away starts so much behind the others: a few small calls at once are not torn apart by somebody's large
#: batches. As long as one batch may be. It is had once: after that a payer's own clock goes on.
_CREDIT_S = 0.025


class Turns:
    __slots__ = ("_backlog", "_clock", "_now", "_waiting", "total_backlog_s")

    def __init__(self) -> None:
        self._clock: dict[str, float] = {}
        self._waiting: dict[str, int] = {}  # tickets queued
        self._backlog: dict[str, float] = {}  # estimated seconds of them
        self._now = 0.0  # clock of the payer that was served last
        self.total_backlog_s = 0.0

    def joined(self, payer: str, cost_s: float) -> None:
        """A ticket was queued that is thought to take so long."""
        waiting = self._waiting.get(payer, 0)
        if not waiting:
            if self._clock.get(payer, 0.0) < self._now - _CREDIT_S:
                self._clock[payer] = self._now - _CREDIT_S
            self._backlog[payer] = 0.0
        self._waiting[payer] = waiting + 1
        self._backlog[payer] += cost_s
        self.total_backlog_s += cost_s

    def left(self, payer: str, cost_s: float) -> None:
        """A queued ticket was taken out, to run or to end."""
        waiting = self._waiting[payer] - 1
        self.total_backlog_s -= cost_s
        if waiting:
            self._waiting[payer] = waiting
            self._backlog[payer] -= cost_s
            return
        del self._waiting[payer]
        self.total_backlog_s -= self._backlog.pop(payer) - cost_s  # what rounding left over
        if not self._waiting:
            self.total_backlog_s = 0.0
        if len(self._clock) > len(self._waiting) + _MAX_IDLE:
            idle = sorted([(at, name) for name, at in self._clock.items() if name not in self._waiting])
            for _, name in idle[: len(idle) // 2]:
                del self._clock[name]

    def charge(self, payer: str, seconds: float) -> None:
        """One of the payer's items is given to a device, for so much of its time. Not only when it is done: whoever has
        one under way would be taken for one that has had nothing."""
        at = max(self._clock.get(payer, self._now), self._now - _CREDIT_S)
        self._now = max(at, self._now)
        self._clock[payer] = at + seconds

    def correct(self, payer: str, seconds: float) -> None:
        """It took so much more than was charged, or less."""
        at = self._clock.get(payer)
        if at is not None:
            self._clock[payer] = at + seconds

    def clock(self, payer: str) -> float:
        return self._clock.get(payer, self._now)

    def ahead_s(self, payer: str, cost_s: float) -> float:
        """Device seconds that are served before a ticket of this payer that comes now: its own, and what the others
        are owed meanwhile."""
        own = self._backlog.get(payer, 0.0)
        others = len(self._waiting) - (payer in self._waiting)
        return own + min(self.total_backlog_s - own, others * (own + cost_s))
