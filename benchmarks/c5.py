"""C5: the swap ladder. The first call of a model from disk, page cache and host tier, beside the resident one.

Each size has two models and room for one, so that a call of the other sends the first to the host tier; `unload` sends
it to disk, and the kernel is told to forget the files for the cold rung. Limits, in a process of its own: reading the
published file from disk; opening it as published; opening it with its weights memory-mapped; mapping as many pages of
the page cache. Targets, all less the resident call: disk at most 1.2 times the slower of reading and mapped opening;
host tier at most 1.15 times an opening as published (the pages say how far down it could go; eviction of the other
model is in it); eviction at most 2 ms; the owner answers within 5 ms (p99) meanwhile.
"""

import asyncio
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import uvloop

from benchmarks import http_load, pool_client
from benchmarks.models import is_close_to, of_megabytes, write_algorithm
from benchmarks.table import Rounds, print_table
from serai_gateway.testing import Service

#: A file in a repository may have 100 MiB.
_SIZES_MB = (10, 50, 100)
#: Room for one model of a size and what an opening takes beside it, not for two.
_ROOM = 1.7
#: Climbs of the ladder for each of `rounds`.
_CLIMBS = 5
#: Between two swaps, so that minimum residence and patience, which are there against thrashing, are not in them.
_PAUSE_S = 0.25
#: madvise(2); `mmap` has no name for it before Python 3.13.
_MADV_POPULATE_READ = 22
_NUM_IDLE_PINGS = 500
_PING_PAUSE_S = 0.001


class _Ladder:
    """One size: two models A and B in a Serai with room for one of them."""

    def __init__(self, service: Service, megabytes: int, folder: Path) -> None:
        self._service = service
        self._headers = {"Authorization": f"Simple {service.key}"}
        self._calls: dict[str, http_load.Request] = {}
        x = np.random.default_rng(7).standard_normal((1, 2048), np.float32)
        for seed, name in enumerate("ab"):
            model = of_megabytes(megabytes, seed)
            service.publish(write_algorithm(folder / name, name, model.build().SerializeToString()))
            url = f"{service.address}/v1/algo/operator/{name}?output=raw"
            sent = {**self._headers, "Content-Type": "application/octet-stream"}
            self._calls[name] = http_load.post(url, x.tobytes(), sent, is_close_to(model.answer(x)[0]))

    async def call(self, name: str) -> float:
        """Seconds of one call; its answer is checked."""
        return await http_load.ask(self._service.address, self._calls[name])

    async def unload(self, name: str) -> float:
        """Seconds of the command, through HTTP as any."""
        url = f"{self._service.address}/v1/pool/models/operator/{name}/unload"
        return await http_load.ask(self._service.address, http_load.post(url, b"", self._headers, lambda _: True))

    def state(self, name: str) -> str:
        snapshot = self._service.request("GET", "/v1/pool", None, self._headers).json()
        return next(model["state"] for model in snapshot["models"] if model["name"] == name)

    def forget_pages(self) -> None:
        """The kernel drops what it has cached of the home's large files. What is mapped stays."""
        os.sync()
        for path in self._service.home.rglob("*"):
            if path.is_file() and path.stat().st_size > 1 << 20:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(*, rounds: int, seconds: float) -> None:
    """`seconds` is not used: every rung is climbed a number of times."""
    found = Rounds()
    for megabytes in _SIZES_MB:
        with tempfile.TemporaryDirectory(prefix="serai-bench-") as name:
            folder, budget = Path(name), int(_ROOM * megabytes * 1e6)
            with Service(folder / "home", "--cpu-budget", str(budget), "--cpu-threads", "1") as service:
                ladder = _Ladder(service, megabytes, folder)
                for _ in range(_CLIMBS * rounds):
                    _measure_limits(found, folder, f"{megabytes}")
                    uvloop.run(_climb(found, ladder, folder / "home/run/pool.sock", f"{megabytes}"))
    _report(found, _CLIMBS * rounds)


