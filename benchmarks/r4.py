"""R4: 1,000 calls at once on one cold algorithm.

Printed: how many replicas were started for them, how many answers came, and how long the last one waited, beside what
the same calls take when the replicas are warm. Targets: one start per replica that is needed, none twice, and nobody
past its deadline without an answer.
"""

import collections
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai_runner.testing import Caller, python_version, run_host, write_algorithm

_NUM_CALLS, _TIMEOUT_S = 1000, 30.0
_SOURCE = "import time\ntime.sleep(0.5)\ndef apply(input):\n    time.sleep(0.002)\n    return input\n"


def run(*, rounds: int, seconds: float) -> None:
    found, starts, outcomes = Rounds(), [], collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        code = write_algorithm(Path(folder) / "code", _SOURCE)
        with run_host(Path(folder) / "home", "--sandbox", "bubblewrap", "--replicas", "2") as host:
            caller = host.connect()
            for number in range(rounds):
                key = f"bench/herd{number}@1"
                caller.define(python_version(code, key=key))
                before = _starts(caller)
                for state in ("cold", "warm"):
                    took = _herd(caller, key, outcomes)
                    found.add(state, "first ms", took[0] * 1e3)
                    found.add(state, "median ms", statistics.median(took) * 1e3)
                    found.add(state, "last ms", took[-1] * 1e3)
                starts.append(_starts(caller) - before)
    print(f"\nR4 {_NUM_CALLS:,} calls of 2 ms at once, imports of 0.5 s: medians of {rounds} round(s)")
    columns = ("first ms", "median ms", "last ms")
    print_table(
        ["replicas", *columns], [[s, *(f"{found.median(s, c):,.0f}" for c in columns)] for s in ("cold", "warm")]
    )
    print(f"replicas started a round: {starts} (2 are needed); outcomes: {dict(outcomes)}")


def _herd(caller: Caller, key: str, outcomes: collections.Counter[str]) -> list[float]:
    began = time.monotonic()
    ids = [caller.start_call(key, b"1", timeout_s=_TIMEOUT_S, payer=f"payer{n % 10}") for n in range(_NUM_CALLS)]
    took = []
    for call_id in ids:
        outcomes[type(caller.wait(call_id).message).__name__] += 1
        took.append(time.monotonic() - began)
    return sorted(took)


def _starts(caller: Caller) -> int:
    [line] = [line for line in caller.stats().splitlines() if line.startswith("serai_runner_replica_starts_total")]
    return int(float(line.split()[1]))
