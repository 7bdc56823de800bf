"""C4: latency and goodput from a tenth of the capacity to one and a half times of it, with a deadline on each call.

Poisson arrivals at the pool's socket. SLO: 5 S(1) + 5 ms, given as the deadline. Capacity: the most rows a second of
any batch in process, as long as two of its kind fit into the SLO (one that runs, and one's own). Targets: goodput
>= 0.95 of the load at 0.8 of capacity and >= 0.85 of capacity at 1.5; median at 0.3 at most 1.2 S(1).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvloop

from benchmarks import pool_client
from benchmarks.in_process import run_seconds
from benchmarks.models import Mlp
from benchmarks.table import Rounds, print_table
from serai_gpu_pool.testing.process import PoolProcess

_MODEL = Mlp((2048, 3000, 2048), 4)
_SHARES = (0.1, 0.3, 0.5, 0.8, 1.0, 1.2, 1.5)
_WARM_UP_S = 1.0


def capacity(took_s: dict[int, float]) -> tuple[float, float]:
    """Calls a second that batches can reach, and the SLO in seconds, from seconds by batch size."""
    slo_s = 5 * took_s[1] + 0.005
    return max(size / run_s for size, run_s in took_s.items() if size == 1 or 2 * run_s <= slo_s), slo_s


def poisson(per_second: float, seconds: float, version: str, seed: int) -> Iterator[tuple[float, str]]:
    rng = np.random.default_rng(seed)
    at = 0.0
    while True:
        at += rng.exponential(1 / per_second)
        if at > seconds:
            return
        yield at, version


async def _measure(socket: Path, version, per_second: float, seconds: float, slo_s: float, seed: int):
    client = await pool_client.connect(socket)
    client.define(version)
    body = np.random.default_rng(7).standard_normal(_MODEL.dims[0], np.float32).tobytes()
    await client.ask(version.key, body)
    ends = await pool_client.open_loop(client, poisson(per_second, seconds, version.key, seed), body, slo_s=slo_s)
    client.close()
    return ends


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.onnx")
        model.write_bytes(_MODEL.build().SerializeToString())
        version = pool_client.version_of(model, "curve", Path(folder))
        with PoolProcess(Path(folder), "--cpu-budget", "1GiB") as pool:
            for number in range(1, rounds + 1):
                took_s = run_seconds(model, _MODEL.dims[0])
                most, slo_s = capacity(took_s)
                found.add("limit", "S(1)", took_s[1] * 1e3)
                found.add("limit", "capacity", most)
                found.add("limit", "slo", slo_s * 1e3)
                uvloop.run(_measure(pool.socket, version, most / 2, _WARM_UP_S, slo_s, 0))
                for share in _SHARES:
                    ends = uvloop.run(_measure(pool.socket, version, share * most, seconds, slo_s, number))
                    _note(found, f"{share:g}", ends, most, share * most)
    _report(found, rounds, seconds)


def _note(found: Rounds, row: str, ends: pool_client.Ends, most: float, offered: float) -> None:
    found.add(row, "offered", offered)
    found.add(row, "goodput", ends.per_second)
    found.add(row, "of load", len(ends.good_s) / ends.sent)
    found.add(row, "of capacity", ends.per_second / most)
    found.add(row, "late", ends.late / ends.sent)
    found.add(row, "refused", len(ends.refused_s) / ends.sent)
    for column, values in (("refusal", ends.refused_s), ("lag", ends.lags_s)):
        found.add(row, column, sorted(values)[int(len(values) * 0.99) - 1] * 1e3 if values else 0.0)
    for share in (0.5, 0.99):
        found.add(row, f"p{share:g}", ends.percentile_ms(share))


def _report(found: Rounds, rounds: int, seconds: float) -> None:
    one, most, slo = (found.median("limit", what) for what in ("S(1)", "capacity", "slo"))
    print(f"\nC4 latency and load, 49 MB MLP on one thread: medians of {rounds} round(s) of {seconds:g} s")
    print(f"in process: S(1) {one:.2f} ms, capacity {most:,.0f} calls/s; so the SLO is {slo:.1f} ms")
    rows = []
    for share in _SHARES:
        row = f"{share:g}"
        columns = ("offered", "goodput", "of load", "of capacity", "late", "refused", "p0.5", "p0.99", "refusal", "lag")
        values = [found.median(row, column) for column in columns]
        rows.append([row, *(f"{value:,.0f}" for value in values[:2]), *(f"{value:.3f}" for value in values[2:6]),
                     *(f"{value:.2f}" for value in values[6:])])  # fmt: skip
    head = ["load", "calls/s", "in time", "of load", "of capacity", "late", "refused"]
    print_table([*head, "p50 ms", "p99 ms", "refusal p99 ms", "sent late p99 ms"], rows)
    print(f"median at 0.3: {found.median('0.3', 'p0.5') / one:.2f} S(1); target <= 1.2")
    print(f"in time at 0.8: {found.median('0.8', 'of load'):.3f} of the load; target >= 0.95")
    print(f"in time at 1.5: {found.median('1.5', 'of capacity'):.3f} of capacity; target >= 0.85")
