"""A policy alone: calls in their order, each served at once. No queues, no devices; load seconds and hits."""

from typing import NamedTuple

from serai_gpu_pool.eviction import Candidate, Policy
from serai_gpu_pool.simulator.traces import SimModel, Trace


class Replay(NamedTuple):
    load_s: float
    loads: int
    hit_rate: float


def load_seconds(model: SimModel, disk_bytes_per_s: float) -> float:
    """From disk, with nothing else going on."""
    return model.open_s + model.num_bytes / disk_bytes_per_s


def replay(trace: Trace, policy: Policy, budget_bytes: int, disk_bytes_per_s: float = 1.5e9) -> Replay:
    """Raises ValueError when a model does not fit into the budget."""
    costs = [load_seconds(model, disk_bytes_per_s) for model in trace.models]
    number_of = {model.name: at for at, model in enumerate(trace.models)}
    last_used: dict[int, float] = {}  # of what is resident
    free, total_s, loads = budget_bytes, 0.0, 0
    for now, at in zip(trace.times.tolist(), trace.calls.tolist(), strict=True):
        model = trace.models[at]
        if at not in last_used:
            loads += 1
            total_s += costs[at]
            if free < model.num_bytes:
                candidates = (
                    Candidate(trace.models[one].name, trace.models[one].num_bytes, used, costs[one])
                    for one, used in last_used.items()
                )
                victims = policy.victims(candidates, model.num_bytes - free, now)
                if victims is None:
                    raise ValueError(f"{model.name} has {model.num_bytes} bytes, the budget {budget_bytes}")
                for name in victims:
                    policy.evicted(name, now)
                    del last_used[number_of[name]]
                    free += trace.models[number_of[name]].num_bytes
            free -= model.num_bytes
        last_used[at] = now
        policy.used(model.name, model.num_bytes, costs[at], now)
    return Replay(total_s, loads, 1 - loads / max(len(trace.times), 1))
