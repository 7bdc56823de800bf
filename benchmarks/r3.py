"""R3: from nothing to the first answer in Docker, beside `docker run` of the same image in the same round.

`docker run` starts the image's interpreter and ends. The host makes a container, imports our part and the algorithm,
and answers a call. Target: at most 1.2 times `docker run`.
"""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai_runner.testing import HostProcess, python_version, run_host, write_algorithm

_RUN = ("docker", "run", "--rm", "--network", "none", "serai-runner", "python3", "-I", "-S", "-c", "pass")
_KINDS = {"container made for the call": "0", "container kept in reserve": "2"}


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    num_calls = max(3, int(seconds))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        code = write_algorithm(Path(folder) / "code", "def apply(input):\n    return input\n")
        hosts = {}
        for number, (kind, spares) in enumerate(_KINDS.items()):
            options = ("--sandbox", "docker", "--spares", spares, "--max-templates", "0")
            hosts[kind] = stack.enter_context(run_host(Path(folder) / str(number), *options))
        for round_ in range(rounds):
            for call in range(num_calls):
                found.add("docker run", "ms", _docker_run() * 1e3)
                for kind, host in hosts.items():
                    found.add(kind, "ms", _first_call(host, code, f"bench/v{round_}-{call}@1", _KINDS[kind]) * 1e3)
    print(f"\nR3 from nothing to the first answer: medians of {rounds} round(s) of {num_calls}")
    names = ("docker run", *_KINDS)
    limit = found.median("docker run", "ms")
    rows = [
        [n, f"{found.median(n, 'ms'):.0f}", found.spread(n, "ms"), f"{found.median(n, 'ms') / limit:.2f}"]
        for n in names
    ]
    print_table(["start", "ms", "spread", "of docker run"], rows)
    print("target: at most 1.2 of docker run")


def _docker_run() -> float:
    began = time.perf_counter()
    subprocess.run(_RUN, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _first_call(host: HostProcess, code: str, key: str, spares: str) -> float:
    caller = host.connect()
    if spares != "0":
        host.wait_for(lambda: f"\nserai_runner_spares {spares}.0" in caller.stats(), "the reserve is full")
    caller.define(python_version(code, key=key))
    began = time.perf_counter()
    caller.call(key, b"1")
    took = time.perf_counter() - began
    caller.close()
    return took
