"""The models that were called or asked for, and what is known of them. Pure.

Every version that anybody ever called would stay for ever: those that nobody uses are forgotten, the longest unused
first.
"""

from collections.abc import Callable

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.core import ModelSpec
from serai_gpu_pool.scheduling.copies import Place
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.records import Record

#: Models beyond which some are forgotten; as many as the policies of eviction remember, at about 4 KiB each.
MAX_KNOWN = 16_384
#: So many of all are forgotten at once: looking for them costs as much as looking at all.
_SHARE = 8


class Known:
    __slots__ = ("_devices", "_framework_of", "_max_queued", "_pins", "_recall", "models")

    def __init__(
        self,
        devices: dict[str, Device],
        max_queued: int,
        framework_of: Callable[[ModelFormat], str],
        recall: Callable[[ModelSpec], Record | None],
        pins: set[str],
    ) -> None:
        self.models: dict[str, Model] = {}
        self._devices = devices
        self._max_queued = max_queued
        self._framework_of = framework_of
        self._recall = recall
        self._pins = pins

    def get(self, spec: ModelSpec, now: float) -> Model:
        """The model of this content; what was measured of it before is known again."""
        model = self.models.get(spec.key)
        if model is None:
            if len(self.models) >= MAX_KNOWN:
                self._forget_some(now)
            model = self.models[spec.key] = Model(spec, self._framework_of(spec.format), self._max_queued, self._pins)
            record = self._recall(spec)
            if record is not None:
                record.apply(model, self._devices)
        model.asked_at = now
        return model

    def _forget_some(self, now: float) -> None:
        unused = sorted(
            (one for one in self.models.values() if self._is_unused(one, now)), key=lambda one: one.asked_at
        )
        for model in unused[: max(1, MAX_KNOWN // _SHARE)]:
            del self.models[model.key]
            for device in self._devices.values():
                device.forget(model.key)

    def _is_unused(self, model: Model, now: float) -> bool:
        if model.is_asked_for or any(now < one.until for one in (model.verdict, *model.verdicts.values()) if one):
            return False
        copies = (device.copies.get(model.key) for device in self._devices.values())
        return all(copy is None or copy.place is Place.DISK for copy in copies)
