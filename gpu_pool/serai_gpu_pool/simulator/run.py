"""One trace, one machine, one policy: what would have happened."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import End, Refused, Ticket
from serai_gpu_pool.eviction import POLICIES
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.simulator.machine import Hardware, Machine
from serai_gpu_pool.simulator.reference import REFERENCES
from serai_gpu_pool.simulator.replay import load_seconds
from serai_gpu_pool.simulator.traces import SimModel, Trace

Prefetch = Literal["none", "clock", "oracle"]

#: The trace begins so much later than the clock, so that workers are up and no time is 0.
_BEGIN_S = 100.0
#: After the last call those that still wait get so long, beside their deadline.
_END_S = 10.0
#: A wake-up that is due again at once is put off by so much: time has to go on.
_TICK_S = 0.0005
#: Load times by which a prefetch is early: others may be loading at that moment.
_LEAD_LOADS, _LEAD_S = 3.0, 0.05
#: Calls after which the clock of a model can be known.
_LEARNT = 3
#: Turns between two reports of progress.
_REPORT_EVERY = 20_000


@dataclass
class Result:
    """Times in seconds. A call is cold when its model was in no device's memory when it came."""

    policy: str
    prefetch: Prefetch
    calls: int = 0
    answered: int = 0
    in_goal: int = 0  # answered within the goal
    cold: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    loads: int = 0  # from disk and host tier
    page_ins: int = 0  # those from the host tier
    load_s: float = 0.0  # of all loads together
    evictions: int = 0
    busy_s: float = 0.0  # of all devices together
    p50_s: float = 0.0
    p99_s: float = 0.0
    timer_calls: int = 0  # of models that a clock calls, without the first three: nobody can know it from those
    timer_cold: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    idle_wakeups: int = 0  # times that the scheduler asked to be woken for a moment that had passed

    @property
    def hit_rate(self) -> float:
        return 1 - self.cold / self.calls if self.calls else 0.0

    @property
    def goodput(self) -> float:
        """Share of all calls that were answered within the goal."""
        return self.in_goal / self.calls if self.calls else 0.0


