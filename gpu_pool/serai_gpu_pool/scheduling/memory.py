"""What is in the memory of one device, and who goes for whom. Pure."""

from collections.abc import Set
from dataclasses import dataclass

from serai_gpu_pool.core import Batch, Counts
from serai_gpu_pool.eviction import Candidate, Policy
from serai_gpu_pool.scheduling import believable
from serai_gpu_pool.scheduling.copies import Copy, Place
from serai_gpu_pool.scheduling.effects import Effects
from serai_gpu_pool.scheduling.history import History
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.ledger import Ledger
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.staff import Staff
from serai_gpu_pool.scheduling.workers import Worker
from serai_gpu_pool.settings import Limits

#: A worker may hold so much more than what is accounted for before it is replaced: allocators keep some.
_LEAK_BYTES = 64 << 20


@dataclass(frozen=True)
class DeviceSpec:
    """A device as it was found. `frameworks` are those that can run on it, here."""

    id: str  # "cpu", "cuda:0"
    name: str  # for people
    budget_bytes: int
    frameworks: frozenset[str]


class Memory:
    """Copies that hold memory of a device, until they have left it."""

    def __init__(
        self,
        spec: DeviceSpec,
        host: HostTier,
        limits: Limits,
        effects: Effects,
        policy: Policy,
        counts: Counts,
        pins: Set[str] = frozenset(),
    ) -> None:
        """`pins`: keys of all models that are pinned, as they are at any time."""
        self.spec = spec
        self.ledger = Ledger(spec.budget_bytes)
        self.policy = policy
        self.copies: dict[str, Copy] = {}
        self.staff = Staff(spec.id, self.ledger, effects)
        self.workers = self.staff.workers
        self.running: dict[int, Batch] = {}  # in the order in which they were begun
        self.ready: dict[str, Copy] = {}  # copies that take batches and have tickets
        self.improvable: dict[str, Copy] = {}  # hot, and there is a faster form; the first to be so first
        self.leaving: set[str] = set()  # condemned, or told to go: room is being made
        self.short_for: Copy | None = None  # it is to run, and there is no memory for that: nothing else gets any
        self.room_at: float | None = None  # when to look for room again although nothing happened
        self.history = History()
        self._host = host
        self._limits = limits
        self._effects = effects
        self._counts = counts
        self._pins = pins

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def copies_weights(self) -> bool:
        """Weights on a GPU are copies of those in RAM, which stay. On the CPU they are the same pages."""
        return self.spec.id != "cpu"

    def most_for(self, model: Model) -> int:
        """Bytes that this model can have when all have gone that may go: one that needs more is not loaded."""
        return self.ledger.budget - self.staff.base_of(self.staff.worker_for(model)) - self.pinned_beside(model)

    def pinned_beside(self, model: Model) -> int:
        """Bytes that operators keep for other models, and for the workers that these are in."""
        if not self._pins:
            return 0
        own, resident = self.staff.worker_for(model), self.ledger.resident
        return sum(resident.get(key, 0) for key in self._pins if key != model.key) + sum(
            self.staff.base_of(one)
            for one in self.workers.values()
            if one.id.owner and one is not own and one.is_pinned
        )

    @property
    def is_kept_for_run(self) -> bool:
        """What is free, or becomes free, is for a model that is resident and cannot run without it."""
        short_for = self.short_for
        return short_for is not None and short_for.takes_batches and bool(len(short_for.model.queue))

    def return_s(self, copy: Copy) -> float:
        """Seconds to bring it back after an eviction, from where it would be then."""
        load_s = copy.model.load_s
        if copy.can_page and copy.kept_bytes <= self._host.budget:
            return load_s.get("host") or load_s.get("disk", 0.0) / 10
        return load_s.get("disk", 0.0)

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def lease(self, copy: Copy, now: float) -> None:
        self.ledger.lease(copy.key)
        copy.last_used = now
        copy.runs += 1
        copy.is_unused = False
        if copy.can_improve and copy.runs >= self._limits.improve_after:
            self.improvable[copy.key] = copy
        self.policy.used(copy.key, self.ledger.resident[copy.key], self.return_s(copy), now)

    def unlease(self, copy: Copy, now: float) -> None:
        self.ledger.unlease(copy.key)
        copy.last_used = now
        if copy.condemned and not self.ledger.leases(copy.key):
            self._leave(copy, now)

    # ── going out ────────────────────────────────────────────────────────────────────────────────────────────

    def make_room(self, num_bytes: int, model: Model, now: float, patience_s: float | None = None) -> bool:
        """Tell the right ones to go, for the sake of `model`. False: not possible now; `room_at` may say when.

        Patience ends: then a waiting model is not put off by the queues and leases of others any more. Those that it
        evicts get no new batch, and go as soon as they are not leased. Minimum residence and pins always hold. Nobody
        waits for a model that is held by a run that does not end.
        """
        stuck = {batch.model for batch in self.running.values() if batch.is_late}
        if not self.leaving <= stuck:
            return False  # wait for what that brings
        patient_until = model.waiting_since + (model.patience_s(self._limits) if patience_s is None else patience_s)
        impatient = now >= patient_until
        times = [] if impatient else [patient_until]
        candidates: list[Candidate] = []
        for key in self.ledger.resident:
            copy = self.copies.get(key)
            if copy is None or copy.model is model or copy.model.pinned or copy.improving:
                continue
            if not copy.takes_batches or key in stuck:
                continue
            resident_until = copy.resident_until(self._limits.min_residence_loads)
            if now < resident_until:
                times.append(resident_until)
            elif impatient or not (self.ledger.leases(key) or len(copy.model.queue)):
                candidates.append(self._candidate(copy))
        victims = self.policy.victims(candidates, num_bytes, now)
        for key in victims or ():
            self.evict(self.copies[key], "room", now)
        if victims is None:
            at = self.staff.end_another(model, now, impatient and not times)
            for one in (at,) if at is not None else times:
                self._look_at(one, now)
        return victims is not None

    def expects_room(self) -> bool:
        """Has somebody been told to go, or will it be possible to tell them?"""
        return bool(self.leaving) or self.room_at is not None or self.staff.expects_end()

    def shrink(self, now: float) -> None:
        """Something turned out larger than it was thought to be: others go for it, or else it goes itself."""
        resident = [one for key in self.ledger.resident if (one := self.copies.get(key)) is not None]
        last = max((one for one in resident if one.takes_batches), key=lambda one: one.loaded_at, default=None)
        if last is None or self.make_room(-self.ledger.free, last.model, now, patience_s=float("-inf")):
            return
        if not self.expects_room():
            self.evict(last, "too_large", now)

    def evict(self, copy: Copy, reason: str, now: float) -> None:
        """It goes as soon as it is not leased, nor being opened in a faster form."""
        if not copy.takes_batches or copy.improving:
            return
        self.history.evicted(copy, self.policy.worth(copy.key, now), reason, now)
        self.policy.evicted(copy.key, now)
        self.ready.pop(copy.key, None)
        self.leaving.add(copy.key)
        copy.condemned, copy.reason, copy.model.pinned = True, reason, False
        if not self.ledger.leases(copy.key):
            self._leave(copy, now)

    def _candidate(self, copy: Copy) -> Candidate:
        held = self.ledger.resident[copy.key]
        return Candidate(copy.key, held, copy.last_used, self.return_s(copy))

    def _look_at(self, at: float, now: float) -> None:
        """There may be room then although nothing happens. Now: then something will happen."""
        if now < at < float("inf"):
            self.room_at = at if self.room_at is None else min(at, self.room_at)

    def _leave(self, copy: Copy, now: float) -> None:
        worker = self.workers[copy.worker]
        if not worker.is_up:
            return  # it goes with its process
        copy.place, copy.began_at = Place.LEAVING, now
        copy.target = "host" if copy.can_page and copy.kept_bytes <= self._host.budget else "disk"
        copy.model.stats.evictions += 1
        self._counts.evictions[copy.reason] = self._counts.evictions.get(copy.reason, 0) + 1
        worker.leaving[copy.key] = copy
        if copy.target == "host":
            self._effects.page_out(copy.worker, copy.key)
        else:
            self._effects.close(copy.worker, copy.key)

    def left(self, copy: Copy, kept_bytes: int, process_bytes: int, now: float) -> None:
        """The device says that the bytes are free."""
        self.leaving.discard(copy.key)
        self.workers[copy.worker].leaving.pop(copy.key, None)
        held_bytes = self.ledger.release(copy.key) if self.ledger.holds(copy.key) else 0
        self._host.release(copy)
        copy.condemned = False
        if copy.target == "host":
            copy.place, copy.kept_bytes = Place.HOST, believable.kept(kept_bytes, held_bytes, copy.model)
            self._host.hold(copy)
        else:
            copy.gone()
        self._check_release(self.workers[copy.worker], process_bytes)

    def close_from_host(self, copy: Copy, now: float) -> None:
        worker = self.workers[copy.worker]
        if not worker.is_up:
            return
        copy.place, copy.target, copy.began_at = Place.LEAVING, "disk", now
        worker.leaving[copy.key] = copy
        self._effects.close(copy.worker, copy.key)

    def _check_release(self, worker: Worker, process_bytes: int) -> None:
        """Does the process hold what it should? One that does not give memory back is replaced."""
        worker.process_bytes = process_bytes
        if not process_bytes or worker.batches or worker.loading or worker.improving:
            return
        held = sum(num_bytes for key, num_bytes in self.ledger.resident.items() if key in worker.copies)
        if process_bytes > worker.base_bytes + held + self._host.kept_by(worker.id) + max(
            _LEAK_BYTES, self.ledger.budget // 8
        ):
            worker.doomed = f"it holds {process_bytes} bytes where {worker.base_bytes + held} are accounted for"
            self._counts.leaks += 1

    def check_integrity(self) -> None:
        self.ledger.check_integrity()
        for copy in self.copies.values():
            has = self.ledger.holds(copy.key)
            if has != (copy.place in (Place.LOADING, Place.RESIDENT)) and copy.place is not Place.LEAVING:
                raise AssertionError(f"{copy.key} is {copy.place.value} and has memory: {has}")
