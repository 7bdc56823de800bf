"""The queue of one model: bounded, and fair between those who pay. Pure.

Payers take turns, one ticket each; the tickets of one payer leave in the order in which they came.
"""

from collections import deque

from serai_gpu_pool.core import Ticket


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

    def push(self, ticket: Ticket) -> None:
        assert not self.is_full, "ask is_full first"
        waiting = self._payers.get(ticket.payer)
        if waiting is None:
            waiting = self._payers[ticket.payer] = deque()
        waiting.append(ticket)
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

    def take(self, max_tickets: int, max_bytes: int) -> list[Ticket]:
        """The next tickets by turns: at least one if there is any, then while they fit both limits."""
        taken: list[Ticket] = []
        num_bytes = 0
        while self._length and len(taken) < max_tickets:
            payer = next(iter(self._payers))
            waiting = self._payers[payer]
            ticket = waiting[0]
            num_bytes += len(ticket.payload)
            if taken and num_bytes > max_bytes:
                break
            taken.append(waiting.popleft())
            self._count(ticket, -1)
            if len(self._payers) > 1 or not waiting:
                del self._payers[payer]
                if waiting:
                    self._payers[payer] = waiting  # behind the others
        return taken

    def remove(self, ticket: Ticket) -> None:
        """Take out one ticket, wherever it stands."""
        waiting = self._payers[ticket.payer]
        waiting.remove(ticket)
        if not waiting:
            del self._payers[ticket.payer]
        self._count(ticket, -1)

    def drain(self) -> list[Ticket]:
        """Everything, in order of turns; the queue is empty afterwards."""
        return self.take(self._length, 1 << 62)

    def _count(self, ticket: Ticket, step: int) -> None:
        ticket.queued = step > 0
        self._length += step
        self.num_bytes += step * len(ticket.payload)
