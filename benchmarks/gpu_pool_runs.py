"""G4 to G6: a pool on one device, driven through its socket. Part of gpu.py, which says what a result looks like."""

import contextlib
import hashlib
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvloop

from benchmarks import pool_client
from benchmarks.c4 import poisson
from serai.ipc.messages import ModelSpec, TensorSpec, VersionSpec
from serai_gpu_pool.testing.process import PoolProcess

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu import Sizes

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_DEPTH = 256
#: G4: what a caller accepts, Zipf's exponent, and the part of the possible rate that is offered.
_SLO_S, _ZIPF, _OFFERED = 0.1, 1.0, 0.85
#: G6: so many times the capacity.
_OVERLOAD = 2.0
#: Beside the weights: runtime, inputs and activations of a worker, which its budget pays for on a CPU.
_WORKER_BYTES = 3 << 30
#: What the pool leaves alone of a GPU, see hardware.py.
_KEPT_BY_POOL = 0.05


def encoder(sizes: "Sizes") -> "torch.nn.Module":
    """BERT-like layers without a vocabulary, bfloat16: float32 [rows, tokens, width] in, the mean of the tokens out."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, tokens, width = x.shape
            parts = self.qkv(x).view(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            x = self.norms[0](x + self.out(mixed.transpose(1, 2).reshape(rows, tokens, width)))
            return self.norms[1](x + self.down(functional.relu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(Block(sizes.width, sizes.width // 64) for _ in range(sizes.layers)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x.to(torch.bfloat16)).mean(1).float()

    torch.manual_seed(0)
    return Encoder().to(torch.bfloat16).train(False)


def write_models(folder: Path, sizes: "Sizes", count: int) -> list[VersionSpec]:
    """As many TorchScript files, alike but for one weight: each has a content of its own."""
    import torch

    module, x = encoder(sizes), torch.zeros(2, sizes.tokens, sizes.width)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # PyTorch announces the end of TorchScript
        traced: Any = torch.jit.trace(module, x)
    versions = []
    for number in range(count):
        with torch.inference_mode():
            next(iter(traced.parameters()))[0, 0] = number / 1024
        path = folder / f"model{number}.pt"
        traced.save(str(path))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        inputs = (TensorSpec("x", "float32", (-1, sizes.tokens, sizes.width)),)
        outputs = (TensorSpec("y", "float32", (-1, sizes.width)),)
        model = ModelSpec("model", digest, str(path), "torchscript", path.stat().st_size, "bench", "", inputs, outputs)
        versions.append(VersionSpec(f"bench/model{number}@1", "bench", f"model{number}", "model", "", models=(model,)))
    return versions


def in_process(device: "torch.device", sizes: "Sizes") -> dict[int, float]:
    """Seconds of a run by batch size, its input on the device: the limit of G5 and the capacity of G6."""
    import torch

    from benchmarks.gpu_swaps import Timer

    module, timer, found = encoder(sizes).to(device), Timer(device), {}
    with torch.inference_mode():
        for size in _BATCHES:
            x = torch.zeros(size, sizes.tokens, sizes.width, device=device)
            found[size] = timer.median_s(lambda x=x: module(x))
    return found


@contextlib.contextmanager
def _pool(folder: Path, device: "torch.device", model_bytes: int, room: int) -> Iterator[Path]:
    """A pool whose device has room for so many models. On a GPU what is too much is held by this process meanwhile."""
    import torch

    budget, held = int(room * model_bytes * 1.1) + (1 << 24), None
    options = ["--devices", device.type if device.type == "cpu" else f"cuda:{device.index or 0}"]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        surplus = free - budget - _WORKER_BYTES - int(_KEPT_BY_POOL * total)
        held = torch.empty(max(0, surplus), dtype=torch.uint8, device=device)
    else:
        options += ["--cpu-budget", str(budget + _WORKER_BYTES)]
    try:
        with PoolProcess(folder, *options) as pool:
            yield pool.socket
    finally:
        del held
        if device.type == "cuda":
            torch.cuda.empty_cache()


async def _open_loop(socket: Path, versions: list[VersionSpec], calls: list, body: bytes, slo_s: float):
    client = await pool_client.connect(socket)
    for version in versions:
        client.define(version)
        await client.ask(version.key, body)  # once from disk: what is measured is what follows
    ends = await pool_client.open_loop(client, calls, body, slo_s=slo_s)
    client.close()
    return ends


async def _closed_loop(socket: Path, version: VersionSpec, body: bytes, seconds: float) -> pool_client.Ends:
    client = await pool_client.connect(socket)
    client.define(version)
    await client.ask(version.key, body)
    ends = await pool_client.closed_loop(client, version.key, body, depth=_DEPTH, seconds=seconds)
    client.close()
    return ends


def measure(device: "torch.device", sizes: "Sizes", bytes_per_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """G4, G5 and G6, each as soon as it is there."""
    took_s = in_process(device, sizes)
    body = np.zeros((1, sizes.tokens, sizes.width), np.float32).tobytes()
    with tempfile.TemporaryDirectory(prefix="serai-bench-") as name:
        folder = Path(name)
        began = time.perf_counter()
        versions = write_models(folder, sizes, sizes.num_models)
        model_bytes = versions[0].models[0].num_bytes
        print(
            f"{len(versions)} models of {model_bytes / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s", flush=True
        )
        with _pool(folder, device, model_bytes, sizes.room) as socket:
            yield "G4", _g4(socket, versions, took_s, body, sizes, model_bytes, bytes_per_s)
        with _pool(folder, device, model_bytes, 2) as socket:
            ends = uvloop.run(_closed_loop(socket, versions[0], body, sizes.seconds))
            best = max(size / run_s for size, run_s in took_s.items())
            yield "G5", {"in_process_per_s": best, "pool_per_s": ends.per_second, "of_limit": ends.per_second / best,
                         "p99_s": ends.percentile_ms(0.99) / 1e3}  # fmt: skip
            yield "G6", _g6(socket, versions[:2], took_s, body, sizes.seconds)


def _g4(
    socket: Path, versions: list[VersionSpec], took_s: dict[int, float], body: bytes, sizes: "Sizes",
    model_bytes: int, bytes_per_s: float,
) -> dict[str, float]:  # fmt: skip
    """Poisson arrivals, models by Zipf, at 0.85 of what bus and device allow with the most popular ones resident."""
    weights = np.arange(1, len(versions) + 1) ** -_ZIPF
    weights /= weights.sum()
    miss = float(weights[sizes.room :].sum())
    most = min(bytes_per_s / (miss * model_bytes), 1 / took_s[1])
    rng = np.random.default_rng(4)
    due = [at for at, _ in poisson(_OFFERED * most, sizes.seconds, "", 4)]
    keys = [versions[number].key for number in rng.choice(len(versions), len(due), p=weights)]
    ends = uvloop.run(_open_loop(socket, versions, list(zip(due, keys, strict=True)), body, _SLO_S))
    return {"limit_per_s": most, "offered_per_s": _OFFERED * most, "in_slo": len(ends.good_s) / max(1, ends.sent),
            "goodput_per_s": ends.per_second, "p50_s": ends.percentile_ms(0.5) / 1e3}  # fmt: skip


def _g6(
    socket: Path, versions: list[VersionSpec], took_s: dict[int, float], body: bytes, seconds: float
) -> dict[str, float]:
    """Two resident models at twice the capacity, each call with a deadline of 5 S(1) + 5 ms."""
    slo_s = 5 * took_s[1] + 0.005
    most = max(size / run_s for size, run_s in took_s.items() if size == 1 or 2 * run_s <= slo_s)
    due = [at for at, _ in poisson(_OVERLOAD * most, seconds, "", 6)]
    calls = [(at, versions[number % 2].key) for number, at in enumerate(due)]
    ends = uvloop.run(_open_loop(socket, versions, calls, body, slo_s))
    return {"capacity_per_s": most, "slo_s": slo_s, "goodput_per_s": ends.per_second,
            "of_capacity": ends.per_second / most, "late": ends.late / max(1, ends.sent)}  # fmt: skip
