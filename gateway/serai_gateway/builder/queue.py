"""Which build comes next. Pure: no clock, no threads.

One at a time for each algorithm, a few at once in all, and turns between accounts: whoever has the fewest builds
running goes first, among those whoever had a turn longest ago, and of one account what came first. No account has all
places: its endless builds keep nobody waiting.
"""

from collections import Counter
from typing import NamedTuple

#: Builds at once. Most of a build is other programs' work, which uses all cores.
MAX_RUNNING = 2
#: Builds that wait, of everybody and of one account.
MAX_WAITING = 64
MAX_WAITING_OF_ACCOUNT = 8


class Full(NamedTuple):
    """Why a build cannot even wait."""

    message: str
    is_own_limit: bool  # of whoever asks; else there is no room for anybody


class Ticket(NamedTuple):
    """A build that wants its turn."""

    id: str
    algorithm: str
    account: str


class Queue:
    def __init__(
        self,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
        max_waiting_of_account: int = MAX_WAITING_OF_ACCOUNT,
    ) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_of_account = max_waiting_of_account
        self._waiting: dict[str, Ticket] = {}  # in the order in which they came
        self._running: dict[str, Ticket] = {}  # that use a thread
        self._held: dict[str, str] = {}  # algorithm to the ticket that has its turn
        self._num_begun = 0
        self._last_turn: dict[str, int] = {}  # account to which build it was, of those that have begun

    def add(self, ticket: Ticket) -> Full | None:
        """Why it cannot wait here; None: it waits now."""
        of_account = sum(ticket.account == other.account for other in self._waiting.values())
        if of_account >= self._max_of_account:
            return Full(f"{of_account} builds of yours are waiting already; try again when one has ended", True)
        if len(self._waiting) >= self._max_waiting:
            return Full(f"{len(self._waiting)} builds are waiting already; try again later", False)
        self._waiting[ticket.id] = ticket
        return None

    def next(self) -> Ticket | None:
        """The build that begins now, if one can."""
        if len(self._running) >= self._max_running:
            return None
        busy = Counter(ticket.account for ticket in self._running.values())
        most = max(1, self._max_running - 1)
        ready = [
            ticket
            for ticket in self._waiting.values()
            if ticket.algorithm not in self._held and busy[ticket.account] < most
        ]
        chosen = min(ready, key=lambda one: (busy[one.account], self._last_turn.get(one.account, 0)), default=None)
        if chosen is not None:
            self._num_begun += 1
            self._last_turn[chosen.account] = self._num_begun
            del self._waiting[chosen.id]
            self._running[chosen.id] = chosen
            self._held[chosen.algorithm] = chosen.id
        return chosen

    def ended(self, id: str, *, keeps_turn: bool = False) -> None:
        """Its work is done. With `keeps_turn` nothing else of its algorithm begins before `release`."""
        ticket = self._running.pop(id, None)
        if ticket is not None and not keeps_turn:
            del self._held[ticket.algorithm]
        self._forget_who_wants_nothing()

    def release(self, id: str) -> None:
        """It wants its turn no more: it waits no longer, or what came after its work is done too."""
        self._waiting.pop(id, None)
        if id not in self._running:
            self._held = {algorithm: holder for algorithm, holder in self._held.items() if holder != id}
        self._forget_who_wants_nothing()

    def _forget_who_wants_nothing(self) -> None:
        here = {ticket.account for ticket in (*self._waiting.values(), *self._running.values())}
        self._last_turn = {account: turn for account, turn in self._last_turn.items() if account in here}

    def before(self, id: str) -> int:
        """How many builds of the same algorithm must end before this one begins."""
        mine = self._waiting.get(id)
        if mine is None:
            return 0
        num = int(mine.algorithm in self._held)
        for other in self._waiting.values():
            if other.id == id:
                break
            num += other.algorithm == mine.algorithm
        return num

    def is_waiting(self, id: str) -> bool:
        return id in self._waiting
