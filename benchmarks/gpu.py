"""G1 to G6 on an NVIDIA device: swapping of weights, and the pool on it. Ceilings first. A machine without one says so.

    python -m benchmarks.gpu [--out FILE] [--device cuda:0]

Writes a JSON file with date, device, ceilings and every figure; takes less than ten minutes. G1 to G3 use the arena
that device workers use; G4 to G6 (gpu_pool_runs.py) start a pool and talk to its socket. `--device cpu` runs the same
code on tiny sizes, which says nothing about speed: it is how this file is tested.
"""

import argparse
import datetime
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from serai_gpu_pool.frameworks.weights_arena import Arena

#: Of a device's free memory, what this script leaves alone.
_KEPT_FREE = 0.1
_REPEATS = 7


@dataclass(frozen=True)
class Sizes:
    """How large everything is. Bytes and seconds."""

    copy_bytes: int = 1 << 30
    matmul: int = 8192
    ladder_bytes: tuple[int, ...] = (220_000_000, 2_600_000_000, 15_000_000_000)
    swap_bytes: int = 220_000_000
    seconds: float = 10.0
    num_models: int = 64
    room: int = 16
    layers: int = 12
    width: int = 768
    tokens: int = 128


TINY = Sizes(1 << 20, 64, (1 << 20, 4 << 20), 1 << 20, 0.5, 4, 2, 1, 64, 4)


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


def ceilings(device: "torch.device", sizes: Sizes) -> dict[str, float]:
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


def g1_ladder(arena: "Arena", sizes: Sizes, bytes_per_s: float) -> list[dict[str, float]]:
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


def g2_ping_pong(arena: "Arena", sizes: Sizes) -> dict[str, float]:
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


def g3_prefetch(arena: "Arena", sizes: Sizes) -> dict[str, float]:
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


def measure(device_id: str, sizes: Sizes) -> dict[str, Any]:
    import torch

    from benchmarks import gpu_pool_runs
    from serai_gpu_pool.frameworks.weights_arena import Arena

    device = torch.device(device_id)
    is_gpu = device.type == "cuda"
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if is_gpu else device_id,
        "torch": torch.__version__,
        "sizes": asdict(sizes),
        "ceilings": ceilings(device, sizes),
    }
    _show("ceilings", found["ceilings"])
    wanted = max(sizes.ladder_bytes) + 2 * sizes.swap_bytes
    free = int(torch.cuda.mem_get_info(device)[0] * (1 - _KEPT_FREE)) if is_gpu else wanted
    arena = Arena(device, min(wanted, free))
    bytes_per_s = found["ceilings"]["pinned_h2d_bytes_per_s"]
    found["G1"] = g1_ladder(arena, sizes, bytes_per_s)
    found["G2"] = g2_ping_pong(arena, sizes)
    found["G3"] = g3_prefetch(arena, sizes)
    del arena
    if is_gpu:
        torch.cuda.empty_cache()
    for name in ("G1", "G2", "G3"):
        _show(name, found[name])
    for name, figures in gpu_pool_runs.measure(device, sizes, bytes_per_s):
        found[name] = figures
        _show(name, figures)
    return found


def _show(name: str, figures: Any) -> None:
    for row in figures if isinstance(figures, list) else [figures]:
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


def why_not(device_id: str) -> str:
    """Why nothing can be measured on this device; empty when it can."""
    if find_spec("torch") is None:
        return 'PyTorch is not installed here: pip install "serai[torch]"'
    import torch

    if device_id.startswith("cuda") and not torch.cuda.is_available():
        return f"no NVIDIA device was found (PyTorch {torch.__version__})"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure G1 to G6 on a GPU.")
    parser.add_argument(
        "--device", default="cuda:0", help="which one (default cuda:0); cpu: tiny sizes, to try this out"
    )
    parser.add_argument("--out", type=Path, help="result file (default: gpu-DATE.json here)")
    given = parser.parse_args()
    reason = why_not(given.device)
    if reason:
        print(f"nothing measured: {reason}")
        sys.exit(0)
    found = measure(given.device, TINY if given.device == "cpu" else Sizes())
    out = given.out or Path(f"gpu-{found['date'][:10]}.json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
