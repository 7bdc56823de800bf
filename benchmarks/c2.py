"""C2: a small model for which batching pays, 784-512-512-10, through gateway and pool; JSON and raw bytes.

Limits, in the same run: the composite 1/(c + S(B)/B) for one core, where c is what the bare HTTP server takes of a
processor for an echo of the same body, and S(B)/B the best time a row in process; and a process that does both, plain
ASGI with a batcher that never waits. Targets: >= 10,000 JSON and 15,000 binary where that process reaches 17,900 and
27,800 on two cores, so 0.56 and 0.54 of it; and at one connection at most 0.4 ms where it takes 0.21 (so 1.9 times).
"""

import contextlib
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from benchmarks import pool_client, servers, wrk
from benchmarks.in_process import run_seconds
from benchmarks.models import Mlp, write_algorithm
from benchmarks.processes import Roles, cpu_seconds, serai_roles
from benchmarks.table import Rounds, print_table

_MODEL = Mlp((784, 512, 512, 10), 1)
_CONNECTIONS = (1, 32, 64)
_ECHO, _ONE, _SERAI = "bare ASGI echo of the body", "one process, batching", "Serai"
_POOL = "pool alone, its socket"


def run(*, rounds: int, seconds: float) -> None:
    wrk.require()
    row = np.random.default_rng(7).random(784).astype(np.float32)
    bodies = {
        "JSON": ("application/json", msgspec.json.encode([round(float(value), 6) for value in row])),
        "binary": ("application/octet-stream", row.tobytes()),
    }
    found = Rounds()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        algorithm = write_algorithm(folder / "small", "small", _MODEL.build().SerializeToString())
        model = algorithm / "models/small.onnx"
        echo = stack.enter_context(servers.uvicorn("benchmarks.limits:bare_echo"))
        environment = {"BENCH_MODEL": str(model)}
        one = stack.enter_context(servers.uvicorn("benchmarks.by_hand:batching", environment, "--factory"))
        own = stack.enter_context(servers.serai([algorithm], "--cpu-threads", "1"))
        subjects: dict[str, tuple[str, dict[str, str], Roles]] = {
            _ECHO: (echo.url, {}, lambda: {"server": [echo.pid]}),
            _ONE: (one.url, {}, lambda: {"server": [one.pid]}),
            _SERAI: (f"{own.url}/v1/algo/operator/small?output=raw", own.headers, serai_roles(own.home)),
        }
        _check_answers(subjects, bodies, row)
        for number in range(rounds + 1):  # the first warms up
            into = found if number else Rounds()
            into.add("in process", "best row s", min(took_s / size for size, took_s in run_seconds(model, 784).items()))
            for name, subject in subjects.items():
                for kind, body in bodies.items():
                    _measure(into, name, kind, subject, body, seconds if number else 1.0)
            for kind, (_, body) in bodies.items():
                for depth in _CONNECTIONS:
                    ends = uvloop.run(_socket(own.home, model, body, kind, depth, min(seconds, 2.0)))
                    into.add(_POOL, f"{kind} {depth} rate", ends.per_second)
                    into.add(_POOL, f"{kind} {depth} p50", ends.percentile_ms(0.5))
                    into.add(_POOL, f"{kind} {depth} p99", ends.percentile_ms(0.99))
    _report(found, rounds, seconds)


def _measure(
    found: Rounds,
    name: str,
    kind: str,
    subject: tuple[str, dict[str, str], Roles],
    body: tuple[str, bytes],
    seconds: float,
) -> None:
    url, headers, roles = subject
    for connections in _CONNECTIONS:
        before = {role: cpu_seconds(pids) for role, pids in roles().items()}
        sent = {**headers, "Content-Type": body[0]}
        load = wrk.run(url, body[1], sent, connections=connections, seconds=seconds)
        if load.num_errors:
            raise RuntimeError(f"{name}: {load.num_errors} errors")
        calls = load.per_second * max(1, round(seconds))
        for role, pids in roles().items():
            found.add(name, f"{kind} {connections} cpu {role}", (cpu_seconds(pids) - before[role]) / calls * 1e6)
        found.add(name, f"{kind} {connections} rate", load.per_second)
        found.add(name, f"{kind} {connections} p50", load.p50_ms)
        found.add(name, f"{kind} {connections} p99", load.p99_ms)


async def _socket(home: Path, model: Path, body: bytes, kind: str, depth: int, seconds: float) -> pool_client.Ends:
    version = pool_client.version_of(model, "small", home)
    client = await pool_client.connect(home / "run/pool.sock")
    client.define(version)
    content_type = "json" if kind == "JSON" else "binary"
    ends = await pool_client.closed_loop(client, version.key, body, depth=depth, seconds=seconds, kind=content_type)
    client.close()
    return ends


def _check_answers(subjects: dict, bodies: dict[str, tuple[str, bytes]], row: np.ndarray) -> None:
    right = _MODEL.answer(row[None])[0]
    for name, (url, headers, _) in subjects.items():
        if name == _ECHO:
            continue
        for kind, (content_type, body) in bodies.items():
            status, answer = servers.post(url, body, {**headers, "Content-Type": content_type})
            if status != 200:
                raise RuntimeError(f"{name} answered {status}: {answer[:300]!r}")
            given = msgspec.json.decode(answer) if kind == "JSON" else np.frombuffer(answer, np.float32)
            np.testing.assert_allclose(given, right, atol=1e-3, err_msg=name)


def _report(found: Rounds, rounds: int, seconds: float) -> None:
    print(f"\nC2 784-512-512-10, one thread for the model: medians of {rounds} round(s) of {seconds:g} s")
    best_s = found.median("in process", "best row s")
    rows = []
    for kind in ("JSON", "binary"):
        echo_s = found.median(_ECHO, f"{kind} 32 cpu server") / 1e6
        composite = 1 / (echo_s + best_s)
        for connections in _CONNECTIONS:
            base = f"{kind} {connections}"
            for name in (_ECHO, _ONE, _POOL, _SERAI):
                rate, p50, p99 = (found.median(name, f"{base} {what}") for what in ("rate", "p50", "p99"))
                of_one = rate / found.median(_ONE, f"{base} rate")
                of_composite = f"{rate / composite:.2f}" if connections > 1 and name in (_ONE, _SERAI) else ""
                roles = {_SERAI: ("gateway", "owner", "worker"), _POOL: ()}.get(name, ("server",))
                cpu = " ".join(f"{role} {found.median(name, f'{base} cpu {role}'):.0f}" for role in roles)
                rows.append([kind, str(connections), name, f"{rate:,.0f}", f"{of_one:.2f}", of_composite,
                             f"{p50:.3f}", f"{p99:.2f}", cpu])  # fmt: skip
        parts = f"an echo takes {echo_s * 1e6:.0f} µs, a row at best {best_s * 1e6:.1f}"
        print(f"{kind}: {parts}; so the composite limit of one core is {composite:,.0f} calls/s")
    head = ["body", "conn.", "server", "calls/s", "of one process", "of composite", "p50 ms", "p99 ms", "CPU µs a call"]
    print_table(head, rows)
    print(
        "targets: of one process at 32 connections JSON >= 0.56, binary >= 0.54; at 1 connection p50 at most 1.9 times"
    )
