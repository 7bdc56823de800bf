"""The pool's decisions: who is refused, who waits, which batch runs next. Pure.

Every method is an event with the time at which it happened. The way out is `Effects`, nothing else. See design.md.
"""

from typing import Protocol

from serai_gpu_pool import refusals, residency
from serai_gpu_pool.batching import max_items
from serai_gpu_pool.core import Batch, Counts, End, LoadFailure, ModelSpec, Outcome, Refused, State, Ticket
from serai_gpu_pool.deadlines import Deadlines
from serai_gpu_pool.eviction import Policy, least_recently_used
from serai_gpu_pool.model import Model
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.strikes import Strikes

Result = bytes | memoryview


class Effects(residency.Effects, Protocol):
    """What the scheduler may cause. None of these may call back into it at once."""

    def run(self, batch: Batch) -> None: ...
    def kill_worker(self, reason: str) -> None: ...
    def finish(self, ticket: Ticket, outcome: Outcome, payload: Result, duration_s: float) -> None: ...
    def refuse(self, ticket: Ticket, end: End) -> None: ...


class Scheduler:
    """One device: its memory, its queues, its batches."""

    def __init__(self, budget_bytes: int, limits: Limits, effects: Effects, policy: Policy = least_recently_used):
        self.counts = Counts()
        self.residency = residency.Residency(budget_bytes, limits, effects, policy, self.counts)
        self.draining = False
        self.queued_bytes = 0
        self.running: dict[int, Batch] = {}  # in the order in which the device runs them
        self._limits = limits
        self._effects = effects
        self._strikes = Strikes()
        self._deadlines = Deadlines()
        self._ready: dict[str, Model] = {}  # models with tickets that may be resident, in the order of their turns
        self._worker_up = False
        self._worker_error = ""  # why no worker can be started; empty: one is there or on its way
        self._killed = False  # the worker is on its way out: nothing is sent to it, no second kill
        self._hung: Model | None = None  # for which it was killed
        self._last_batch = 0

    @property
    def num_live(self) -> int:
        """Tickets that wait or run."""
        return self._deadlines.num_live

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_call(self, ticket: Ticket, spec: ModelSpec, now: float) -> None:
        """A call arrived: queue it or refuse it.

        (1) we are stopping  (2) its deadline has passed  (3) no worker can be started  (4) its model is locked out or
        broken  (5) or too large  (6) too many wait  (7) it would wait past its deadline. Otherwise it waits.
        """
        model = self.residency.model(spec)
        end = self._objection(ticket, model, now)
        if end is not None:
            self._refuse(ticket, end)
            return
        self._deadlines.add(ticket)
        ticket.enqueued_at = now
        model.queue.push(ticket)
        self.queued_bytes += len(ticket.payload)
        if model.state is State.RESIDENT:
            self.counts.hits += 1
        else:
            self.counts.misses += 1
        self._find_place(model, now)

    def on_cancel(self, ticket: Ticket) -> None:
        """Its caller has gone. It ends here: nothing is sent to anybody."""
        if not ticket.done:
            self._unqueue(ticket)
            self._end(ticket)
            self.counts.outcomes["cancelled"] = self.counts.outcomes.get("cancelled", 0) + 1

    def on_drain(self) -> None:
        self.draining = True

    def _objection(self, ticket: Ticket, model: Model, now: float) -> End | None:
        if self.draining:  # (1)
            return refusals.DRAINING
        if not ticket.deadline > now:  # (2)
            return refusals.EXPIRED_ON_ARRIVAL
        if self._worker_error:  # (3)
            return refusals.no_worker(self._worker_error)
        verdict = model.verdict
        if verdict is not None and now < verdict.until:  # (4)
            end = verdict.end
            return (
                Refused(end.code, end.message, end.retriable, verdict.until - now) if isinstance(end, Refused) else end
            )
        if model.least_bytes > self.residency.ledger.budget:  # (5)
            return refusals.too_large(model, self.residency.ledger.budget)
        if model.queue.is_full:  # (6)
            return refusals.queue_full(model)
        if self.queued_bytes + len(ticket.payload) > self._limits.max_queued_bytes:
            return refusals.input_full(model, self.queued_bytes, self._limits.max_queued_bytes)
        wait_s = model.wait_estimate_s()
        return refusals.too_late(wait_s) if now + wait_s > ticket.deadline else None  # (7)

    # ── what the device reports ──────────────────────────────────────────────────────────────────────────────

    def on_worker_ready(self, now: float) -> None:
        self._worker_up, self._worker_error = True, ""
        self.counts.worker_starts += 1

    def on_start_failed(self, reason: str) -> None:
        """No worker could be started, again and again. Whoever waits is told; later ones until one is there."""
        self._worker_error = reason
        for model in self.residency.models.values():
            self._refuse_queue(model, refusals.no_worker(reason))

    def on_loaded(self, key: str, resident_bytes: int, load_s: float, now: float) -> None:
        model = self.residency.loaded(key, resident_bytes, load_s, now)
        if model is None:
            self.counts.ignored_messages += 1
        elif resident_bytes > self.residency.ledger.budget:
            self._refuse_queue(model, refusals.too_large(model, self.residency.ledger.budget))
        else:
            self._find_place(model, now)

    def on_load_failed(self, key: str, failure: LoadFailure, now: float) -> None:
        """Its callers are told why, and so are later ones until it is worth another try."""
        model = self.residency.load_failed(key)
        if model is None:
            self.counts.ignored_messages += 1
        else:
            model.verdict = refusals.not_loaded(failure, model.verdict, self._limits, now)
            self._refuse_queue(model, model.verdict.end)

    def on_dropped(self, key: str, now: float) -> None:
        model = self.residency.dropped(key)
        if model is None:
            self.counts.ignored_messages += 1
        else:
            self._find_place(model, now)

    def on_batch_done(
        self, batch_id: int, results: list[tuple[Outcome, Result]], duration_s: float, now: float
    ) -> None:
        """A batch came back: one result for each ticket, in their order."""
        batch = self.running.get(batch_id)
        if batch is None or len(results) != len(batch.tickets):
            self.counts.ignored_messages += 1
            if batch is not None:  # then nothing that it says can be trusted
                self._kill("the worker answered a batch with the wrong number of results")
            return
        del self.running[batch_id]
        for following in self.running.values():
            following.started_at = now
            break
        model = self.residency.models[batch.model]
        model.time.learn(len(results), duration_s)
        self.residency.unlease(model, now)
        outcomes = self.counts.outcomes
        for ticket, (outcome, payload) in zip(batch.tickets, results, strict=True):
            ticket.running, ticket.payload = False, b""
            if not ticket.done:
                self._end(ticket)
                outcomes[outcome.kind] = outcomes.get(outcome.kind, 0) + 1
                self._effects.finish(ticket, outcome, payload, duration_s)

    def on_worker_lost(self, reason: str, now: float) -> None:
        """The worker's process has ended, and with it everything that it held.

        (1) All memory is free, every model cold. (2) The batch that ran fails. (3) Later batches had not been begun:
        they are queued again. (4) The model that hung, or else those that ran and were loaded, get a strike each.
        """
        hung, batches = self._hung, list(self.running.values())
        self._worker_up = self._killed = False
        self._hung = None
        self.running.clear()
        self._ready.clear()
        self.counts.worker_losses += 1
        loading = self.residency.lost()  # (1)
        suspects = {hung.key: hung} if hung else {loading.key: loading} if loading else {}
        for batch in batches[:1]:  # (2)
            self._fail_batch(batch, reason, is_hung=hung is not None and hung.key == batch.model)
            if hung is None:
                suspects[batch.model] = self.residency.models[batch.model]
        for batch in reversed(batches[1:]):  # (3)
            waiting = [ticket for ticket in batch.tickets if not ticket.done]
            for ticket in batch.tickets:
                ticket.running = False
            self.residency.models[batch.model].queue.push_back(waiting)
            self.queued_bytes += sum(len(ticket.payload) for ticket in waiting)
        for model in suspects.values():  # (4)
            if self._strikes.add(model.key, now):
                model.verdict = refusals.locked_out(reason, now)
                self._refuse_queue(model, model.verdict.end)
        for model in self.residency.models.values():
            self._find_place(model, now)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def next_wakeup(self) -> float | None:
        """When `on_time` and `advance` have to be called although nothing happened."""
        times = [self._deadlines.next()]
        if self._worker_up and not self._killed:
            times += [self.residency.room_at, self._run_ends(), self._load_ends()]
        return min((time for time in times if time is not None), default=None)

    def on_time(self, now: float) -> None:
        """Tell those whose deadline has passed, and end a worker that is stuck."""
        for ticket in self._deadlines.due(now):
            self._unqueue(ticket)
            self._refuse(ticket, refusals.EXPIRED)
        if self._killed:
            return
        run_ends, load_ends = self._run_ends(), self._load_ends()
        if run_ends is not None and now >= run_ends:
            self._hung = self.residency.models[next(iter(self.running.values())).model]
            self._kill(f"a run took longer than {self._limits.run_timeout_s:g} s")
        elif load_ends is not None and now >= load_ends:
            self._hung = self.residency.loading
            self._kill(f"a load took longer than {self._limits.load_timeout_s:g} s")

    def _run_ends(self) -> float | None:
        for batch in self.running.values():
            return batch.started_at + self._limits.run_timeout_s
        return None

    def _load_ends(self) -> float | None:
        return self.residency.load_began + self._limits.load_timeout_s if self.residency.loading else None

    # ── making it so ─────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: float) -> None:
        """Give the device all the work that it can take now. Called once after each bunch of events."""
        if self._worker_up and not self._killed:
            for model in self.residency.advance(now):
                self._refuse_queue(model, refusals.too_large(model, self.residency.ledger.budget))
            while self._ready and len(self.running) < self._limits.depth:
                self._start_batch(now)

    def _start_batch(self, now: float) -> None:
        key = next(iter(self._ready))
        model = self._ready.pop(key)
        if not model.takes_batches:  # it goes; its tickets want it back once it is gone
            return
        limits = self._limits.batch
        tickets = model.queue.take(max_items(model.time, limits), limits.max_bytes)
        if len(model.queue):
            self._ready[key] = model  # behind the others
        for ticket in tickets:
            self.queued_bytes -= len(ticket.payload)
            ticket.running = True
        self._last_batch += 1
        batch = Batch(self._last_batch, key, tickets, now)
        self.running[batch.id] = batch
        self.residency.lease(model, now)
        self.counts.batches += 1
        self.counts.items += len(tickets)
        self._effects.run(batch)

    def _find_place(self, model: Model, now: float) -> None:
        """A model that has tickets is either ready, wanted, or on its way to be."""
        if not len(model.queue):
            return
        if model.takes_batches:
            self._ready.setdefault(model.key, model)
        else:
            self.residency.want(model, now)

    def _unqueue(self, ticket: Ticket) -> None:
        if ticket.queued:
            model = self.residency.models[ticket.model]
            model.queue.remove(ticket)
            self.queued_bytes -= len(ticket.payload)
            if not len(model.queue):
                self._forget_place(model)

    def _forget_place(self, model: Model) -> None:
        self._ready.pop(model.key, None)
        self.residency.unwant(model)

    def _refuse_queue(self, model: Model, end: End) -> None:
        self._forget_place(model)
        for ticket in model.queue.drain():
            self.queued_bytes -= len(ticket.payload)
            self._refuse(ticket, end)

    def _fail_batch(self, batch: Batch, reason: str, is_hung: bool) -> None:
        end = refusals.hung(reason) if is_hung else refusals.crashed(reason)
        for ticket in batch.tickets:
            ticket.running, ticket.payload = False, b""
            if not ticket.done:
                self._refuse(ticket, end)

    def _refuse(self, ticket: Ticket, end: End) -> None:
        self._end(ticket)
        code = end.code if isinstance(end, Refused) else "broken"
        self.counts.refusals[code] = self.counts.refusals.get(code, 0) + 1
        self._effects.refuse(ticket, end)

    def _end(self, ticket: Ticket) -> None:
        assert not ticket.done, "a call has exactly one end"
        ticket.done = True
        if not ticket.running:
            ticket.payload = b""
        self._deadlines.ended(ticket)

    def _kill(self, reason: str) -> None:
        self._killed = True
        self._effects.kill_worker(reason)
