"""Ceilings of a GPU, and G1 to G3: weights in and out of the arena that device workers use. Part of gpu.py."""

import statistics
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu import Sizes
    from serai_gpu_pool.frameworks.weights_arena import Arena

#: Measurements of each figure; medians are kept.
_REPEATS = 7


class Timer:
    """Runs work on a device and says how long it took, its end included."""

    def __init__(self, device: "torch.device") -> None:
        self._device = device

    def settle(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def median_s(self, work: Callable[[], Any], repeats: int = _REPEATS) -> float:
        took: list[float] = []
        for _ in range(repeats + 1):  # the first warms up
            self.settle()
            began = time.perf_counter()
            work()
            self.settle()
            took.append(time.perf_counter() - began)
        return statistics.median(took[1:])


def ceilings(device: "torch.device", sizes: "Sizes") -> dict[str, float]:
    """What the hardware gives, by the plainest code: bytes a second, operations a second, seconds a launch."""
    import torch

    timer, size = Timer(device), sizes.copy_bytes
    target = torch.empty(size, dtype=torch.uint8, device=device)
    pageable = torch.ones(size, dtype=torch.uint8)
    pinned = pageable.pin_memory() if device.type == "cuda" else pageable
    other = torch.empty_like(target)
    square = torch.ones((sizes.matmul, sizes.matmul), dtype=torch.bfloat16, device=device)
    small = torch.ones(1, device=device)
    return {
        "pinned_h2d_bytes_per_s": size / timer.median_s(lambda: target.copy_(pinned, non_blocking=True)),
        "pageable_h2d_bytes_per_s": size / timer.median_s(lambda: target.copy_(pageable)),
        "d2d_bytes_per_s": 2 * size / timer.median_s(lambda: other.copy_(target)),
        "bf16_matmul_flop_per_s": 2 * sizes.matmul**3 / timer.median_s(lambda: square @ square),
        "launch_s": timer.median_s(lambda: small.add_(1)),
    }


def g1_ladder(arena: "Arena", sizes: "Sizes", bytes_per_s: float) -> list[dict[str, float]]:
    """Weights from pinned memory into the arena and out of it. Target: 0.90 of the copy from 1 GB on, 0.80 below."""
    import torch

    from serai_gpu_pool.frameworks.weights_arena import ArenaWeights

    timer, rows = Timer(arena.device), []
    for size in sizes.ladder_bytes:
        if size > arena.extents.size:
            continue
        weights = ArenaWeights(arena, [torch.ones(size, dtype=torch.uint8)])
        loads, evictions = [], []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            weights.page_in()
            timer.settle()
            loads.append(time.perf_counter() - began)
            began = time.perf_counter()
            weights.page_out()
            evictions.append(time.perf_counter() - began)
        load_s = statistics.median(loads)
        rows.append({"bytes": size, "load_s": load_s, "of_copy": size / load_s / bytes_per_s,
                     "evict_s": statistics.median(evictions)})  # fmt: skip
        weights.close()
    return rows


def _work_of(seconds: float, device: "torch.device", side: int) -> Callable[[], None]:
    """Kernels that keep the device busy for about so long."""
    import torch

    timer = Timer(device)
    square = torch.ones((side, side), dtype=torch.bfloat16, device=device)
    num = max(1, round(seconds / timer.median_s(lambda: square @ square)))

    def work() -> None:
        for _ in range(num):
            torch.mm(square, square)

    return work


def g2_ping_pong(arena: "Arena", sizes: "Sizes") -> dict[str, float]:
    """Two models take turns in one place. Limit: the slower of load and run, when the next load overlaps the run."""
    import torch

    from serai_gpu_pool.frameworks.weights_arena import ArenaWeights

    timer = Timer(arena.device)
    pair = [ArenaWeights(arena, [torch.ones(sizes.swap_bytes, dtype=torch.uint8)]) for _ in range(2)]
    load_s = timer.median_s(lambda: (pair[0].page_in(), pair[0].page_out()))
    run = _work_of(load_s, arena.device, sizes.matmul // 4)
    run_s = timer.median_s(run)

    def turn() -> None:
        for weights in pair:
            weights.page_in()
            run()
            weights.page_out()

    turn_s = timer.median_s(turn) / 2
    for weights in pair:
        weights.close()
    return {"load_s": load_s, "run_s": run_s, "turn_s": turn_s, "of_limit": turn_s / max(load_s, run_s),
            "of_sum": turn_s / (load_s + run_s)}  # fmt: skip


def g3_prefetch(arena: "Arena", sizes: "Sizes") -> dict[str, float]:
    """Weights come while another model runs. Targets: 0.90 of the load hidden, the running one at most 5 % slower."""
    import torch

    from serai_gpu_pool.frameworks.weights_arena import ArenaWeights

    timer = Timer(arena.device)
    weights = ArenaWeights(arena, [torch.ones(sizes.swap_bytes, dtype=torch.uint8)])
    load_s = timer.median_s(lambda: (weights.page_in(), weights.page_out()))
    run = _work_of(2 * load_s, arena.device, sizes.matmul // 4)
    run_s = timer.median_s(run)
    slower: list[float] = []

    def both() -> None:
        loader = threading.Thread(target=weights.page_in)
        loader.start()
        began = time.perf_counter()
        run()
        if arena.device.type == "cuda":
            torch.cuda.current_stream(arena.device).synchronize()
        slower.append(time.perf_counter() - began)
        loader.join()
        weights.page_out()

    both_s = timer.median_s(both)
    weights.close()
    hidden = (run_s + load_s - both_s) / min(run_s, load_s)
    return {"load_s": load_s, "run_s": run_s, "both_s": both_s, "hidden": hidden,
            "slowed": statistics.median(slower) / run_s - 1}  # fmt: skip
