"""What the pool knows about one model: who waits for it, what it costs, what is held against it. Pure."""

from serai_gpu_pool.core import ModelSpec, OutcomeKind, Ticket, Verdict
from serai_gpu_pool.scheduling.queues import FairQueue
from serai_gpu_pool.scheduling.times import Times
from serai_gpu_pool.settings import Limits

#: A session takes about its file twice while it is made: the file's bytes and the unpacked weights.
_GUESS_FACTOR = 2
#: And something for the graph, whatever the size of the weights.
_GUESS_BYTES = 4 << 20
#: Weight of the newest load in the moving averages of load times.
_NEWEST = 0.5
#: The same of the time between two calls; a longer one counts as this, so that a burst is noticed after some calls.
_NEWEST_GAP, _LONGEST_GAP_S = 0.1, 1.0
#: A load that is foreseen begins so many load times and so much earlier.
_LEAD_LOADS, _LEAD_S = 3.0, 0.05
#: What a run that ran out of memory is thought to need, relative to the most that is known to have been enough, or to
#: what was not enough when the same payer's calls were last tried again.
_MORE = 2
#: A guess is at most this part of a device's budget: others go for it, and it may be wrong. Only what a run has really
#: needed may be more.
_GUESS_SHARE = 4
#: Payers of whom it is remembered that a guess did not help them; beyond it the longest known is forgotten.
_MAX_FAILED = 256


