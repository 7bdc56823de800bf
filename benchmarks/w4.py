"""W4: 40 models of 49 MB under a budget for 8, asked for with Zipf's frequencies (1.1) over 16 connections.

Limit, in the same run: one process in which all 40 are resident, plain ASGI on uvicorn, batch 1. Reference: the same
with room for 8, least recently used, weights memory-mapped: the best of what is written by hand in an afternoon.
Targets: Serai at 600 of 900, with the budget kept as measured from outside.

SERAI_BENCH_KEEP names a folder in which models and home stay for the next run; publishing them takes a minute or two.
"""

import contextlib
import itertools
import json
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks import http_load, servers
from benchmarks.models import Mlp, is_close_to, write_algorithm
from benchmarks.processes import Roles, Use, memory_bytes, serai_roles, watched
from benchmarks.table import Rounds, print_table

_NUM_MODELS, _ROOM, _ZIPF, _CONNECTIONS = 40, 8, 1.1, 16
_DIMS = (2048, 3000, 2048)
#: So long each subject is loaded before the first round: what is hot then is in memory.
_WARM_UP_S = 8.0
_ALL, _LRU, _SERAI = "all 40 resident, one process", "LRU of 8 by hand, mapped", "Serai, budget for 8"
_KIND = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class _Subject:
    name: str
    url: str
    requests: list[http_load.Request]  # one a model
    roles: Roles
    counts: "_Counts"


