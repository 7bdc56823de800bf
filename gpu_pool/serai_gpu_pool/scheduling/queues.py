"""The queue of one model: bounded, and fair between those who pay. Pure.

Payers take turns, one ticket each. The tickets of one payer leave by their priority, then in the order in which they
came.
"""

from collections import deque

from serai_gpu_pool.core import Ticket
from serai_gpu_pool.scheduling.turns import Turns

#: Where a ticket stands: the clock of its payer, its priority, since when it waits. Smaller goes first.
Rank = tuple[float, int, float]


class FairQueue:
    __slots__ = ("_length", "_payers", "max_tickets", "num_bytes")

    def __init__(self, max_tickets: int) -> None:
        self.max_tickets = max_tickets
        self.num_bytes = 0  # payloads that wait here
        self._length = 0
        self._payers: dict[str, deque[Ticket]] = {}  # in the order of their next turn

    def __len__(self) -> int:
        return self._length

    @property
    def is_full(self) -> bool:
        return self._length >= self.max_tickets

    @property
    def first_payer(self) -> str:
        """Whose turn is next here; empty when nobody waits."""
        return next(iter(self._payers), "")

    def push(self, ticket: Ticket) -> None:
        assert not self.is_full, "ask is_full first"
        waiting = self._payers.get(ticket.payer)
        if waiting is None:
            waiting = self._payers[ticket.payer] = deque()
        at = len(waiting)
        while at and waiting[at - 1].priority > ticket.priority:
            at -= 1
        if at == len(waiting):
            waiting.append(ticket)
        else:
            waiting.insert(at, ticket)
        self._count(ticket, 1)

    def push_back(self, tickets: list[Ticket]) -> None:
        """Put tickets back at the front that had been taken but were not begun. May go over the bound."""
        returned: dict[str, deque[Ticket]] = {}
        for ticket in tickets:
            returned.setdefault(ticket.payer, deque()).append(ticket)
            self._count(ticket, 1)
        for payer, waiting in returned.items():
            waiting.extend(self._payers.pop(payer, ()))
        self._payers = {**returned, **self._payers}

    def rank(self, turns: Turns) -> Rank:
        """Of the ticket here that is to go first; there must be one."""
        return min(
            (turns.clock(payer), waiting[0].priority, waiting[0].enqueued_at) for payer, waiting in self._payers.items()
        )

    def take(self, max_tickets: int, max_bytes: int, turns: Turns | None = None) -> list[Ticket]:
        """The next tickets by turns: at least one if there is any, then while they fit both limits.

        A ticket that has to run alone is taken alone.
        """
        if turns is not None and len(self._payers) > 1:
            self._payers = dict(sorted(self._payers.items(), key=lambda one: turns.clock(one[0])))
        taken: list[Ticket] = []
        num_bytes = 0
        while self._length and len(taken) < max_tickets:
            payer = next(iter(self._payers))
            waiting = self._payers[payer]
            ticket = waiting[0]
            num_bytes += len(ticket.payload)
            if taken and (num_bytes > max_bytes or ticket.alone):
                break
            taken.append(waiting.popleft())
            self._count(ticket, -1)
            if len(self._payers) > 1 or not waiting:
                del self._payers[payer]
                if waiting:
                    self._payers[payer] = waiting  # behind the others
            if ticket.alone:
                break
        return taken

    def remove(self, ticket: Ticket) -> None:
        """Take out one ticket, wherever it stands."""
        waiting = self._payers[ticket.payer]
        waiting.remove(ticket)
        if not waiting:
            del self._payers[ticket.payer]
        self._count(ticket, -1)

    def displaced_by(self, payer: str) -> Ticket | None:
        """Who has to go for a ticket of this payer when there is no place left: the newest of whoever has most.

        None: that is this payer itself, or would be with one more; or so many were put back that one is not enough.
        """
        if self._length > self.max_tickets:
            return None
        most = max(self._payers.values(), key=len, default=())
        return most[-1] if most and len(most) > len(self._payers.get(payer, ())) + 1 else None

    def drain(self, owner: str | None = None, payer: str | None = None) -> list[Ticket]:
        """All tickets, or those for versions of one owner (and of one payer), in order of turns; they are not here any
        more."""
        all_of_them: list[Ticket] = []
        while self._length:
            all_of_them += self.take(self._length, 1 << 62)
        if owner is None:
            return all_of_them
        meant = [one for one in all_of_them if one.owner == owner and payer in (None, one.payer)]
        self.push_back([one for one in all_of_them if one not in meant])
        return meant

    def _count(self, ticket: Ticket, step: int) -> None:
        ticket.queued = step > 0
        self._length += step
        self.num_bytes += step * len(ticket.payload)
