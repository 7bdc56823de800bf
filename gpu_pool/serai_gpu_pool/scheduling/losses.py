"""Whose fault it was that a worker ended, and who gets another chance. Pure.

A run changes nothing, so it may be run again. Whoever ran or was loaded when the worker ended is a suspect; with
several suspects each is tried again by itself, and who is there for the second time is taken for guilty: a call in a
batch of its own, a model that was loaded with nothing beside it but what is late. So a poisoned call costs two
workers, and its batch mates nothing.
"""

from dataclasses import dataclass, field

from serai_gpu_pool.core import Batch, Ticket
from serai_gpu_pool.scheduling.copies import Copy
from serai_gpu_pool.scheduling.workers import Worker

#: Times that a worker may end under a ticket, the last of them in a batch of its own, and in all.
_MAX_ALONE, _MAX_ATTEMPTS = 2, 4


@dataclass(slots=True)
class Findings:
    again: list[Ticket] = field(default_factory=list)  # to be queued again, in their order
    failed: list[Ticket] = field(default_factory=list)  # to be told that the worker ended
    guilty: list[tuple[str, str]] = field(default_factory=list)  # model keys and owners that get a strike
    batches: list[Batch] = field(default_factory=list)  # of those models

    def payers_of(self, key: str, owner: str) -> list[str]:
        """Whose calls those were; nobody's, where it was a load."""
        tickets = [ticket for batch in self.batches if batch.model == key for ticket in batch.tickets]
        return sorted({ticket.payer for ticket in tickets if ticket.owner == owner}) or [owner]

    def wasted(self, now: float) -> list[tuple[str, float]]:
        """Payers, and the device seconds that came to nothing through what they called."""
        return [
            (ticket.payer, (now - batch.started_at) / len(batch.tickets))
            for batch in self.batches
            for ticket in batch.tickets
        ]


def investigate(worker: Worker, batches: list[Batch]) -> Findings:
    """Called with the batches that the worker had, in order, before it forgets what it was loading.

    Of each lane only the first batch had begun. Batches behind it are not suspects.
    """
    findings = Findings()
    begun: list[Batch] = []
    for batch in batches:
        if batch.lane not in {one.lane for one in begun}:
            begun.append(batch)
        elif not batch.is_disowned:
            findings.again += batch.tickets
    moving = worker.moving
    hung = worker.hung
    for batch in begun:
        innocent = hung is not None and hung.key != batch.model
        alone = len(begun) + len(moving) == 1 or hung is not None
        if not innocent:
            _judge(batch, findings, alone, is_hung=hung is not None)
        elif not batch.is_disowned:
            findings.again += batch.tickets
    for copy in moving:
        _judge_load(copy, findings, hung, alone=len(begun) + len(moving) == 1)
    order = {ticket: at for at, ticket in enumerate(ticket for batch in batches for ticket in batch.tickets)}
    findings.again = sorted((ticket for ticket in findings.again if not ticket.done), key=order.__getitem__)
    findings.failed = [ticket for ticket in findings.failed if not ticket.done]
    return findings


def _judge(batch: Batch, findings: Findings, alone: bool, is_hung: bool) -> None:
    by_itself = len(batch.tickets) == 1
    if alone or (by_itself and batch.tickets[0].attempts):
        findings.guilty += {(batch.model, ticket.owner) for ticket in batch.tickets}
        findings.batches.append(batch)
    if batch.is_disowned:
        return
    for ticket in batch.tickets:
        ticket.alone = True
        ticket.attempts += 1
        if (by_itself and (is_hung or ticket.attempts >= _MAX_ALONE)) or ticket.attempts >= _MAX_ATTEMPTS:
            findings.failed.append(ticket)
        else:
            findings.again.append(ticket)


def _judge_load(copy: Copy, findings: Findings, hung: Copy | None, alone: bool) -> None:
    if hung is None:
        if alone or copy.model.suspect:
            findings.guilty.append((copy.key, ""))
        copy.model.suspect = True
    elif hung is copy:  # nobody has to find out who it was
        findings.guilty.append((copy.key, ""))
