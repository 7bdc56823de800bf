"""Results as a table for people and as JSON for programs."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.run import Result
from serai_gpu_pool.simulator.traces import Trace

_HEAD = (
    "policy", "prefetch", "load s", "of first", "loads", "from host", "hit rate", "in goal", "p50 ms", "p99 ms",
    "refused", "devices busy", "took s",
)  # fmt: skip


def table(results: Sequence[Result], hardware: Hardware) -> str:
    """One line a result; load seconds also as a ratio to those of the first."""
    rows = [_HEAD, *(_row(one, results[0], hardware) for one in results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _row(one: Result, first: Result, hardware: Hardware) -> tuple[str, ...]:
    device_s = max(one.simulated_s * hardware.devices, 1e-9)
    return (
        one.policy,
        one.prefetch,
        f"{one.load_s:,.1f}",
        f"{one.load_s / first.load_s:.2f}" if first.load_s else "-",
        f"{one.loads:,}",
        f"{one.page_ins:,}",
        f"{one.hit_rate:.1%}",
        f"{one.goodput:.2%}",
        f"{one.p50_s * 1e3:,.1f}",
        f"{one.p99_s * 1e3:,.1f}",
        f"{sum(one.refused.values()):,}",
        f"{one.busy_s / device_s:.0%}",
        f"{one.wall_s:.1f}",
    )


def refusals(results: Sequence[Result]) -> list[str]:
    """Why calls were refused, a line for each result in which some were."""
    return [
        f"refused by {one.policy}, prefetch {one.prefetch}: "
        + ", ".join(f"{number:,} {code.replace('_', ' ')}" for code, number in sorted(one.refused.items()))
        for one in results
        if one.refused
    ]


def too_large(trace: Trace, hardware: Hardware) -> list[str]:
    """A line about models that fit into no device, if there are any: whatever calls them is refused."""
    sizes = [model.num_bytes for model in trace.models]
    num_large = sum(one > hardware.budget_bytes for one in sizes)
    if not num_large:
        return []
    which = f"{num_large:,} of {count(len(sizes), 'model')}"
    budget, largest = size(hardware.budget_bytes), size(max(sizes))
    return [f"too large: {which} for a device of {budget}; write --budget {largest} and they fit"]


def size(num_bytes: int) -> str:
    """As `--budget` takes it, and never less than it is: `12B`, `40.1MB`, `1.25GB`."""
    for unit, divisor, digits in (("GB", 10**9, 2), ("MB", 10**6, 1), ("KB", 10**3, 1)):
        if num_bytes >= divisor:
            rounded = f"{math.ceil(num_bytes * 10**digits / divisor) / 10**digits:.{digits}f}"
            return rounded.rstrip("0").rstrip(".") + unit
    return f"{num_bytes}B"


def count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def summary(trace: Trace, hardware: Hardware) -> str:
    """What was asked, in one line."""
    share = hardware.budget_bytes * hardware.devices / max(trace.total_bytes, 1)
    asked = f"{count(len(trace.calls), 'call')} of {count(len(trace.models), 'model')} ({size(trace.total_bytes)})"
    return (
        f"{trace.name}: {asked} in {trace.seconds:,.0f} s; {hardware.devices} × {size(hardware.budget_bytes)} "
        f"({share:.0%}), host tier {size(hardware.host_bytes)}"
    )


def as_json(trace: Trace, hardware: Hardware, results: Sequence[Result]) -> bytes:
    """Numbers as in `Result`, with the two shares that follow from them."""
    rows: list[dict[str, Any]] = [
        msgspec.to_builtins(one) | {"hit_rate": one.hit_rate, "goodput": one.goodput} for one in results
    ]
    about = {
        "name": trace.name,
        "calls": len(trace.calls),
        "models": len(trace.models),
        "bytes": trace.total_bytes,
        "seconds": trace.seconds,
    }
    return msgspec.json.format(
        msgspec.json.encode({"trace": about, "hardware": msgspec.to_builtins(hardware), "results": rows})
    )
