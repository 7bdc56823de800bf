"""C1: what Serai adds to a call that does nothing, through a sandboxed replica.

Limit: the same 1 KB echo on raw uvicorn (Starlette, one worker), in the same run, interleaved.
Targets: at 32 connections at least 0.45 of the limit; at 1 connection at most 0.3 ms more at the median.
"""

import contextlib
import json
import tempfile
from pathlib import Path

from benchmarks import servers, wrk
from benchmarks.table import Rounds, print_table

_CONNECTIONS = (1, 32, 64)
_JSON = json.dumps({"rows": [{"id": i, "name": f"row number {i:04d}", "value": i * 0.5} for i in range(19)]}).encode()
_BODIES = {"JSON": ("application/json", _JSON), "binary": ("application/octet-stream", bytes(range(256)) * 4)}

_MANIFEST = """[algorithm]
owner = "operator"
name = "echo"
tagline = "Gives back what it gets"
language = "python"
"""


def _write_echo(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "algorithm.toml").write_text(_MANIFEST)
    (folder / "src/echo.py").write_text("def apply(input):\n    return input\n")
    (folder / "README.md").write_text("# echo\n")
    return folder


def run(*, rounds: int, seconds: float) -> None:
    wrk.require()
    found = Rounds()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        limit = stack.enter_context(servers.uvicorn("benchmarks.limits:echo"))
        bare = stack.enter_context(servers.uvicorn("benchmarks.limits:bare_echo"))
        own = stack.enter_context(servers.serai([_write_echo(folder / "echo")]))
        subjects = {
            "raw uvicorn (Starlette)": (limit.url, {}),
            "raw uvicorn (bare ASGI)": (bare.url, {}),
            "Serai": (f"{own.url}/v1/algo/operator/echo?output=raw", own.headers),
        }
        for number in range(rounds + 1):  # the first warms up
            for name, (url, headers) in subjects.items():
                for kind, (content_type, body) in _BODIES.items():
                    for connections in _CONNECTIONS:
                        sent = {**headers, "Content-Type": content_type}
                        load = wrk.run(url, body, sent, connections=connections, seconds=seconds if number else 1)
                        if load.num_errors:
                            raise RuntimeError(f"{name}: {load.num_errors} errors")
                        if number:
                            found.add(name, f"{kind} {connections} rate", load.per_second)
                            found.add(name, f"{kind} {connections} p50", load.p50_ms)
                            found.add(name, f"{kind} {connections} p99", load.p99_ms)
    _report(found, list(subjects), rounds, seconds)


def _report(found: Rounds, subjects: list[str], rounds: int, seconds: float) -> None:
    print(f"\nC1 echo of 1 KB through a replica: medians of {rounds} rounds of {seconds:g} s")
    rows = []
    for kind in _BODIES:
        for connections in _CONNECTIONS:
            base = f"{kind} {connections}"
            limit_rate = found.median(subjects[0], f"{base} rate")
            limit_p50 = found.median(subjects[0], f"{base} p50")
            for name in subjects:
                rate, p50 = found.median(name, f"{base} rate"), found.median(name, f"{base} p50")
                p99 = found.median(name, f"{base} p99")
                rows.append(
                    [
                        kind,
                        str(connections),
                        name,
                        f"{rate:,.0f}",
                        f"{rate / limit_rate:.2f}",
                        f"{p50:.3f}",
                        f"{p50 - limit_p50:+.3f}",
                        f"{p99:.2f}",
                    ]
                )
    print_table(["body", "conn.", "server", "calls/s", "of limit", "p50 ms", "added ms", "p99 ms"], rows)
    print("targets: JSON at 32 connections >= 0.45 of raw uvicorn; at 1 connection at most +0.3 ms")
