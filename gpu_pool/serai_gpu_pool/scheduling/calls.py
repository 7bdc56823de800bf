"""Every ticket from its arrival to its one end, and the sums over those that wait. Pure.

waits in its model's queue ──▶ runs ──▶ ends       '── again, when it was not its fault ──▲
"""

from collections.abc import Callable

from serai_gpu_pool.core import Counts, End, Outcome, Refused, Ticket
from serai_gpu_pool.scheduling.deadlines import Deadlines
from serai_gpu_pool.scheduling.effects import Effects, Result
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.turns import Turns


class Calls:
    """The owner of `Ticket.queued`, `running` and `done`.

    Args:
        emptied: told of a model when the last of its tickets has left the queue.
    """

    __slots__ = ("_counts", "_effects", "_emptied", "_models", "deadlines", "queued_bytes", "turns")

    def __init__(
        self, models: dict[str, Model], effects: Effects, counts: Counts, emptied: Callable[[Model], None]
    ) -> None:
        self.turns = Turns()
        self.deadlines = Deadlines()
        self.queued_bytes = 0
        self._models = models
        self._effects = effects
        self._counts = counts
        self._emptied = emptied

    def arrived(self, ticket: Ticket, now: float) -> None:
        """It was not refused: from now on its deadline is watched."""
        self.deadlines.add(ticket)
        ticket.enqueued_at = now

    def wait(self, model: Model, ticket: Ticket, cost_s: float) -> None:
        """It goes to the end of the queue."""
        self._joined(ticket, cost_s)
        model.queue.push(ticket)

    def wait_again(self, model: Model, tickets: list[Ticket], cost_s: float) -> None:
        """They had been taken out, and go back to the front."""
        for ticket in tickets:
            ticket.running = False
            self._joined(ticket, cost_s)
        model.queue.push_back(tickets)

    def _joined(self, ticket: Ticket, cost_s: float) -> None:
        ticket.cost_s = cost_s
        self.turns.joined(ticket.payer, cost_s)
        self.queued_bytes += len(ticket.payload)

    def take(self, model: Model, number: int, max_bytes: int) -> list[Ticket]:
        """The next tickets, by turns; nobody else has them now."""
        tickets = model.queue.take(number, max_bytes, self.turns)
        self._left(model, tickets)
        return tickets

    def _left(self, model: Model, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self.turns.left(ticket.payer, ticket.cost_s)
            self.queued_bytes -= len(ticket.payload)
        if not len(model.queue):
            self._emptied(model)

    def came_back(self, ticket: Ticket) -> None:
        """The batch that it was in has ended, one way or the other: nobody reads its input any more."""
        ticket.running = False
        if ticket.done:
            ticket.payload = b""

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, ticket: Ticket, outcome: Outcome, payload: Result, compute_s: float, batch_s: float) -> None:
        """It was run. compute_s: its share of batch_s."""
        stats = self._models[ticket.model].stats
        ticket.payload = b""
        self._end(ticket)
        if outcome.kind == "ok":
            stats.succeeded += 1
        else:
            stats.failed += 1
        stats.compute_s += compute_s
        self._counts.outcomes[outcome.kind] = self._counts.outcomes.get(outcome.kind, 0) + 1
        self._effects.finish(ticket, outcome, payload, batch_s)

    def refuse(self, ticket: Ticket, end: End) -> None:
        """It is not run, or not any more; wherever it is."""
        self._unqueue(ticket)
        self._end(ticket)
        code = end.code if isinstance(end, Refused) else "broken"
        self._counts.refusals[code] = self._counts.refusals.get(code, 0) + 1
        self._models[ticket.model].stats.refused += 1
        self._effects.refuse(ticket, end)

    def refuse_all(self, model: Model, end: End, owner: str | None = None, payer: str | None = None) -> None:
        """All that wait for a model, or for versions of one owner, or those of one payer among them."""
        tickets = model.queue.drain(owner, payer)
        self._left(model, tickets)
        for ticket in tickets:
            self.refuse(ticket, end)

    def cancel(self, ticket: Ticket) -> None:
        """Its caller has gone: nothing is sent to anybody."""
        if not ticket.done:
            self._unqueue(ticket)
            self._end(ticket)
            self._counts.outcomes["cancelled"] = self._counts.outcomes.get("cancelled", 0) + 1

    def _unqueue(self, ticket: Ticket) -> None:
        if ticket.queued:
            model = self._models[ticket.model]
            model.queue.remove(ticket)
            self._left(model, [ticket])

    def _end(self, ticket: Ticket) -> None:
        assert not ticket.done, "a call has exactly one end"
        ticket.done = True
        if not ticket.running:
            ticket.payload = b""
        self.deadlines.ended(ticket)
