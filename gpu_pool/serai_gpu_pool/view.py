"""The state of a scheduler as a `Snapshot`. Reads, never decides."""

from serai_gpu_pool.core import Broken
from serai_gpu_pool.device.base import Workers
from serai_gpu_pool.scheduling.copies import Copy, Place
from serai_gpu_pool.scheduling.devices import Device, all_copies
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.snapshot import (
    BatchView,
    DeviceView,
    EvictionView,
    HostView,
    ModelStats,
    ModelView,
    Snapshot,
    WorkerView,
)

#: Of several copies of a model on several devices, the one that says most is shown.
_ORDER = {Place.RESIDENT: 0, Place.LOADING: 1, Place.LEAVING: 2, Place.HOST: 3, Place.DISK: 4}


def snapshot(scheduler: Scheduler, workers: Workers, now: float) -> Snapshot:
    devices = list(scheduler.devices.values())
    evictions = [_eviction(device, one, now) for device in devices for one in device.history.latest]
    return Snapshot(
        tuple(_device(device, workers) for device in devices),
        HostView(scheduler.host.budget, scheduler.host.used),
        tuple(_model(model, devices, now) for model in scheduler.models.values()),
        tuple(sorted(evictions, key=lambda one: one.s_ago)),
        scheduler.policy,
        sum(len(model.queue) for model in scheduler.models.values()),
        scheduler.queued_bytes,
    )


def _device(device: Device, workers: Workers) -> DeviceView:
    ledger = device.ledger
    return DeviceView(
        device.id,
        device.spec.name,
        ledger.budget,
        ledger.free,
        ledger.reserved_bytes,
        ledger.resident_bytes,
        len(device.running),
        tuple(
            WorkerView(
                "/".join(part for part in worker.id[1:] if part),
                worker.id.framework,
                worker.id.owner,
                "down" if worker.state.value == "ending" else worker.state.value,
                workers.pid(worker.id),
                worker.process_bytes,
            )
            for worker in device.workers.values()
        ),
    )


def _model(model: Model, devices: list[Device], now: float) -> ModelView:
    copies = all_copies(devices, model.key)
    device, copy = min(copies, key=lambda one: _ORDER[one[1].place], default=(None, None))
    resident = device.ledger.resident.get(model.key, 0) if device is not None else 0
    times = model.times_on(device.id) if device is not None else None
    return ModelView(
        model.key,
        model.spec.name,
        f"{model.spec.owner}/{model.spec.algorithm}",
        model.spec.owner,
        model.spec.format,
        copy.place.value if copy is not None else "disk",
        device.id if device is not None and copy is not None and copy.place is not Place.DISK else "",
        resident,
        model.least_bytes,
        len(model.queue),
        device.ledger.leases(model.key) if device is not None else 0,
        model.pinned,
        _verdict(model, now),
        model.stats.loads,
        dict(model.load_s),
        times.known if times is not None else {},
        model.stats.evictions,
        _stats(model, copy, now),
    )


def _verdict(model: Model, now: float) -> str:
    for verdict in (model.verdict, *model.verdicts.values()):
        if verdict is not None and now < verdict.until:
            end = verdict.end
            return end.message if isinstance(end, Broken) else f"{end.message} ({verdict.until - now:.0f} s left)"
    return ""


def _stats(model: Model, copy: Copy | None, now: float) -> ModelStats:
    stats = model.stats
    return ModelStats(
        stats.succeeded,
        stats.failed,
        stats.refused,
        stats.queue_s,
        stats.compute_s,
        tuple(BatchView(size, int(count), total) for size, (count, total) in sorted(stats.batches.items())),
        now - model.last_used if model.last_used else None,
        stats.hits,
    )


def _eviction(device: Device, one, now: float) -> EvictionView:
    return EvictionView(one.key, one.name, one.algorithm, device.id, one.reason, now - one.at, one.age_s, one.worth)
