"""R1: a warm call through a container beside the same call through the process sandbox, one caller at a time.

Limit: the same frames to a replica without any sandbox. Target: the container's median at most 0.1 ms above that of
the process sandbox.
"""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai_runner.testing import Caller, python_version, run_host, write_algorithm

_KINDS = ("none", "bubblewrap", "docker")
_KEY, _BODY = "bench/echo@1", b'["' + b"x" * 1020 + b'"]'


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        callers = {kind: _caller(stack, Path(folder) / kind, kind) for kind in _KINDS}
        for _ in range(rounds):
            for kind, caller in callers.items():  # interleaved: what disturbs one disturbs the others
                took = _measure(caller, seconds)
                found.add(kind, "p50", statistics.median(took) * 1e6)
                found.add(kind, "p99", statistics.quantiles(took, n=100)[98] * 1e6)
    print(f"\nR1 a warm call of 1 KiB: medians of {rounds} round(s) of {seconds:g} s, microseconds")
    rows = [[kind, *(f"{found.median(kind, what):.0f}" for what in ("p50", "p99"))] for kind in _KINDS]
    print_table(["sandbox", "p50", "p99"], rows)
    more = (found.median("docker", "p50") - found.median("bubblewrap", "p50")) / 1e3
    print(f"a container's call takes {more:+.3f} ms beside the process sandbox's (target: at most +0.1)")


def _caller(stack: contextlib.ExitStack, home: Path, kind: str) -> Caller:
    options = ("--sandbox", kind, "--replicas", "1", "--spares", "0")
    host = stack.enter_context(run_host(home, *options))
    caller = host.connect()
    caller.define(python_version(write_algorithm(home / "code", "def apply(input):\n    return input\n"), key=_KEY))
    for _ in range(200):
        caller.call(_KEY, _BODY)
    return caller


def _measure(caller: Caller, seconds: float) -> list[float]:
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        caller.call(_KEY, _BODY)
        took.append(time.perf_counter() - began)
    return took
