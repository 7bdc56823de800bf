"""`python -m serai_gpu_pool.simulator`: what a pool would do with a load, before anybody buys the machine."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.settings import Limits, SettingError, parse_bytes
from serai_gpu_pool.simulator import report, traces
from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.reference import REFERENCES
from serai_gpu_pool.simulator.run import Prefetch, Result, Simulation
from serai_gpu_pool.simulator.traces import Trace, TraceError

#: Runs that take longer than this say how far they are.
_QUIET_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Prints a table, or JSON. 2: something was asked that cannot be."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        trace = _trace(given)
        hardware = _hardware(given, trace)
        runs = [(policy, prefetch) for policy in given.policy for prefetch in given.prefetch]
        results = [_run(trace, hardware, policy, prefetch, given) for policy, prefetch in runs]
    except (TraceError, SettingError, OSError) as problem:
        parser.error(str(problem))
    if given.json:
        sys.stdout.write(report.as_json(trace, hardware, results).decode() + "\n")
    else:
        sys.stdout.write(f"{report.summary(trace, hardware)}\n\n{report.table(results, hardware)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serai_gpu_pool.simulator",
        description="Drive the pool's own decisions with a trace and simulated devices.",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--trace", default="zipf", help="zipf, azure, or a CSV file with columns time and model")
    load.add_argument("--models", type=int, default=96, help="how many (default 96); not for a CSV file")
    load.add_argument("--seconds", type=float, default=600.0, help="of trace (default 600); azure: before --compress")
    load.add_argument("--rate", type=float, default=20.0, help="zipf: calls a second (default 20)")
    load.add_argument("--alpha", type=float, default=1.0, help="zipf: exponent (default 1)")
    load.add_argument("--same-size", action="store_true", help="zipf: all models of one size and cost")
    load.add_argument("--drift", type=float, default=0.0, help="zipf: seconds between two swaps of ranks")
    load.add_argument("--compress", type=float, default=1.0, help="azure: play so much faster (default 1)")
    load.add_argument(
        "--work", type=float, default=1.0, help="device time of a call relative to about 1.6 ms (default 1)"
    )
    load.add_argument("--seed", type=int, default=1)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--devices", type=int, default=1)
    machine.add_argument(
        "--budget", default="25%", help="of each device: 80GiB, or a share of all models: 25%% (default)"
    )
    machine.add_argument("--host", default="0", help="memory that keeps evicted weights, like --budget (default 0)")
    machine.add_argument("--disk", default="1.5GB", help="bytes a second (default 1.5GB)")
    machine.add_argument("--copy", default="20GB", help="bytes a second from host to each device (default 20GB)")
    machine.add_argument("--noise", type=float, default=0.0, help="spread of all times, as of a logarithm (default 0)")
    asked = parser.add_argument_group("what to compare")
    known = f"of {', '.join(POLICIES)}; for reference {', '.join(REFERENCES)} (default {DEFAULT_POLICY})"
    policy, prefetch = _names([*POLICIES, *REFERENCES]), _names(list(get_args(Prefetch)))
    asked.add_argument("--policy", type=policy, default=[DEFAULT_POLICY], metavar="NAME,…", help=known)
    known = "none, clock (regular callers), oracle (knows the trace)"
    asked.add_argument("--prefetch", type=prefetch, default=["none"], metavar="NAME,…", help=known)
    asked.add_argument("--placement", choices=("spread", "best_fit"), default="spread")
    asked.add_argument("--goal", type=float, default=1.0, help="seconds within which an answer counts (default 1)")
    asked.add_argument("--timeout", type=float, default=30.0, help="seconds that a caller waits (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _names(names: list[str]) -> Callable[[str], list[str]]:
    """A list with commas, of these names."""

    def parse(text: str) -> list[str]:
        asked = text.split(",")
        for name in asked:
            if name not in names:
                raise argparse.ArgumentTypeError(f'"{name}" is none of {", ".join(names)}')
        return asked

    return parse


def _trace(given: argparse.Namespace) -> Trace:
    for name in ("seconds", "compress", "work"):
        if not getattr(given, name) > 0:
            raise TraceError(f"--{name} has to be more than 0")
    if given.trace == "zipf":
        return traces.zipf(given.models, given.seconds, given.rate, given.alpha, given.seed, given.same_size,
                           given.drift, given.work)  # fmt: skip
    if given.trace == "azure":
        return traces.azure(given.models, given.seconds, given.seed, compress=given.compress, work=given.work)
    return traces.read_csv(Path(given.trace), given.seed, given.work)


def _hardware(given: argparse.Namespace, trace: Trace) -> Hardware:
    if given.devices < 1:
        raise SettingError(f"--devices {given.devices} is less than 1")
    return Hardware(
        devices=given.devices,
        budget_bytes=_bytes(given.budget, trace.total_bytes // given.devices),
        host_bytes=_bytes(given.host, trace.total_bytes),
        disk_bytes_per_s=float(max(1, parse_bytes(given.disk))),
        copy_bytes_per_s=float(max(1, parse_bytes(given.copy))),
        noise=given.noise,
    )


def _bytes(text: str, whole: int) -> int:
    """`25%` of a whole, or a size."""
    if not text.endswith("%"):
        return parse_bytes(text)
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 1e6:
        raise SettingError(f'"{text}" is not a share; write 25%')
    return int(share * whole)


def _run(trace: Trace, hardware: Hardware, policy: str, prefetch: Prefetch, given: argparse.Namespace) -> Result:
    began = time.monotonic()

    def progress(share: float) -> None:
        if time.monotonic() - began > _QUIET_S:
            sys.stderr.write(f"\r{policy}, prefetch {prefetch}: {share:.0%} ")
            sys.stderr.flush()

    simulation = Simulation(
        trace,
        hardware,
        policy,
        limits=Limits(placement=given.placement),
        timeout_s=given.timeout,
        goal_s=given.goal,
        prefetch=prefetch,
        seed=given.seed,
        progress=progress,
    )
    result = simulation.run()
    if result.wall_s > _QUIET_S:
        sys.stderr.write("\r\033[K")
    return result


if __name__ == "__main__":
    sys.exit(main())
