"""C7: 300 models called as a public cloud's functions are, memory for a quarter of them. Simulated.

The load has the shape of Azure's published traces: four hours in ten minutes, 85 % of the models called once a minute
or less, a heavy head, bursts, and a quarter called by timers. Limits, on the same trace: offline knows every coming
call and loads on demand; the oracle also loads ahead. Targets: answers within 1 s at least 0.97 of offline's, cold
starts at most 1.15 of offline's, with prefetch by the clock 0.9 of the timers' cold calls hidden (from a model's fourth
call on).
"""

from benchmarks.table import Rounds, print_table
from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.run import Prefetch, simulate
from serai_gpu_pool.simulator.traces import azure

_RUNS: tuple[tuple[str, Prefetch], ...] = (
    ("offline", "none"),
    ("offline", "oracle"),
    ("known-rates", "none"),
    ("reuse", "none"),
    ("reuse", "clock"),
    ("gdsf", "none"),
    ("gdsf", "clock"),
    ("lru", "none"),
)
_MODELS = 300
#: Four hours in ten minutes.
_COMPRESS = 24.0


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    for seed in range(1, rounds + 1):
        trace = azure(_MODELS, seconds * _COMPRESS, seed, compress=_COMPRESS)
        hardware = Hardware(budget_bytes=trace.total_bytes // 4)
        for policy, prefetch in _RUNS:
            result = simulate(trace, hardware, policy, prefetch=prefetch)
            row = _name(policy, prefetch)
            found.add(row, "goodput", result.goodput)
            found.add(row, "starts", result.loads)
            found.add(row, "cold", result.cold / result.calls)
            found.add(row, "load", result.load_s)
            found.add(row, "p99", result.p99_s * 1e3)
            found.add(row, "timers", result.timer_cold)
    _report(found, rounds, seconds)


def _name(policy: str, prefetch: str) -> str:
    return policy if prefetch == "none" else f"{policy}, prefetch by {prefetch}"


def _report(found: Rounds, rounds: int, seconds: float) -> None:
    print(f"\nC7 Azure-shaped, {_MODELS} models: medians of {rounds} seeds, {seconds:g} s each, simulated")
    best = found.median("offline", "starts"), found.median("offline", "goodput")
    rows = []
    for policy, prefetch in _RUNS:
        row = _name(policy, prefetch)
        starts, goodput = found.median(row, "starts"), found.median(row, "goodput")
        timers = found.median(row, "timers")
        hidden = "" if prefetch == "none" else f"{1 - timers / max(found.median(policy, 'timers'), 1):.2f}"
        rows.append(
            [
                row,
                f"{goodput / best[1]:.4f}",
                f"{starts:,.0f}",
                f"{starts / best[0]:.2f}",
                f"{found.median(row, 'load'):,.1f}",
                f"{found.median(row, 'cold'):.1%}",
                f"{found.median(row, 'p99'):,.0f}",
                f"{timers:,.0f}",
                hidden,
            ]
        )
    head = [
        "policy",
        "goodput",
        "loads",
        "of offline",
        "load s",
        "cold calls",
        "p99 ms",
        "timers' cold calls",
        "hidden",
    ]
    print_table(head, rows)
