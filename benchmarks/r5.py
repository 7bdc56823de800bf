"""R5: what 500 published algorithms cost that nobody calls any more.

All are called once, then left alone until their replicas and templates have ended. Targets: no process of theirs, and
under 20 MB in the host for all of them together.
"""

import tempfile
from pathlib import Path

import psutil

from serai_runner.testing import python_version, run_host, write_algorithm

_NUM_ALGORITHMS = 500
_SOURCE = "import json, re\ndef apply(input):\n    print('said')\n    return input\n"


def run(*, rounds: int, seconds: float) -> None:
    """Once: `rounds` and `seconds` change nothing."""
    options = ("--sandbox", "bubblewrap", "--idle-s", "0.2", "--template-idle-s", "0.2", "--spares", "2")
    with tempfile.TemporaryDirectory() as folder, run_host(Path(folder) / "home", *options) as host:
        caller = host.connect()
        warm = python_version(write_algorithm(Path(folder) / "warm", _SOURCE), key="bench/warm@1")
        caller.define(warm)
        caller.call(warm.key, b"1")  # so that what the host loads once is loaded
        host.wait_for(lambda: _num_busy(caller) == 0, "nothing runs")
        before = psutil.Process(host.pid).memory_info().rss
        for number in range(_NUM_ALGORITHMS):
            key = f"bench/idle{number}@{number:040d}"
            code = write_algorithm(Path(folder) / "code" / str(number), _SOURCE)
            caller.define(python_version(code, key=key, name=f"idle{number}"))
            caller.call(key, b"1")
        host.wait_for(lambda: _num_busy(caller) == 0, "all have ended")
        after = psutil.Process(host.pid).memory_info().rss
        spares = len(host.replica_pids())
    print(f"\nR5 {_NUM_ALGORITHMS} algorithms, called once and idle")
    print(f"processes of theirs: 0 ({spares} belong to the two boxes in reserve, which are there without them, too)")
    print(f"memory of the host: {(after - before) / 1e6:+.1f} MB for all of them (target: under 20)")


def _num_busy(caller) -> int:
    names = ("serai_runner_replicas{", "serai_runner_templates ")
    lines = [line for line in caller.stats().splitlines() if line.startswith(names)]
    return sum(int(float(line.split()[-1])) for line in lines)
