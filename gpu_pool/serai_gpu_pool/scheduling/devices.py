"""One device: which models come into its memory, in which worker, and when. Pure.

wanted ── worker up, room ──▶ LOADING ──▶ RESIDENT ── condemned, not leased ──▶ LEAVING ──▶ HOST or DISK
                '── no room: others are condemned
"""

from collections.abc import Iterable
from enum import Enum

from serai_gpu_pool.core import Batch
from serai_gpu_pool.scheduling import believable
from serai_gpu_pool.scheduling.copies import Copy, Place, Residence
from serai_gpu_pool.scheduling.memory import Memory
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.workers import Worker, WorkerState


class Start(Enum):
    """What came of an attempt to load a model."""

    BEGUN = "begun"
    NO_WORKER = "no worker"  # it is busy, not up, or may not be started
    NO_ROOM = "no room"


class Device(Memory):
    """One device. What is in its memory, and how it leaves: see `Memory`."""

    def copy_of(self, model: Model) -> Copy:
        copy = self.copies.get(model.key)
        if copy is None:
            worker = self.staff.worker_for(model)
            copy = self.copies[model.key] = worker.copies[model.key] = Copy(model, worker.id)
        return copy

    def forget(self, key: str) -> None:
        """A model that nobody uses, and that is on disk."""
        copy = self.copies.pop(key, None)
        if copy is not None:
            del self.workers[copy.worker].copies[key]
        self.policy.forget(key)

    # ── coming in ────────────────────────────────────────────────────────────────────────────────────────────

    def try_load(self, copy: Copy, now: float) -> Start:
        """Start to load, or make it possible: a worker, room."""
        worker = self.workers[copy.worker]
        if not worker.is_up:
            return self._try_start(worker, copy.model, now)
        if not worker.may_load(copy, self._limits, now):
            return Start.NO_WORKER
        num_bytes = copy.model.bytes_to_reserve(self.most_for(copy.model))
        if num_bytes > self.ledger.free:
            self.make_room(num_bytes - self.ledger.free, copy.model, now)
            return Start.NO_ROOM
        self.ledger.reserve(copy.key, num_bytes)
        copy.source = "host" if copy.place is Place.HOST else "disk"
        copy.place, copy.began_at, copy.condemned = Place.LOADING, now, False
        worker.loading[copy.key], worker.kept_for = copy, None
        if self.running:
            self._counts.prefetches += 1
        if copy.source == "host":
            self._counts.page_ins += 1
            self._effects.page_in(worker.id, copy.key)
        else:
            self._effects.load(worker.id, copy.model.spec)
        return Start.BEGUN

    def loaded(self, copy: Copy, residence: Residence, load_s: float, now: float) -> None:
        worker, model = self.workers[copy.worker], copy.model
        residence = believable.residence(residence, model)
        load_s = believable.seconds(load_s, worker.id, now - copy.began_at, self._limits.load_timeout_s)
        fits = residence.num_bytes <= self.most_for(model)
        del worker.loading[copy.key]
        self._host.release(copy)
        self.ledger.commit(copy.key, residence.num_bytes if fits or not worker.id.owner else None)
        copy.place, copy.kept_bytes = Place.RESIDENT, residence.kept_bytes
        copy.can_page = residence.can_page
        if self.copies_weights and copy.can_page:
            self._host.hold(copy)
        copy.can_improve = residence.can_improve and not copy.improved
        copy.loaded_at = copy.last_used = now
        copy.is_unused = True
        model.measured_bytes, model.load_tries, model.suspect, model.verdict = residence.num_bytes, 0, False, None
        model.loaded_in(copy.source, load_s)
        model.stats.loads += 1
        self._counts.loads += 1
        self._counts.load_seconds += load_s
        self.policy.loaded(copy.key, residence.num_bytes, self.return_s(copy), now)
        if not fits:
            self.evict(copy, "too_large", now)

    def load_failed(self, copy: Copy) -> None:
        """Nothing of it is in memory."""
        del self.workers[copy.worker].loading[copy.key]
        self._host.release(copy)
        self.ledger.release(copy.key)
        copy.gone()

    def try_improve(self, now: float) -> bool:
        """A hot model is opened in its fastest form, beside the form that answers meanwhile.

        That happens once in a worker's life and pays off at every run from then on, so room is made for it at once;
        while that goes on nothing else is loaded, or others would take the room. Whether loads have to wait.
        """
        copy = next(iter(self.improvable.values()), None)
        if copy is None or self.workers[copy.worker].improving or not self.workers[copy.worker].takes_work:
            return False
        if not copy.takes_batches:
            del self.improvable[copy.key]  # it comes back when it is used again
            return False
        num_bytes = copy.model.improve_bytes or copy.model.measured_bytes
        if num_bytes > self.most_for(copy.model) - copy.model.measured_bytes:
            del self.improvable[copy.key]
            copy.can_improve = False
            return False
        if num_bytes > self.ledger.free:
            missing = num_bytes - self.ledger.free
            return bool(self.leaving) or self.make_room(missing, copy.model, now, patience_s=0.0)
        del self.improvable[copy.key]
        self.ledger.reserve(_beside(copy.key), num_bytes)
        copy.improving, copy.can_improve, copy.began_at = True, False, now
        self.workers[copy.worker].improving = copy
        self._effects.improve(copy.worker, copy.key)
        return False

    def improved(self, copy: Copy, residence: Residence | None, now: float) -> None:
        """The faster form has taken its place; None: there is none after all."""
        self.workers[copy.worker].improving = None
        self.ledger.release(_beside(copy.key))
        copy.improving = False
        if residence is not None:
            residence = believable.residence(residence, copy.model)
            self._host.release(copy)
            copy.model.improved_on.add(self.id)
            self._counts.improvements += 1
            self.ledger.correct(copy.key, residence.num_bytes)
            copy.kept_bytes, copy.can_page = residence.kept_bytes, residence.can_page
            if self.copies_weights and copy.can_page:
                self._host.hold(copy)
            copy.model.measured_bytes = residence.num_bytes
            if residence.num_bytes > self.most_for(copy.model):
                self.evict(copy, "too_large", now)

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _try_start(self, worker: Worker, model: Model, now: float) -> Start:
        if worker.state is not WorkerState.DOWN or now < worker.retry_at:
            if worker.state is WorkerState.DOWN:
                self._look_at(worker.retry_at, now)
            return Start.NO_WORKER
        if worker.id.owner and self.staff.num_of_owners >= self._limits.max_owner_workers:
            patient_until = model.waiting_since + model.patience_s(self._limits)
            at = self.staff.end_another(model, now, now >= patient_until)
            self._look_at(patient_until if at is None else at, now)
            return Start.NO_WORKER
        base_bytes = self.staff.base_of(worker)
        if base_bytes > self.ledger.free:
            self.make_room(base_bytes - self.ledger.free, model, now)
            return Start.NO_ROOM
        self.staff.start(worker)
        return Start.NO_WORKER

    def lost(self, worker: Worker) -> list[Batch]:
        """A worker's process has ended: all that was in it is on disk. The batches that it had."""
        for key, copy in worker.copies.items():
            self._host.release(copy)
            self.ledger.lost(_beside(key))
            self.ledger.lost(key)
            self.leaving.discard(key)
            self.ready.pop(key, None)
            self.improvable.pop(key, None)
        self.ledger.lost(worker.name)
        batches = worker.ended()
        for batch in batches:
            del self.running[batch.id]
            self.ledger.lost(batch_name(batch))
        return batches


def _beside(key: str) -> str:
    return f"faster {key}"


def batch_name(batch: Batch) -> str:
    return f"batch {batch.id}"


def all_copies(devices: Iterable[Device], key: str) -> list[tuple[Device, Copy]]:
    return [(device, copy) for device in devices if (copy := device.copies.get(key)) is not None]