class _Counts:
    """Hits and loads of a server since its start."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._request = urllib.request.Request(url, headers=headers)

    def read(self) -> tuple[int, int]:
        with urllib.request.urlopen(self._request, timeout=10) as answer:
            text = answer.read().decode()
        if text.startswith("{"):
            found = json.loads(text)
            return found["hits"], found["loads"]
        return sum_of_metric(text, "serai_pool_hits_total"), sum_of_metric(text, "serai_pool_loads_total")


def sum_of_metric(metrics: str, name: str) -> int:
    """Over all labels."""
    values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE)
    return int(sum(map(float, values)))


def _make_models(folder: Path) -> list[np.ndarray]:
    """Model files, and the same with weights in a side file for the reference. The right answers to `_input`."""
    answers = []
    for number in range(_NUM_MODELS):
        name, mlp = f"m{number:02d}", Mlp(_DIMS, 100 + number)
        answers.append(mlp.answer(_input()))
        if (folder / "mapped" / f"{name}.bin").exists():
            continue
        for form in ("plain", "mapped"):
            (folder / form).mkdir(parents=True, exist_ok=True)
        model = mlp.build()
        onnx.save(model, folder / "plain" / f"{name}.onnx")
        onnx.save(model, folder / "mapped" / f"{name}.onnx", save_as_external_data=True, location=f"{name}.bin")
    return answers


def _input() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((1, _DIMS[0]), np.float32)


def _requests(url: str, headers: dict[str, str], answers: list[np.ndarray]) -> list[http_load.Request]:
    """`url` has a place for the number of the model."""
    body = _input().tobytes()

    return [
        http_load.post(url.format(number), body, {**headers, **_KIND}, is_close_to(answer))
        for number, answer in enumerate(answers)
    ]


def _publish(folder: Path, home: Path, budget: str) -> None:
    """All models, once a home."""
    done = home / "published"
    if done.exists():
        return
    with tempfile.TemporaryDirectory() as work:
        names = [f"m{number:02d}" for number in range(_NUM_MODELS)]
        sources = [
            write_algorithm(Path(work, name), name, (folder / "plain" / f"{name}.onnx").read_bytes()) for name in names
        ]
        with servers.serai(sources, "--cpu-budget", budget, home=home):
            done.touch()


def _by_hand(stack: contextlib.ExitStack, name: str, folder: Path, room: int, answers: list[np.ndarray]) -> _Subject:
    prepacked = room == _NUM_MODELS
    environment = {
        "BENCH_MODELS": str(folder / ("plain" if prepacked else "mapped")),
        "BENCH_ROOM": str(room),
        "BENCH_PREPACKED": str(int(prepacked)),
    }
    server = stack.enter_context(servers.uvicorn("benchmarks.by_hand:many_models", environment, "--factory"))
    requests = _requests(f"{server.url}m{{:02d}}", {}, answers)
    return _Subject(name, server.url, requests, lambda: {"server": [server.pid]}, _Counts(server.url, {}))


def run(*, rounds: int, seconds: float) -> None:
    size = Mlp(_DIMS, 0).weight_bytes
    budget = _ROOM * size + (8 << 20)  # and a MiB a model for what is not weights
    with contextlib.ExitStack() as stack:
        kept = os.environ.get("SERAI_BENCH_KEEP")
        folder = Path(kept) if kept else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        answers = _make_models(folder)
        _publish(folder, folder / "home", str(budget))
        own = stack.enter_context(
            servers.serai([], "--cpu-budget", str(budget), "--cpu-threads", "1", home=folder / "home")
        )
        roles = serai_roles(own.home)
        idle = {name: memory_bytes(pids) for name, pids in roles().items()}
        requests = _requests(f"{own.url}/v1/algo/operator/m{{:02d}}?output=raw", own.headers, answers)
        subjects = [
            _by_hand(stack, _ALL, folder, _NUM_MODELS, answers),
            _Subject(_SERAI, own.url, requests, roles, _Counts(f"{own.url}/metrics", own.headers)),
            _by_hand(stack, _LRU, folder, _ROOM, answers),
        ]
        found, peak = Rounds(), {subject.name: dict[str, int]() for subject in subjects}
        for subject in subjects:
            for request in subject.requests:  # each once, so that no first load falls into a round
                http_load.closed_loop(subject.url, itertools.repeat(request), connections=1, seconds=0.01)
            _load(subject, 0, _WARM_UP_S)
        for number in range(1, rounds + 1):
            for subject in subjects:
                use = _measure(found, subject, number, seconds)
                for name, num_bytes in use.peak_bytes.items():
                    peak[subject.name][name] = max(peak[subject.name].get(name, 0), num_bytes)
            found.add(_SERAI, "ratio", found.last(_SERAI, "rate") / found.last(_ALL, "rate"))
    _report(found, peak, idle, budget, rounds, seconds)


def _load(subject: _Subject, seed: int, seconds: float) -> http_load.Load:
    return http_load.closed_loop(
        subject.url, _choices(subject.requests, seed), connections=_CONNECTIONS, seconds=seconds
    )


def _choices(requests: list[http_load.Request], seed: int) -> Iterator[http_load.Request]:
    weights = np.arange(1, _NUM_MODELS + 1) ** -_ZIPF
    rng = np.random.default_rng(seed)
    while True:
        for number in rng.choice(_NUM_MODELS, 4096, p=weights / weights.sum()).tolist():
            yield requests[number]


def _measure(found: Rounds, subject: _Subject, number: int, seconds: float) -> Use:
    """The same requests in the same order for each subject of a round."""
    hits, loads = subject.counts.read()
    with watched(subject.roles) as use:
        load = _load(subject, number, seconds)
    hits_after, loads_after = subject.counts.read()
    found.add("machine", "foreign", use.foreign)
    found.add(subject.name, "rate", load.per_second)
    found.add(subject.name, "p50", load.percentile_ms(0.5))
    found.add(subject.name, "p99", load.percentile_ms(0.99))
    found.add(subject.name, "hit rate", (hits_after - hits) / len(load.latencies_s))
    found.add(subject.name, "loads", (loads_after - loads) / load.seconds)
    for name, used_s in use.cpu_s.items():
        found.add(subject.name, f"cpu {name}", used_s / len(load.latencies_s) * 1e3)
    return use


def _report(
    found: Rounds, peak: dict[str, dict[str, int]], idle: dict[str, int], budget: int, rounds: int, seconds: float
) -> None:
    print(f"\nW4 {_NUM_MODELS} models of 49 MB, room for {_ROOM}: medians of {rounds} round(s) of {seconds:g} s")
    rows = []
    for name in (_ALL, _SERAI, _LRU):
        rate, p50, p99, hit, loads = (found.median(name, what) for what in ("rate", "p50", "p99", "hit rate", "loads"))
        used = {role: found.median(name, f"cpu {role}") for role in (*peak[name], "client")}
        cpu = " ".join(f"{role} {ms:.2f}" for role, ms in used.items() if ms >= 0.005)
        memory = sum(peak[name].values()) / 1e6
        rows.append([name, f"{rate:,.0f}", f"{rate / found.median(_ALL, 'rate'):.2f}", f"{p50:.1f}", f"{p99:.1f}",
                     f"{hit:.2f}", f"{loads:.1f}", f"{memory:,.0f}", cpu])  # fmt: skip
    print_table(
        ["server", "calls/s", "of limit", "p50 ms", "p99 ms", "hits", "loads/s", "peak MB", "CPU ms a call"], rows
    )
    pool, before = (sum(part.get(name, 0) for name in ("owner", "worker")) for part in (peak[_SERAI], idle))
    print(
        f"memory of the pool's processes from outside: {before / 1e6:,.0f} MB idle, {pool / 1e6:,.0f} MB at most, so "
        f"{(pool - before) / 1e6:,.0f} MB for models under a budget of {budget / 1e6:,.0f} MB"
    )
    print(f"ratio over the rounds: {found.spread(_SERAI, 'ratio')}; target >= 0.67 (600 where all resident reach 900)")
    print(f"processors that other work on this machine used meanwhile: {found.spread('machine', 'foreign')}")
