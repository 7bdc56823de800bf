"""Which models are in a device's memory: what is loaded next, and who goes for it. Pure.

    COLD ── want ──▶ COLD, wanted ── room ──▶ LOADING ──▶ RESIDENT ── condemned, not leased ──▶ DROPPING ──▶ COLD
                          '── no room: others are condemned, one load at a time

Its owner is the scheduler; only the two effects `load` and `drop` leave here.
"""

from typing import Protocol

from serai_gpu_pool.core import Counts, ModelSpec, State
from serai_gpu_pool.eviction import Candidate, Policy
from serai_gpu_pool.ledger import Ledger
from serai_gpu_pool.model import Model
from serai_gpu_pool.settings import Limits


class Effects(Protocol):
    def load(self, model: ModelSpec) -> None: ...
    def drop(self, model: str) -> None: ...


class Residency:
    __slots__ = ("_counts", "_dropping", "_effects", "_limits", "_policy", "_wanted", "ledger", "load_began", "loading",
                 "models", "room_at")  # fmt: skip

    def __init__(self, budget_bytes: int, limits: Limits, effects: Effects, policy: Policy, counts: Counts) -> None:
        self.ledger = Ledger(budget_bytes)
        self.models: dict[str, Model] = {}
        self.loading: Model | None = None
        self.load_began = 0.0
        self.room_at: float | None = None  # when to look for room again although nothing happened
        self._limits = limits
        self._effects = effects
        self._policy = policy
        self._counts = counts
        self._wanted: dict[str, Model] = {}  # cold models with tickets, the longest waiting first
        self._dropping: set[str] = set()  # told to go, or condemned: room is being made

    def model(self, spec: ModelSpec) -> Model:
        """What is known about this file; created cold when it is new."""
        model = self.models.get(spec.sha256)
        if model is None:
            model = self.models[spec.sha256] = Model(spec, self._limits.max_queued)
        return model

    def want(self, model: Model, now: float) -> None:
        """A cold model has tickets."""
        if model.state is State.COLD and model.key not in self._wanted:
            model.waiting_since = now
            self._wanted[model.key] = model

    def unwant(self, model: Model) -> None:
        self._wanted.pop(model.key, None)

    def lease(self, model: Model, now: float) -> None:
        self.ledger.lease(model.key)
        model.last_used = now

    def unlease(self, model: Model, now: float) -> None:
        self.ledger.unlease(model.key)
        model.last_used = now
        if model.condemned and not self.ledger.leases(model.key):
            self._drop(model, "room")

    # ── what the device reports; None: it was not asked for ──────────────────────────────────────────────────

    def loaded(self, key: str, resident_bytes: int, load_s: float, now: float) -> Model | None:
        """A load is done. A model that turns out to need more than there is in all goes at once."""
        model = self._take_loading(key)
        if model is None:
            return None
        self.ledger.commit(key, resident_bytes)
        model.state = State.RESIDENT
        model.measured_bytes, model.load_s = resident_bytes, load_s
        model.loaded_at = model.last_used = now
        model.verdict = None
        self._counts.loads += 1
        self._counts.load_seconds += load_s
        if resident_bytes > self.ledger.budget:
            self._drop(model, "too_large")
        return model

    def load_failed(self, key: str) -> Model | None:
        model = self._take_loading(key)
        if model is not None:
            self._counts.load_failures += 1
            self.ledger.release(key)
            model.state = State.COLD
        return model

    def dropped(self, key: str) -> Model | None:
        model = self.models.get(key)
        if model is None or model.state is not State.DROPPING:
            return None
        self._dropping.discard(key)
        self.ledger.release(key)
        model.state, model.condemned = State.COLD, False
        return model

    def lost(self) -> Model | None:
        """The device's process has ended: everything is cold. The model that was being loaded, if one was."""
        loading, self.loading, self.room_at = self.loading, None, None
        self.ledger.clear()
        self._dropping.clear()
        for model in self.models.values():
            model.state, model.condemned = State.COLD, False
        return loading

    # ── making it so ─────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: float) -> list[Model]:
        """Start the next load, or make room for it. Returns wanted models that can never fit; nobody waits for those.

        One load at a time: loads compete for the same disk and memory, and measuring two at once measures neither.
        """
        self.room_at = None
        oversized: list[Model] = []
        while self.loading is None and not self._dropping and self._wanted:
            model = next(iter(self._wanted.values()))
            if model.least_bytes > self.ledger.budget:
                self.unwant(model)
                oversized.append(model)
                continue
            num_bytes = model.bytes_to_reserve(self.ledger.budget)
            if num_bytes <= self.ledger.free:
                self._load(model, num_bytes, now)
            elif not self._make_room(num_bytes - self.ledger.free, model.waiting_since + self._limits.patience_s, now):
                break
        if self.ledger.free < 0 and not self._dropping:
            self._make_room(-self.ledger.free, now, now)
        return oversized

    def _load(self, model: Model, num_bytes: int, now: float) -> None:
        self.unwant(model)
        self.ledger.reserve(model.key, num_bytes)
        model.state = State.LOADING
        self.loading, self.load_began = model, now
        self._effects.load(model.spec)

    def _make_room(self, num_bytes: int, patient_until: float, now: float) -> bool:
        """Tell the right ones to go. False: not possible now; `room_at` says when to look again, if not on an event.

        Patience ends: then a waiting model is not put off by the queues and leases of others any more. Those that it
        evicts get no new batch, and go as soon as they are not leased. Minimum residence always holds.
        """
        impatient = now >= patient_until
        times = [] if impatient else [patient_until]
        candidates: list[Candidate] = []
        for key, held in self.ledger.resident.items():
            model = self.models[key]
            resident_until = model.resident_until(self._limits.min_residence_loads)
            if now < resident_until:
                times.append(resident_until)
            elif impatient or not (self.ledger.leases(key) or len(model.queue)):
                candidates.append(Candidate(key, held, model.last_used, model.load_s))
        victims = self._policy(candidates, num_bytes)
        if victims is None:
            self.room_at = min(times, default=None)
            return False
        for key in victims:
            model = self.models[key]
            model.condemned = True
            self._dropping.add(key)
            if not self.ledger.leases(key):
                self._drop(model, "room")
        return True

    def _drop(self, model: Model, reason: str) -> None:
        self._dropping.add(model.key)
        model.state = State.DROPPING
        self._counts.evictions[reason] = self._counts.evictions.get(reason, 0) + 1
        self._effects.drop(model.key)

    def _take_loading(self, key: str) -> Model | None:
        model = self.loading
        if model is None or model.key != key:
            return None
        self.loading = None
        return model
