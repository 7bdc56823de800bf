"""Where each model stands that somebody waits for: ready on a device, wanted, or on its way to be loaded. Pure.

called or asked for ──▶ wanted ──▶ loading ──▶ ready on its device       '── while its worker cannot be started: waiting
"""

from collections.abc import Iterable

from serai_gpu_pool.scheduling import placement, refusals
from serai_gpu_pool.scheduling.calls import Calls
from serai_gpu_pool.scheduling.copies import Place
from serai_gpu_pool.scheduling.devices import Device, Start, all_copies
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.staff import worker_owner
from serai_gpu_pool.scheduling.turns import Turns
from serai_gpu_pool.scheduling.wanted import Wanted
from serai_gpu_pool.scheduling.workers import Worker
from serai_gpu_pool.settings import Limits


class Places:
    """Begins loads, and keeps `Device.ready` right."""

    def __init__(self, devices: dict[str, Device], limits: Limits) -> None:
        self.wanted = Wanted()  # models with calls or orders and no copy to run them
        self._later: dict[str, Model] = {}  # that operators want, and that could not be loaded lately
        self._devices = devices
        self._limits = limits

    def find(self, model: Model, now: float) -> None:
        """Called when something has changed for a model that may have calls."""
        has_calls = bool(len(model.queue))
        if not has_calls and not model.pinned and now >= model.wanted_until:
            model.wanted_until = 0.0
            return
        if not has_calls and model.is_held_back(now):
            self._later[model.key] = model
            return
        copies = all_copies(self._devices.values(), model.key)
        usable = [(device, copy) for device, copy in copies if copy.takes_batches]
        if usable:
            self.wanted.discard(model.key)
            model.wanted_until = 0.0
            if has_calls:
                for device, copy in usable:
                    device.ready.setdefault(model.key, copy)
        elif not any(copy.place is Place.LOADING for _, copy in copies) and model.key not in self.wanted:
            model.waiting_since = now
            self.wanted.add(model, worker_owner(model.spec))

    def emptied(self, model: Model) -> None:
        """It has no calls any more."""
        for device in self._devices.values():
            device.ready.pop(model.key, None)
        if not model.wanted_until and not model.pinned:
            self.wanted.discard(model.key)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def moments(self) -> list[float]:
        return [model.verdict.until for model in self._later.values() if model.verdict is not None]

    def on_time(self, now: float) -> None:
        for model in [one for one in self._later.values() if not one.is_held_back(now)]:
            del self._later[model.key]
            self.find(model, now)

    # ── loads ────────────────────────────────────────────────────────────────────────────────────────────────

    def load_wanted(self, calls: Calls, now: float) -> None:
        """Begin loads. A model that is next and has waited long enough for room holds up those after it, which would
        take what is made free for it."""
        busy = set()
        for device in self._devices.values():
            if device.is_kept_for_run or (device.improvable and device.try_improve(now)):
                busy.add(device.id)
        if not self.wanted:
            return
        for model in _in_order(self.wanted.first(), calls.turns):
            if not len(model.queue) and not model.pinned and now >= model.wanted_until:
                model.wanted_until = 0.0
                self.wanted.discard(model.key)
                continue
            device = placement.choose(self._devices.values(), model, self._limits.placement)
            if device is None:
                calls.refuse_all(model, refusals.too_large(model, self._able(model)))
                self.wanted.discard(model.key)
            elif device.id not in busy and self._try_load(device, model, now):
                busy.add(device.id)

    def _try_load(self, device: Device, model: Model, now: float) -> bool:
        """Whether the device is to be kept for this model."""
        copy = device.copy_of(model)
        if copy.place not in (Place.DISK, Place.HOST):
            return False
        start = device.try_load(copy, now)
        if start is Start.BEGUN:
            self.wanted.discard(model.key)
        elif start is Start.NO_ROOM:
            return now >= model.waiting_since + model.patience_s(self._limits) and device.expects_room()
        elif device.workers[copy.worker].has_to_wait(now):
            self.wanted.discard(model.key)
            device.workers[copy.worker].waiting[model.key] = model
        return False

    def _able(self, model: Model) -> list[Device]:
        devices = list(self._devices.values())
        return [one for one in devices if model.framework in one.spec.frameworks] or devices

    def look_again(self, worker: Worker, now: float) -> None:
        """Something has changed for those who wait for this worker."""
        waiting, worker.waiting = worker.waiting, {}
        for model in waiting.values():
            self.find(model, now)


def _in_order(models: Iterable[Model], turns: Turns) -> list[Model]:
    """Those with calls before those that are only asked for, by whose turn it is."""
    last = (float("inf"), 0, 0.0)
    return sorted(models, key=lambda one: one.queue.rank(turns) if len(one.queue) else last)
