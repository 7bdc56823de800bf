"""`python -m serai_gpu_pool.simulator`: what a pool would do with a load, before anybody buys the machine."""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.settings import Limits, SettingError, parse_bytes
from serai_gpu_pool.simulator import report, traces
from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.reference import REFERENCES
from serai_gpu_pool.simulator.run import Prefetch, Result, Simulation
from serai_gpu_pool.simulator.traces import Trace, TraceError

#: Runs that take longer than this say how far they are, on a terminal.
_QUIET_S = 1.0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; all options are what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table, or JSON. Exits with 2 when something was asked that cannot be."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        trace = _trace(given)
        hardware = _hardware(given, trace)
        runs = [(policy, prefetch) for policy in given.policy for prefetch in given.prefetch]
        results = [_run(trace, hardware, policy, prefetch, given) for policy, prefetch in runs]
    except (TraceError, SettingError) as problem:
        parser.error(str(problem))
    if given.json:
        sys.stdout.write(report.as_json(trace, hardware, results).decode() + "\n")
    else:
        said = [report.summary(trace, hardware), "", report.table(results, hardware), *report.refusals(results)]
        sys.stdout.write("\n".join([*said, *report.too_large(trace, hardware)]) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m serai_gpu_pool.simulator",
        description="Drive the pool's own decisions with a trace and simulated devices.",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--trace", default="zipf", help="zipf, azure, or a CSV file with columns time and model")
    load.add_argument("--models", type=int, default=96, help="how many (default 96); not for a CSV file")
    load.add_argument("--seconds", type=float, default=600.0, help="of trace (default 600); azure: before --compress")
    load.add_argument("--rate", type=float, default=20.0, help="zipf: calls a second (default 20)")
    load.add_argument("--alpha", type=_number, default=1.0, help="zipf: exponent (default 1)")
    load.add_argument("--same-size", action="store_true", help="zipf: all models of one size and cost")
    load.add_argument("--drift", type=_number, default=0.0, help="zipf: seconds between two swaps of ranks")
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
    machine.add_argument(
        "--noise", type=_number, default=0.0, help="spread of all times, as of a logarithm (default 0)"
    )
    asked = parser.add_argument_group("what to compare")
    known = f"of {', '.join(POLICIES)}; for reference {', '.join(REFERENCES)} (default {DEFAULT_POLICY})"
    policy, prefetch = _names([*POLICIES, *REFERENCES]), _names(list(get_args(Prefetch)))
    asked.add_argument("--policy", type=policy, default=[DEFAULT_POLICY], metavar="NAME,…", help=known)
    known = (
        "none (load what is called), clock (also what is called by the clock, before that), oracle (reads the trace)"
    )
    asked.add_argument("--prefetch", type=prefetch, default=["none"], metavar="NAME,…", help=known)
    asked.add_argument("--placement", choices=("spread", "best_fit"), default="spread")
    asked.add_argument("--goal", type=_number, default=1.0, help="seconds within which an answer counts (default 1)")
    asked.add_argument("--timeout", type=_number, default=30.0, help="seconds that a caller waits (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 0 on')
    return number


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
    try:
        return traces.read_csv(Path(given.trace), given.seed, given.work)
    except FileNotFoundError:
        raise TraceError(
            f'--trace "{given.trace}" is neither zipf nor azure, and there is no such file; '
            "a path to a CSV file with columns time and model is taken as well"
        ) from None
    except OSError as problem:
        raise TraceError(f'--trace "{given.trace}" cannot be read: {problem.strerror or problem}') from None


def _hardware(given: argparse.Namespace, trace: Trace) -> Hardware:
    if given.devices < 1:
        raise SettingError(f"--devices {given.devices} is less than 1")
    hardware = Hardware(
        devices=given.devices,
        budget_bytes=_bytes(given.budget, trace.total_bytes // given.devices),
        host_bytes=_bytes(given.host, trace.total_bytes),
        disk_bytes_per_s=float(max(1, parse_bytes(given.disk))),
        copy_bytes_per_s=float(max(1, parse_bytes(given.copy))),
        noise=given.noise,
    )
    _check_budget(given.budget, hardware.budget_bytes, trace)
    return hardware


def _check_budget(asked: str, budget_bytes: int, trace: Trace) -> None:
    """Where nothing fits, everything would be refused, which is no answer to any question."""
    sizes = [model.num_bytes for model in trace.models]
    if budget_bytes < min(sizes):
        smallest, largest = report.size(min(sizes)), report.size(max(sizes))
        raise SettingError(
            f"--budget {asked} is {report.size(budget_bytes)} for each device, and no model of this trace fits: the "
            f"smallest takes {smallest}, the largest {largest}; write --budget {largest} and all fit"
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
    is_watched = sys.stderr.isatty()

    def progress(share: float) -> None:
        if is_watched and time.monotonic() - began > _QUIET_S:
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
    if is_watched and result.wall_s > _QUIET_S:
        sys.stderr.write("\r\033[K")
    return result


if __name__ == "__main__":
    sys.exit(main())
