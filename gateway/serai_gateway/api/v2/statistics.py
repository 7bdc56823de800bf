"""Triton's statistics of a model, from what the pool holds. Pure.

Durations are nanoseconds; the pool measures waiting and computing, so input and output have no time of their own.
A file that several algorithms published is one model in the pool, with one count.
"""

from typing import Any

from serai_gpu_pool.snapshot import ModelView

_NONE = {"count": 0, "ns": 0}


def model_stats(name: str, version: str, view: ModelView | None, now: float) -> dict[str, Any]:
    """One entry of `model_stats`. `view` is None for a model that the pool has not seen.

    Args:
        now: seconds since 1970.
    """
    about: dict[str, Any] = {"name": name, "version": version}
    if view is None:
        return {**about, **_counts(0, 0, 0, 0.0, 0.0), "last_inference": 0, "batch_stats": [], "memory_usage": []}
    stats = view.stats
    num_failed = stats.failed + stats.refused
    num_batches = sum(batch.count for batch in stats.batches)
    last = 0 if stats.last_used_s_ago is None else int((now - stats.last_used_s_ago) * 1000)
    return {
        **about,
        **_counts(stats.succeeded, num_failed, num_batches, stats.queue_s, stats.compute_s),
        "last_inference": last,
        "batch_stats": [
            {
                "batch_size": batch.size,
                "compute_input": _NONE,
                "compute_infer": {"count": batch.count, "ns": _ns(batch.total_s)},
                "compute_output": _NONE,
            }
            for batch in stats.batches
        ],
        "memory_usage": [_memory(view)] if view.num_bytes else [],
    }


def _counts(succeeded: int, failed: int, num_batches: int, queue_s: float, compute_s: float) -> dict[str, Any]:
    return {
        "inference_count": succeeded,
        "execution_count": num_batches,
        "inference_stats": {
            "success": {"count": succeeded, "ns": _ns(queue_s + compute_s)},
            "fail": {"count": failed, "ns": 0},
            "queue": {"count": succeeded, "ns": _ns(queue_s)},
            "compute_input": _NONE,
            "compute_infer": {"count": succeeded, "ns": _ns(compute_s)},
            "compute_output": _NONE,
            "cache_hit": _NONE,
            "cache_miss": _NONE,
        },
    }


def _memory(view: ModelView) -> dict[str, Any]:
    kind, _, number = view.device.partition(":")
    if kind == "cuda":
        return {"type": "GPU", "id": int(number or 0), "byte_size": view.num_bytes}
    return {"type": "CPU", "id": 0, "byte_size": view.num_bytes}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
