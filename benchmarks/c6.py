"""C6: 96 models in a quarter of the memory they need, called by Zipf and Poisson. The pool's decisions, simulated.

Limits, on the same traces: offline, a policy that knows every coming call (greedy Belady by cost and size), and known
rates, which knows how often each model is called but not when: arrivals have no memory, so nobody without foresight
gets further. Targets: load seconds at most 1.25 of offline, 1.3 times better than LRU with unlike models, never more
than 2 % worse with like ones; goodput at least 0.9 of offline's.
"""

from benchmarks.table import Rounds, print_table
from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.run import simulate
from serai_gpu_pool.simulator.traces import Trace, zipf

_POLICIES = ("offline", "known-rates", "reuse", "gdsf", "lfu", "lru")
#: Calls a second: one at which loads do not wait for each other, and one at which they do all the time.
_CALM, _BUSY = 20.0, 60.0


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    names: list[str] = []
    for seed in range(1, rounds + 1):
        for name, trace in _traces(seconds, seed).items():
            if name not in names:
                names.append(name)
            _measure(found, name, trace)
    _report(found, names, rounds, seconds)


def _traces(seconds: float, seed: int) -> dict[str, Trace]:
    made = {f"zipf {alpha:g}": zipf(96, seconds, _CALM, alpha, seed) for alpha in (0.8, 1.0, 1.2)}
    made |= {f"zipf {alpha:g}, alike": zipf(96, seconds, _CALM, alpha, seed, same=True) for alpha in (0.8, 1.0, 1.2)}
    made["zipf 1, alike, drifting"] = zipf(96, seconds, _CALM, 1.0, seed, same=True, drift_every_s=2.0)
    made["zipf 1, drifting"] = zipf(96, seconds, _CALM, 1.0, seed, drift_every_s=2.0)
    made |= {f"zipf {alpha:g}, busy": zipf(96, seconds, _BUSY, alpha, seed) for alpha in (0.8, 1.0, 1.2)}
    return made


def _measure(found: Rounds, name: str, trace: Trace) -> None:
    hardware = Hardware(budget_bytes=trace.total_bytes // 4)
    for policy in _POLICIES:
        result = simulate(trace, hardware, policy)
        found.add(name, f"{policy} load", result.load_s)
        found.add(name, f"{policy} hits", result.hit_rate)
        found.add(name, f"{policy} goodput", result.goodput)
        found.add(name, f"{policy} p99", result.p99_s)


def _report(found: Rounds, names: list[str], rounds: int, seconds: float) -> None:
    print(f"\nC6 Zipf pool: medians of {rounds} seeds, {seconds:g} s of trace, simulated. Load time by offline's")
    rows = []
    for name in names:
        load = {policy: found.median(name, f"{policy} load") for policy in _POLICIES}
        ratios = [f"{load[policy] / load['offline']:.2f}" for policy in _POLICIES[1:]]
        rows.append([name, f"{load['offline']:,.1f}", *ratios, f"{load['lru'] / load['reuse']:.2f}"])
    print_table(["trace", "offline s", *_POLICIES[1:], "reuse better than lru"], rows)
    print("\nHits, and answers within 1 s (of all calls)")
    rows = []
    for name in names:
        medians = [[found.median(name, f"{policy} {what}") for what in ("hits", "goodput")] for policy in _POLICIES]
        rows.append([name, *(f"{hits:.3f} / {goodput:.3f}" for hits, goodput in medians)])
    print_table(["trace", *_POLICIES], rows)
