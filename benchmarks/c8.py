"""C8: what a caller of 20 calls a second notices of another one who saturates the device.

Foreground: Poisson, its model resident; then models that are not. Bound without pre-emption: one batch of the
background and what the foreground takes with nothing beside it (with its load, where it is not resident; p99, because
its calls come when they like and wait for each other's loads). Targets: its p99 at most 1.15 times the bound, and the
background at 0.9 of what it reaches alone less the foreground's share.
"""

import asyncio
import itertools
import tempfile
from pathlib import Path

import numpy as np
import uvloop

from benchmarks import pool_client
from benchmarks.c4 import poisson
from benchmarks.in_process import run_seconds
from benchmarks.models import of_megabytes
from benchmarks.table import Rounds, print_table
from serai.ipc.messages import VersionSpec
from serai_gpu_pool.testing.process import PoolProcess

_BACKGROUND_MB, _FOREGROUND_MB = 50.0, 10.0
_DEPTH, _PER_SECOND = 32, 20.0
#: Foreground models that take turns. There is room to open the background's model in its fastest form, beside the one
#: that answers meanwhile; what is left of that holds half of them, so each call finds its model gone.
_NUM_FOREGROUND = 24
_BUDGET_MB = 4 * _BACKGROUND_MB
#: Nothing of this benchmark is refused for its deadline.
_SLO_S = 5.0
_WIDTH = 2048


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        background = _write(home, "background", _BACKGROUND_MB, 1)
        foreground = [_write(home, f"foreground{n}", _FOREGROUND_MB, 2 + n) for n in range(_NUM_FOREGROUND)]
        with PoolProcess(home, "--cpu-budget", f"{_BUDGET_MB:g}MB") as pool:
            for number in range(rounds + 1):  # the first warms up
                into = found if number else Rounds()
                behind = run_seconds(home / "background.onnx", _WIDTH)
                own = run_seconds(home / "foreground0.onnx", _WIDTH)
                into.add("limit", "batch", behind[_DEPTH] * 1e3)
                into.add("limit", "own", own[1] * 1e3)
                uvloop.run(_round(into, pool.socket, background, foreground, seconds if number else 1.0, number))
    _report(found, rounds, seconds)


def _write(home: Path, name: str, megabytes: float, seed: int) -> VersionSpec:
    path = home / f"{name}.onnx"
    path.write_bytes(of_megabytes(megabytes, seed).build().SerializeToString())
    return pool_client.version_of(path, name, home)


async def _round(
    found: Rounds, socket: Path, background: VersionSpec, foreground: list[VersionSpec], seconds: float, seed: int
) -> None:
    busy, quiet = await pool_client.connect(socket), await pool_client.connect(socket)
    busy.define(background)
    for version in foreground:
        quiet.define(version)
    body = np.random.default_rng(7).standard_normal(_WIDTH, np.float32).tobytes()

    async def loop() -> pool_client.Ends:
        return await pool_client.closed_loop(busy, background.key, body, depth=_DEPTH, seconds=seconds)

    async def calls(versions: list[VersionSpec]) -> pool_client.Ends:
        turns = itertools.cycle(versions)
        arrivals = ((at, next(turns).key) for at, _ in poisson(_PER_SECOND, seconds, "", seed))
        return await pool_client.open_loop(quiet, arrivals, body, slo_s=_SLO_S, payer="quiet")

    await busy.ask(background.key, body)
    alone = await loop()
    found.add("background", "alone", alone.per_second)
    for name, versions in (("resident", foreground[:1]), ("not resident", foreground)):
        await quiet.ask(versions[0].key, body)
        ends = await calls(versions)
        found.add(name, "alone p50", ends.percentile_ms(0.5))
        found.add(name, "alone p99", ends.percentile_ms(0.99))
        both = await asyncio.gather(loop(), calls(versions))
        found.add(name, "background", both[0].per_second)
        found.add(name, "p50", both[1].percentile_ms(0.5))
        found.add(name, "p99", both[1].percentile_ms(0.99))
        if both[1].late or both[1].refused:
            raise RuntimeError(f"{name}: {both[1].late} late and {both[1].refused} refused")
    busy.close()
    quiet.close()


def _report(found: Rounds, rounds: int, seconds: float) -> None:
    print(f"\nC8 {_PER_SECOND:g} calls/s beside a saturating model: medians of {rounds} round(s) of {seconds:g} s")
    batch, own = found.median("limit", "batch"), found.median("limit", "own")
    alone = found.median("background", "alone")
    runs = f"its batch of {_DEPTH} takes {batch:.1f} ms, a foreground run {own:.2f}"
    print(f"background alone: {alone:,.0f} calls/s; {runs}")
    rows = []
    for name in ("resident", "not resident"):
        solo, slow, p50, p99 = (found.median(name, what) for what in ("alone p50", "alone p99", "p50", "p99"))
        bound = batch + slow
        share = _PER_SECOND * (own if name == "resident" else solo) / 1e3
        left = found.median(name, "background") / (alone * (1 - share))
        times = [f"{value:.2f}" for value in (solo, slow, bound, p50, p99, p99 / bound)]
        rows.append([name, *times, f"{found.median(name, 'background'):,.0f}", f"{left:.2f}"])
    head = ["foreground", "alone p50 ms", "alone p99 ms", "bound ms", "p50 ms", "p99 ms", "p99 of bound"]
    print_table([*head, "background calls/s", "of its part"], rows)
    print("targets: p99 <= 1.15 of the bound; background >= 0.9 of its part")
