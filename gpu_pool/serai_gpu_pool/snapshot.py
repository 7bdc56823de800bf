"""What the pool holds right now, for `serai pool`, the pages of operators and v2 statistics. JSON, all sizes in
bytes.
"""

from typing import Literal

import msgspec


class WorkerView(msgspec.Struct, frozen=True):
    name: str  # "onnx" or "torch/alice"
    framework: str
    owner: str  # empty: shared
    state: Literal["starting", "up", "down"]
    pid: int | None
    memory_bytes: int  # of the process, as it last said


class DeviceView(msgspec.Struct, frozen=True):
    id: str  # "cpu", "cuda:0"
    name: str  # what it is, for people
    budget_bytes: int
    free_bytes: int
    reserved_bytes: int
    resident_bytes: int
    running: int  # batches it has now
    workers: tuple[WorkerView, ...]


class HostView(msgspec.Struct, frozen=True):
    """The tier below the devices: weights kept in RAM, ready to come back."""

    budget_bytes: int
    used_bytes: int


class BatchView(msgspec.Struct, frozen=True):
    """What batches of one size took together."""

    size: int
    count: int
    total_s: float


class ModelStats(msgspec.Struct, frozen=True):
    """Since the pool started. Seconds are sums over calls."""

    succeeded: int
    failed: int
    refused: int
    queue_s: float
    compute_s: float
    batches: tuple[BatchView, ...]
    last_used_s_ago: float | None  # None: never
    hits: int = 0  # calls that found the model in memory


class ModelView(msgspec.Struct, frozen=True):
    key: str  # ModelSpec.key
    name: str  # in the manifest of the version that was seen first
    algorithm: str  # of that version: "owner/name"
    owner: str
    format: str
    state: Literal["disk", "host", "loading", "resident", "leaving"]
    device: str  # empty: on none
    num_bytes: int  # in device memory now; 0 when not resident
    expected_bytes: int  # what it takes when it is
    queued: int
    leases: int
    pinned: bool
    verdict: str  # why it is not run at the moment, for its author; empty: nothing is held against it
    loads: int
    load_s: dict[str, float]  # measured, by the tier it came from: "disk", "host"
    batch_s: dict[int, float]  # measured seconds by batch size
    evictions: int
    stats: ModelStats


class EvictionView(msgspec.Struct, frozen=True):
    """One of the latest evictions, and why that model."""

    model: str
    name: str
    algorithm: str
    device: str
    reason: str
    s_ago: float
    age_s: float  # how long it had been resident
    worth: float  # what the policy gave it; the lowest went


class Snapshot(msgspec.Struct, frozen=True):
    devices: tuple[DeviceView, ...]
    host: HostView
    models: tuple[ModelView, ...]
    evictions: tuple[EvictionView, ...]  # the latest first
    policy: str
    queued_calls: int
    queued_bytes: int
