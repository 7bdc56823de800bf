"""G1 to G6 on an NVIDIA device: swapping of weights, and the pool on it. Ceilings first. A machine without one says so.

    python -m benchmarks.gpu [--out FILE] [--device cuda:0]

Writes a JSON file with date, device, ceilings and every figure; takes less than ten minutes. G1 to G3 use the arena
that device workers use (gpu_swaps.py); G4 to G6 (gpu_pool_runs.py) start a pool and talk to its socket. `--device cpu`
runs the same code on tiny sizes, which says nothing about speed: it is how this file is tested.
"""

import argparse
import datetime
import json
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import gpu_swaps

#: Of a device's free memory, what this script leaves alone.
_KEPT_FREE = 0.1


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
        "ceilings": gpu_swaps.ceilings(device, sizes),
    }
    _show("ceilings", found["ceilings"])
    wanted = max(sizes.ladder_bytes) + 2 * sizes.swap_bytes
    free = int(torch.cuda.mem_get_info(device)[0] * (1 - _KEPT_FREE)) if is_gpu else wanted
    arena = Arena(device, min(wanted, free))
    bytes_per_s = found["ceilings"]["pinned_h2d_bytes_per_s"]
    found["G1"] = gpu_swaps.g1_ladder(arena, sizes, bytes_per_s)
    found["G2"] = gpu_swaps.g2_ping_pong(arena, sizes)
    found["G3"] = gpu_swaps.g3_prefetch(arena, sizes)
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
        return "PyTorch is not installed here: make frameworks"
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