class Simulation:
    """`run` it once. `policy`: a name from `POLICIES` or `REFERENCES`. Raises ValueError for any other.

    Args:
        timeout_s: how long a caller waits.
        goal_s: an answer within this time counts for goodput.
        prefetch: "clock" lets the scheduler load what it expects, "oracle" loads what the trace says.
        progress: told the share that is done, now and then.
    """

    def __init__(
        self,
        trace: Trace,
        hardware: Hardware,
        policy: str,
        *,
        limits: Limits | None = None,
        timeout_s: float = 30.0,
        goal_s: float = 1.0,
        prefetch: Prefetch = "none",
        seed: int = 1,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.result = Result(policy, prefetch)
        self._trace = trace = replace(trace, times=trace.times + _BEGIN_S)
        self._timeout_s, self._goal_s = timeout_s, goal_s
        self._progress = progress
        self._models = {model.name: model for model in trace.models}
        self._specs = [ModelSpec(one.name, one.name, "", "onnx", one.num_bytes) for one in trace.models]
        self._hardware = hardware
        self._machine = Machine(hardware, self._models, self, seed)
        limits = replace(limits or Limits(), foresees=prefetch == "clock")
        self._scheduler = _scheduler(trace, hardware, policy, limits, self._machine)
        self._machine.connect(self._scheduler)
        self._foreseen = _foreseen(trace, hardware) if prefetch == "oracle" else iter(())
        self._next_foreseen = next(self._foreseen, None)
        self._woken_at = -1.0
        self._num_calls = [0] * len(trace.models)
        self._latencies: list[float] = []

    def run(self) -> Result:
        began = time.perf_counter()
        scheduler, machine = self._scheduler, self._machine
        scheduler.start()
        times, calls = self._trace.times.tolist(), self._trace.calls.tolist()
        ends_at = times[-1] + self._timeout_s + _END_S
        at, turns = 0, 0
        while at < len(times) or scheduler.num_live:
            wakeup = self._next_wakeup()
            soonest = [one for one in (machine.next_at, wakeup, self._next_prefetch()) if one is not None]
            now = max(min([*soonest, times[at] if at < len(times) else ends_at]), machine.now)
            if now >= ends_at:
                break
            machine.now = now
            machine.run_due(now)
            if wakeup is not None and wakeup <= now:
                scheduler.on_time(now)
                self._woken_at = now
            while at < len(times) and times[at] <= now:
                self._call(at, calls[at], now)
                at += 1
            self._prefetch(now)
            scheduler.advance(now)
            turns += 1
            if turns % _REPORT_EVERY == 0:
                self._progress(at / len(times))
        return self._finished(time.perf_counter() - began)

    def _next_wakeup(self) -> float | None:
        wakeup = self._scheduler.next_wakeup(self._machine.now)
        if wakeup is None or wakeup > self._woken_at:
            return wakeup
        self.result.idle_wakeups += 1
        return self._woken_at + _TICK_S

    def _call(self, number: int, model: int, now: float) -> None:
        spec, result, counts = self._specs[model], self.result, self._scheduler.counts
        result.calls += 1
        hits = counts.hits
        self._scheduler.on_call(Ticket(number, spec.key, "caller", now + self._timeout_s, b""), spec, now)
        is_cold = counts.hits == hits
        self._num_calls[model] += 1
        is_timer = model in self._trace.timers and self._num_calls[model] > _LEARNT
        result.cold += is_cold
        result.timer_calls += is_timer
        result.timer_cold += is_timer and is_cold

    # ── prefetch ─────────────────────────────────────────────────────────────────────────────────────────────

    def _next_prefetch(self) -> float | None:
        return self._next_foreseen[0] if self._next_foreseen else None

    def _prefetch(self, now: float) -> None:
        while self._next_foreseen is not None and self._next_foreseen[0] <= now:
            self._order(self._next_foreseen[1], now)
            self._next_foreseen = next(self._foreseen, None)

    def _order(self, model: int, now: float) -> None:
        deadline = now + 2 * _lead_s(self._trace.models[model], self._hardware)
        self._scheduler.on_order(Order(0, "load", deadline, None), self._specs[model], now)

    # ── Ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, ticket: Ticket, now: float) -> None:
        took_s = now - ticket.enqueued_at
        self._latencies.append(took_s)
        self.result.in_goal += took_s <= self._goal_s

    def refuse(self, ticket: Ticket, end: End, now: float) -> None:
        code = end.code if isinstance(end, Refused) else "broken"
        self.result.refused[code] = self.result.refused.get(code, 0) + 1

    def _finished(self, wall_s: float) -> Result:
        self._scheduler.check_integrity()
        result, counts = self.result, self._scheduler.counts
        result.answered = len(self._latencies)
        result.loads, result.page_ins, result.load_s = counts.loads, counts.page_ins, counts.load_seconds
        result.evictions = sum(counts.evictions.values())
        result.busy_s = self._machine.busy_s
        if self._latencies:
            result.p50_s, result.p99_s = (float(one) for one in np.quantile(self._latencies, [0.5, 0.99]))
        result.simulated_s = self._machine.now - _BEGIN_S
        result.wall_s = wall_s
        return result


def simulate(trace: Trace, hardware: Hardware, policy: str, **more: object) -> Result:
    """Keywords as of `Simulation`."""
    return Simulation(trace, hardware, policy, **more).run()  # pyright: ignore[reportArgumentType]


def _scheduler(trace: Trace, hardware: Hardware, policy: str, limits: Limits, machine: Machine) -> Scheduler:
    if policy not in POLICIES and policy not in REFERENCES:
        raise ValueError(f'no policy called "{policy}"; there are {", ".join([*POLICIES, *REFERENCES])}')
    devices = [
        DeviceSpec(f"sim:{number}", "simulated", hardware.budget_bytes, frozenset({"onnx"}))
        for number in range(hardware.devices)
    ]
    name = policy if policy in POLICIES else next(iter(POLICIES))
    made = Scheduler(devices, hardware.host_bytes, limits, machine, name)
    if policy in REFERENCES:
        make = REFERENCES[policy](trace)
        for device in made.devices.values():
            device.policy = make()
    return made


def _lead_s(model: SimModel, hardware: Hardware) -> float:
    """How long before its next call a model is fetched."""
    return _LEAD_LOADS * load_seconds(model, hardware.disk_bytes_per_s) + _LEAD_S


def _foreseen(trace: Trace, hardware: Hardware) -> Iterator[tuple[float, int]]:
    """When to load which model, with perfect knowledge of the calls: before each that comes after a pause."""
    due: list[tuple[float, int]] = []
    last: dict[int, float] = {}
    for now, model in zip(trace.times.tolist(), trace.calls.tolist(), strict=True):
        lead_s = _lead_s(trace.models[model], hardware)
        if now - last.get(model, -1e9) > lead_s:
            due.append((now - lead_s, model))
        last[model] = now
    return iter(sorted(due))