async def _climb(found: Rounds, ladder: _Ladder, socket: Path, row: str) -> None:
    client = await pool_client.connect(socket)
    found.add(row, "idle ping", _percentile_ms([await client.ping() for _ in range(_NUM_IDLE_PINGS)], 0.99))
    stalls: list[float] = []

    async def call(name: str) -> float:
        await asyncio.sleep(_PAUSE_S)
        return await _while_pinging(client, ladder.call(name), stalls) * 1e3

    for name in "ab":
        await ladder.call(name)  # so that there is something to unload
        await ladder.unload(name)
    ladder.forget_pages()
    found.add(row, "disk", await call("a"))
    await ladder.unload("a")
    found.add(row, "page cache", await call("a"))
    found.add(row, "resident", statistics.median([await ladder.call("a") * 1e3 for _ in range(5)]))
    await call("b")  # now A goes
    found.add(row, "in host", float(ladder.state("a") == "host"))
    found.add(row, "host", statistics.median([await call(name) for name in "ab" * 5]))
    evict_s, nothing_s = await ladder.unload("b"), await ladder.unload("b")
    found.add(row, "evict", (evict_s - nothing_s) * 1e3)
    found.add(row, "stall", _percentile_ms(stalls, 0.99))
    client.close()


async def _while_pinging(
    client: pool_client.PoolClient, work: Coroutine[Any, Any, float], stalls: list[float]
) -> float:
    task = asyncio.create_task(work)
    while not task.done():
        stalls.append(await client.ping())
        await asyncio.sleep(_PING_PAUSE_S)
    return await task


def _percentile_ms(values_s: list[float], share: float) -> float:
    ordered = sorted(values_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


def _measure_limits(found: Rounds, folder: Path, row: str) -> None:
    command = [sys.executable, "-m", "benchmarks.c5", str(folder / "a/models/a.onnx"), str(folder / "mapped")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, value_s in json.loads(done.stdout).items():
        found.add(row, name, value_s * 1e3)


def main() -> None:
    """What `_measure_limits` runs in a process of its own: MODEL FOLDER."""
    from benchmarks.by_hand import open_session

    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    mapped = folder / "model.onnx"
    if not mapped.exists():
        folder.mkdir()
        onnx.save(onnx.load(model), mapped, save_as_external_data=True, location="weights")
        os.sync()

    def timed(work: Callable[[], Any]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    with model.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = bytearray(model.stat().st_size)
        limits = {"read": timed(lambda: file.readinto(buffer))}
    open_session(model)  # the first session of a process costs more than any other
    limits["open"] = timed(lambda: open_session(model))
    limits["open mapped"] = min(timed(lambda: open_session(mapped, prepacked=False)) for _ in range(3))
    with (folder / "weights").open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        limits["map pages"] = timed(lambda: pages.madvise(_MADV_POPULATE_READ))
    print(json.dumps(limits))


def _report(found: Rounds, rounds: int) -> None:
    print(f"\nC5 swap ladder, the first call through gateway and pool: medians of {rounds} climbs, in ms")
    columns = ["disk", "page cache", "host", "resident", "read", "open", "open mapped", "map pages"]
    columns += ["evict", "stall", "idle ping"]
    rows = []
    for megabytes in _SIZES_MB:
        row = f"{megabytes}"
        value = {column: found.median(row, column) for column in columns}
        disk, host = (value[name] - value["resident"] for name in ("disk", "host"))
        ratios = disk / max(value["read"], value["open mapped"]), host / value["open"], host / value["map pages"]
        rows.append([f"{megabytes} MB", *(f"{figure:.2f}" for figure in (*value.values(), *ratios))])
        if found.median(row, "in host") < 1:
            print(f"{megabytes} MB: what was evicted did not stay in the host tier")
    head = ["model", "disk", "page cache", "host tier", "resident", "limit: read", "open", "open mapped", "map pages"]
    print_table([*head, "evict", "ping p99", "idle", "disk of limit", "host of open", "host of pages"], rows)
    print("targets, less the resident call: disk <= 1.2, host <= 1.15 of open; evict <= 2 ms, ping <= 5 ms in loads")


if __name__ == "__main__":
    main()
