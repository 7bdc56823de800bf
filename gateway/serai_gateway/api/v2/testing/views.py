"""What a pool might hold."""

import msgspec

from serai.ipc.messages import ModelSpec
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


def model_view(spec: ModelSpec, **changes: object) -> ModelView:
    """A model that has been run a little."""
    stats = ModelStats(10, 1, 2, 0.5, 0.25, (BatchView(1, 4, 0.05), BatchView(3, 2, 0.2)), 1.5)
    view = ModelView(
        key=spec.key,
        name=spec.name,
        algorithm=f"{spec.owner}/{spec.algorithm or spec.name}",
        owner=spec.owner,
        format=spec.format,
        state="resident",
        device="cpu",
        num_bytes=50_000_000,
        expected_bytes=50_000_000,
        queued=0,
        leases=0,
        pinned=False,
        verdict="",
        loads=2,
        load_s={"disk": 0.03},
        batch_s={1: 0.01},
        evictions=1,
        stats=stats,
    )
    return msgspec.structs.replace(view, **changes)


def snapshot(*models: ModelView) -> Snapshot:
    resident = sum(model.num_bytes for model in models)
    worker = WorkerView("onnx", "onnx", "", "up", 4711, 120_000_000)
    device = DeviceView("cpu", "CPU", 400_000_000, 400_000_000 - resident, 0, resident, 0, (worker,))
    evicted = EvictionView("ab" * 32, "old", "bob/old", "cpu", "room for new", 3.0, 60.0, 1.5)
    return Snapshot((device,), HostView(1_000_000_000, 50_000_000), models, (evicted,), "gdsf", 0, 0)
