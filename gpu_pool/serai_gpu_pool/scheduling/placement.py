"""On which device a model gets its next copy. Pure."""

from collections.abc import Iterable

from serai_gpu_pool.scheduling.copies import Place
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.model import Model


def choose(devices: Iterable[Device], model: Model, placement: str) -> Device | None:
    """The best device that can run it; None when none can, whatever goes.

    (1) Where its weights are near: in the host tier of that device. (2) Where there is room: the least that is enough
    ("best_fit", large gaps stay) or the most ("spread"). (3) Where the least waits and the most could be freed.
    """
    able = [
        one for one in devices if model.framework in one.spec.frameworks and model.least_bytes <= one.most_for(model)
    ]
    if len(able) > 1:
        able = [one for one in able if not one.staff.worker_for(model).error] or able
    if len(able) <= 1:
        return able[0] if able else None
    for device in able:
        copy = device.copies.get(model.key)
        if copy is not None and copy.place in (Place.HOST, Place.LEAVING):
            return device
    needed = {one.id: model.bytes_to_reserve(one.most_for(model)) for one in able}
    roomy = [one for one in able if one.ledger.free >= needed[one.id]]
    if roomy:
        by_free = sorted(roomy, key=lambda one: (one.ledger.free, one.id))
        return by_free[0] if placement == "best_fit" else by_free[-1]
    return min(able, key=lambda one: (len(one.leaving), len(one.ready), -one.ledger.budget, one.id))


def second_home(devices: Iterable[Device], model: Model) -> Device | None:
    """A device with nothing to do and room for a model that others cannot keep up with."""
    for device in devices:
        copy = device.copies.get(model.key)
        if (
            model.framework in device.spec.frameworks
            and (copy is None or copy.place in (Place.DISK, Place.HOST))
            and not device.running
            and not device.ready
            and not device.leaving
            and device.ledger.free >= model.bytes_to_reserve(device.most_for(model))
        ):
            return device
    return None
