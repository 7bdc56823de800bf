"""Which tickets are due, and when the next one is. Pure."""

import heapq

from serai_gpu_pool.core import Ticket

#: Entries of ended tickets that are kept before the heap is rebuilt; more than the live ones, or it never pays.
_SLACK = 1024


class Deadlines:
    """A heap from which ended tickets are dropped lazily: at 15,000 calls a second nearly all entries are stale."""

    __slots__ = ("_added", "_heap", "num_live")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._added = 0
        self.num_live = 0

    def add(self, ticket: Ticket) -> None:
        self._added += 1
        self.num_live += 1
        ticket.counted = True
        heapq.heappush(self._heap, (ticket.deadline, self._added, ticket))
        if len(self._heap) > 2 * self.num_live + _SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)

    def ended(self, ticket: Ticket) -> None:
        """It got its end; one that was refused on arrival was never counted here."""
        if ticket.counted:
            self.num_live -= 1

    def next(self) -> float | None:
        while self._heap and self._heap[0][2].done:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Ticket]:
        """Tickets whose deadline has passed, taken out."""
        tickets = []
        while self._heap and self._heap[0][0] <= now:
            ticket = heapq.heappop(self._heap)[2]
            if not ticket.done:
                tickets.append(ticket)
        return tickets
