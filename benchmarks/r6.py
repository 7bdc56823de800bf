"""R6: what other algorithms notice of one that misbehaves.

A caller of a well-behaved algorithm at 50 calls a second, alone and beside each kind of offender. Target: its 99th
percentile at most 1.5 times what it is alone. The limit is the machine: with as many spinning processes as it has
cores, and no sandbox at all, what the kernel's scheduler leaves to others is printed, too.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai.ipc.messages import Limits
from serai_runner.testing import Caller, HostProcess, python_version, run_host, write_algorithm

_EVIL = """
import os, sys, time
def apply(word): return globals()[word]()
def threads():
    import threading
    def spin():
        while True: pass
    for _ in range(64): threading.Thread(target=spin, daemon=True).start()
    spin()
def forks():
    while True:
        try:
            if os.fork() == 0: os._exit(0)
        except OSError: pass
def memory():
    data = []
    while True: data.append(bytearray(1 << 20))
def disk():
    while True:
        try:
            with open(os.environ["TMPDIR"] + "/x", "wb") as file:
                while True: file.write(bytes(1 << 20))
        except OSError: pass
def output():
    while True: sys.stdout.write("x" * 100000); sys.stdout.flush()
"""
_KINDS = ("threads", "forks", "memory", "disk", "output")
_PER_SECOND = 50.0


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with run_host(home, "--sandbox", "bubblewrap", "--replicas", "1") as host:
            quiet = host.connect()
            good = write_algorithm(Path(folder) / "good", "def apply(input):\n    return input\n")
            quiet.define(python_version(good, key="good"))
            evil = write_algorithm(Path(folder) / "evil", _EVIL)
            _add(Rounds(), "warm-up", quiet, 1.0)
            for _ in range(rounds):
                _add(found, "alone", quiet, seconds)
                for kind in _KINDS:
                    with _Offender(host, evil, kind):
                        _add(found, kind, quiet, seconds)
                with _Spinning():
                    _add(found, "two processes of this machine", quiet, seconds)
    limit = found.median("alone", "p99")
    print(f"\nR6 {_PER_SECOND:g} calls/s beside an offender: medians of {rounds} round(s) of {seconds:g} s")
    names = ("alone", *_KINDS, "two processes of this machine")
    columns = ("p50", "p99")
    rows = [
        [n, *(f"{found.median(n, c):.2f}" for c in columns), f"{found.median(n, 'p99') / limit:.2f}"] for n in names
    ]
    print_table(["beside", "p50 ms", "p99 ms", "p99 of alone"], rows)
    print("target: p99 at most 1.5 of alone")


def _add(found: Rounds, name: str, caller: Caller, seconds: float) -> None:
    took, began = [], time.monotonic()
    for number in range(int(seconds * _PER_SECOND)):
        due = began + number / _PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        caller.call("good", b"1")
        took.append(time.monotonic() - due)  # from when it should have been sent
    found.add(name, "p50", statistics.median(took) * 1e3)
    found.add(name, "p99", statistics.quantiles(took, n=100)[98] * 1e3)


class _Offender:
    """Calls one misdeed again and again, as its replica is ended and started."""

    def __init__(self, host: HostProcess, code: str, kind: str) -> None:
        self._caller = host.connect()
        self._caller.define(python_version(code, key=kind, limits=Limits(memory_bytes=128 << 20)))
        self._kind = kind
        self._is_over = False
        self._thread = threading.Thread(target=self._offend)

    def _offend(self) -> None:
        while not self._is_over:
            self._caller.call(self._kind, f'"{self._kind}"'.encode(), timeout_s=2.0)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._caller.close()


class _Spinning:
    def __enter__(self) -> None:
        words = [sys.executable, "-c", "while True: pass"]
        self._processes = [subprocess.Popen(words) for _ in range(2)]

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
