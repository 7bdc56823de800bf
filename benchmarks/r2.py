"""R2: the first call of an algorithm whose imports take 1 s, when no replica of it is left.

Beside it what it costs without a template (the plain start, limit: the imports themselves) and what the kernel alone
needs: fork and the first byte from the child, in a process of the same size. Target: under 50 ms at the median.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai_runner.testing import Caller, HostProcess, python_version, run_host, write_algorithm

#: As long as importing a large framework, and as much memory as a small one.
_SOURCE = """
import time
ballast = bytearray(b"x" * (100 << 20))
time.sleep(1)
def apply(input):
    return input
"""
_KEY = "bench/slow@1"
_IDLE_S = 0.05
_KINDS = {
    "template": ("--sandbox", "bubblewrap"),
    "template in a container": ("--sandbox", "docker"),
    "plain start": ("--sandbox", "bubblewrap", "--max-templates", "0"),
}


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    num_calls = max(3, int(seconds))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        hosts = {kind: _start(stack, Path(folder) / str(n), kind) for n, kind in enumerate(_KINDS)}
        for _ in range(rounds):
            for kind, (host, caller) in hosts.items():
                for _ in range(num_calls if "template" in kind else 2):
                    found.add(kind, "ms", _cold_call(host, caller) * 1e3)
            for _ in range(num_calls):
                found.add("fork alone", "ms", _fork() * 1e3)
    print(f"\nR2 first call when no replica is left, imports of 1 s: medians of {rounds} round(s)")
    names = ("fork alone", *_KINDS)
    print_table(["start", "ms", "spread"], [[n, f"{found.median(n, 'ms'):.1f}", found.spread(n, "ms")] for n in names])
    ratio = found.median("template", "ms") / found.median("fork alone", "ms")
    print(f"from the template: {ratio:.1f} times a fork of 100 MB alone; target: under 50 ms")


def _start(stack: contextlib.ExitStack, home: Path, kind: str) -> tuple[HostProcess, Caller]:
    host = stack.enter_context(run_host(home, *_KINDS[kind], "--replicas", "1", "--idle-s", str(_IDLE_S)))
    caller = host.connect()
    caller.define(python_version(write_algorithm(home / "code", _SOURCE), key=_KEY))
    caller.call(_KEY, b"1")
    return host, caller


def _cold_call(host: HostProcess, caller: Caller) -> float:
    host.wait_for(lambda: 'state="idle"} 0.0' in caller.stats(), "the idle replica has ended")
    host.wait_for(lambda: 'state="doomed"} 0.0' in caller.stats(), "and is gone")
    began = time.perf_counter()
    caller.call(_KEY, b"1")
    return time.perf_counter() - began


def _fork() -> float:
    ballast = bytearray(b"x" * (100 << 20))
    read, write = os.pipe()
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"1")
        os._exit(0)
    os.read(read, 1)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    del ballast
    return took