class Stats:
    """Sums over calls since the start, for people and for v2 statistics."""

    __slots__ = ("batches", "compute_s", "evictions", "failed", "hits", "loads", "queue_s", "refused", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.refused = self.loads = self.evictions = self.hits = 0
        self.queue_s = self.compute_s = 0.0
        self.batches: dict[int, list[float]] = {}  # size: how many, seconds

    def batch(self, size: int, seconds: float) -> None:
        row = self.batches.get(size)
        if row is None:
            row = self.batches[size] = [0, 0.0]
        row[0] += 1
        row[1] += seconds

    def runs_of(self, size: int) -> int:
        row = self.batches.get(size)
        return int(row[0]) if row is not None else 0


class Model:
    """One model, by `ModelSpec.key`: versions that carry the same data file share it."""

    __slots__ = (
        "activation_bytes",
        "asked_at",
        "best_times",
        "called_at",
        "failed_with",
        "framework",
        "gap_s",
        "improve_bytes",
        "improved_on",
        "key",
        "last_use",
        "last_used",
        "load_s",
        "load_tries",
        "measured_bytes",
        "other_use",
        "pins",
        "queue",
        "retries",
        "spec",
        "stats",
        "suspect",
        "times",
        "verdict",
        "verdicts",
        "waiting_since",
        "wanted_until",
    )  # fmt: skip

    def __init__(self, spec: ModelSpec, framework: str, max_queued: int, pins: set[str] | None = None) -> None:
        """`pins`: keys of all models that are pinned, this one's among them while it is."""
        self.spec = spec
        self.key = spec.key
        self.pins: set[str] = set() if pins is None else pins
        self.framework = framework
        self.queue = FairQueue(max_queued)
        self.times: dict[str, Times] = {}  # by device, in the form that opens first
        self.best_times: dict[str, Times] = {}  # the same of the form that runs fastest
        self.improved_on: set[str] = set()  # devices on which it runs in that form now
        self.measured_bytes = 0  # device memory when it was last resident; 0: never was
        self.improve_bytes = 0  # most that opening its fastest form takes; 0: not known
        self.load_s: dict[str, float] = {}  # by the tier it came from
        self.activation_bytes: dict[int, int] = {}  # beside the weights, by batch size
        self.retries: dict[Ticket, int] = {}  # that ran out of memory, and the bytes that they are to have this time
        self.failed_with: dict[str, int] = {}  # by payer: bytes that were not enough for one of its calls alone
        self.last_used = 0.0
        self.asked_at = 0.0  # of the last call or order
        self.called_at = 0.0
        self.last_use = self.other_use = ("", float("-inf"))  # owner, when: the last, and the last of another owner
        self.gap_s = _LONGEST_GAP_S  # between two calls, lately
        self.waiting_since = 0.0  # since when it wants to be loaded
        self.wanted_until = 0.0  # somebody asked for it to be loaded, without a call, and waits until then
        self.load_tries = 0  # that ran out of memory, in a row
        self.suspect = False  # it may have ended its worker while it was loaded: next time with nothing beside it
        self.verdict: Verdict | None = None  # for everybody: its file cannot be loaded
        self.verdicts: dict[tuple[str, str], Verdict] = {}  # by owner and payer ("": all): it ends its worker
        self.stats = Stats()

    def called(self, now: float) -> None:
        self.gap_s += _NEWEST_GAP * (min(now - self.called_at, _LONGEST_GAP_S) - self.gap_s)
        self.called_at = now

    def used_for(self, owner: str, now: float) -> None:
        """A version of this owner was run, or was asked to be loaded."""
        if self.last_use[0] != owner:
            self.other_use = self.last_use
        self.last_use = (owner, now)

    def used_by_others_at(self, owner: str) -> float:
        """When a version of somebody else that shares the file was last used."""
        return (self.other_use if self.last_use[0] == owner else self.last_use)[1]

    def times_on(self, device: str) -> Times:
        """Of the form in which it runs there now."""
        forms = self.best_times if device in self.improved_on else self.times
        times = forms.get(device)
        if times is None:
            times = forms[device] = Times()
        return times

    def held_against(self, ticket: Ticket, now: float) -> Verdict | None:
        if self.verdict is None and not self.verdicts:
            return None
        owner = ticket.owner
        for verdict in (self.verdict, self.verdicts.get((owner, "")), self.verdicts.get((owner, ticket.payer))):
            if verdict is not None and now < verdict.until:
                return verdict
        return None

    def is_locked_for_others(self, owner: str, payer: str, now: float) -> bool:
        """Has another caller of this owner's versions been locked out?"""
        return any(
            one[0] == owner and one[1] not in ("", payer) and now < verdict.until
            for one, verdict in self.verdicts.items()
        )

    @property
    def pinned(self) -> bool:
        """An operator keeps it in memory."""
        return self.key in self.pins

    @pinned.setter
    def pinned(self, is_pinned: bool) -> None:
        (self.pins.add if is_pinned else self.pins.discard)(self.key)

    @property
    def is_asked_for(self) -> bool:
        """By callers or by operators."""
        return bool(len(self.queue) or self.pinned or self.wanted_until)

    def is_held_back(self, now: float) -> bool:
        """It was tried lately, and cannot be loaded."""
        return self.verdict is not None and now < self.verdict.until

    def loaded_in(self, tier: str, seconds: float) -> None:
        before = self.load_s.get(tier)
        self.load_s[tier] = seconds if before is None else before + _NEWEST * (seconds - before)

    @property
    def lead_s(self) -> float:
        """How long before a call its load should begin: others may be loading just then."""
        return _LEAD_S + _LEAD_LOADS * max(self.load_s.values(), default=0.0)

    def patience_s(self, limits: Limits) -> float:
        """How long it waits for room before the queues of others stop protecting them."""
        load_s = self.load_s.get("host") or self.load_s.get("disk")
        return (
            max(limits.min_patience_s, min(limits.patience_s, limits.patience_loads * load_s))
            if load_s
            else limits.patience_s
        )

    @property
    def least_bytes(self) -> int:
        """A model that needs more than the whole budget can never be loaded."""
        return self.measured_bytes or self.spec.num_bytes

    def bytes_to_reserve(self, budget: int) -> int:
        """For a load: what was measured, else a guess from the file. More after it was not enough."""
        wanted = self.measured_bytes or _GUESS_FACTOR * self.spec.num_bytes + _GUESS_BYTES
        return min(wanted << self.load_tries, budget)

    def activation(self, size: int) -> int:
        """Bytes that a batch of this size needs beside the weights: measured, or scaled up from a smaller one."""
        known = self.activation_bytes
        exact = known.get(size)
        if exact is not None or not known:
            return exact or 0
        below = [one for one in known if one < size]
        if below:
            nearest = max(below)
            return known[nearest] * size // nearest
        return known[min(known)]

    def guess(self, ticket: Ticket, budget: int) -> bool:
        """A run with this ticket ran out of memory: is it worth another try, alone and with more set aside?

        What a failed run was given says nothing of what others need, so it is kept for this ticket only. No guess is
        made twice for a payer: others had to go for it.
        """
        known = self.activation(1)
        failed_with = self.failed_with.get(ticket.payer, 0)
        wanted = min(_MORE * max(known, failed_with, _GUESS_BYTES), max(budget // _GUESS_SHARE, known))
        if wanted <= failed_with:
            return False
        self.retries = {one: num_bytes for one, num_bytes in self.retries.items() if not one.done}
        self.retries[ticket] = wanted
        return True

    @property
    def guessed_bytes(self) -> int:
        """That the next batch may need, because a ticket in the queue is to be tried again."""
        return max((num_bytes for ticket, num_bytes in self.retries.items() if ticket.queued), default=0)

    def tried_again(self, ticket: Ticket, outcome: OutcomeKind, given_bytes: int, peak_bytes: int) -> None:
        """A ticket that is perhaps one of `retries` was run, with so much set aside."""
        wanted = self.retries.pop(ticket, None)
        if wanted is None:
            return
        if outcome == "OutOfMemoryError":
            before = self.failed_with.pop(ticket.payer, 0)
            self.failed_with[ticket.payer] = max(before, wanted)  # what was asked for, even if there was less
            if len(self.failed_with) > _MAX_FAILED:
                del self.failed_with[next(iter(self.failed_with))]
        elif outcome == "ok" and not peak_bytes:  # nobody measured what it needed
            self.activation_bytes[1] = max(self.activation_bytes.get(1, 0), given_bytes)
