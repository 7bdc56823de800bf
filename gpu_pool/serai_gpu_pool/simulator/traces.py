"""Who is called when: synthetic traces from a seed, and recorded ones from a CSV file. All times in seconds from 0."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serai_gpu_pool.settings import SettingError, parse_bytes

Times = np.ndarray[tuple[int], np.dtype[np.float64]]
Indices = np.ndarray[tuple[int], np.dtype[np.int64]]

#: Sizes as the benchmarks want them: log-normal around 40 MB, cut off at both ends.
_MEDIAN_BYTES, _SIGMA, _MIN_BYTES, _MAX_BYTES = 40e6, 0.9, 5e6, 200e6
#: What opening takes beside reading: log-normal, so that cost is not proportional to size.
_MEDIAN_OPEN_S, _OPEN_SIGMA = 0.02, 1.0
#: Device time of a batch: so much for each item and so much once, before `work` scales it.
_ITEM_S, _BATCH_S = 0.0006, 0.001
#: Longest trace in calls: one more float and index each, and the simulator keeps an answer time for each.
MAX_CALLS = 20_000_000


class TraceError(ValueError):
    """A trace cannot be made or read as asked."""


@dataclass(frozen=True, slots=True)
class SimModel:
    """What a model takes. A batch of b items runs for `item_s` * b + `batch_s` seconds."""

    name: str
    num_bytes: int
    open_s: float  # of a load from disk, beside reading the bytes
    item_s: float
    batch_s: float


@dataclass(frozen=True)
class Trace:
    """`calls[i]`, an index into `models`, is called at `times[i]`; times ascend."""

    name: str
    models: list[SimModel]
    times: Times
    calls: Indices
    timers: frozenset[int] = field(default_factory=frozenset[int])  # models that are called by a clock

    @property
    def seconds(self) -> float:
        return float(self.times[-1]) if len(self.times) else 0.0

    @property
    def total_bytes(self) -> int:
        """Of all models together."""
        return sum(model.num_bytes for model in self.models)


def make_models(count: int, random: np.random.Generator, same: bool = False, work: float = 1.0) -> list[SimModel]:
    """`same`: all of one size and cost. `work`: device time relative to a small network on one core."""
    if same:
        sizes, opens = np.full(count, _MEDIAN_BYTES), np.full(count, _MEDIAN_OPEN_S)
        pace = np.ones(count)
    else:
        sizes = np.clip(random.lognormal(math.log(_MEDIAN_BYTES), _SIGMA, count), _MIN_BYTES, _MAX_BYTES)
        opens = random.lognormal(math.log(_MEDIAN_OPEN_S), _OPEN_SIGMA, count)
        pace = random.lognormal(0.0, 0.5, count)
    return [
        SimModel(f"m{at:05d}", int(size), open_s, _ITEM_S * work * own, _BATCH_S * work * own)
        for at, (size, open_s, own) in enumerate(zip(sizes.tolist(), opens.tolist(), pace.tolist(), strict=True))
    ]


def zipf(
    models: int = 96,
    seconds: float = 600.0,
    rate: float = 20.0,
    alpha: float = 1.0,
    seed: int = 1,
    same: bool = False,
    drift_every_s: float = 0.0,
    work: float = 1.0,
) -> Trace:
    """Poisson arrivals, popularity by rank to the power of -alpha.

    `drift_every_s`: so often two models swap their ranks; 0: popularity does not change.
    """
    _check_size(models, rate * seconds)
    random = np.random.default_rng(seed)
    made = make_models(models, random, same, work)
    times = _poisson(rate, seconds, random)
    weights = np.arange(1, models + 1, dtype=np.float64) ** -alpha
    ranks = random.choice(models, len(times), p=weights / weights.sum())
    model_of = random.permutation(models)
    calls = np.empty(len(times), np.int64)
    begin = 0
    for end in _swaps(times, drift_every_s):
        calls[begin:end] = model_of[ranks[begin:end]]
        one, other = random.integers(0, models, 2)
        model_of[one], model_of[other] = model_of[other], model_of[one]
        begin = end
    parts = [f"zipf {alpha:g}", "same size" * same, f"a swap every {drift_every_s:g} s" * bool(drift_every_s)]
    return Trace(", ".join(filter(None, parts)), made, times, calls)


def azure(
    models: int = 300,
    seconds: float = 4 * 3600.0,
    seed: int = 1,
    timers: float = 0.25,
    compress: float = 1.0,
    work: float = 1.0,
) -> Trace:
    """Shaped like Azure's published function traces, not sampled from them.

    85 % are called once a minute or less, a few up to 60 times as often; gaps of each are gamma distributed with a
    coefficient of variation of its own between 1 and 8, or nearly constant for those that a timer calls. `compress`:
    24 squeezes four hours into ten minutes.
    """
    random = np.random.default_rng(seed)
    made = make_models(models, random, work=work)
    is_rare = random.random(models) < 0.85
    per_minute = np.where(is_rare, 10 ** random.uniform(-2, 0, models), 10 ** random.uniform(0, math.log10(60), models))
    _check_size(models, float(per_minute.sum()) * seconds / 60)
    is_timer = (random.random(models) < timers) & (per_minute <= 12)
    variation = np.exp(random.uniform(0, math.log(8), models))
    times, calls = [], []
    for at in range(models):
        gap_s = 60 / per_minute[at]
        if is_timer[at]:
            own = _ticks(gap_s, seconds, random)
        else:
            own = _bursts(gap_s, variation[at], seconds, random)
        times.append(own)
        calls.append(np.full(len(own), at, np.int64))
    merged, which = np.concatenate(times), np.concatenate(calls)
    order = np.argsort(merged, kind="stable")
    clocks = frozenset(int(at) for at in np.flatnonzero(is_timer))
    return Trace("azure-shaped", made, merged[order] / compress, which[order], clocks)


def read_csv(path: Path, seed: int = 1, work: float = 1.0) -> Trace:
    """A recorded trace: columns `time` (seconds, ascending) and `model` (a name), and where they are known `bytes`
    (`40MB`, or a number) and `open_s` of that model. Models whose size is not given get one drawn from the seed.

    Raises TraceError with the line that is wrong, and OSError.
    """
    names: dict[str, int] = {}
    known: dict[int, tuple[int, float | None]] = {}
    times: list[float] = []
    calls: list[int] = []
    for line, row in _rows(path):
        try:
            at, name = _seconds("time", row["time"]), row["model"]
            num_bytes = parse_bytes(row["bytes"]) if row.get("bytes") else 0
            open_s = _seconds("open_s", row["open_s"]) if row.get("open_s") else None
        except SettingError as problem:
            raise TraceError(f"{path}, line {line}: column bytes: {problem}") from None
        except TraceError as problem:
            raise TraceError(f"{path}, line {line}: {problem}") from None
        if not name:
            raise TraceError(f"{path}, line {line}: column model is empty")
        if times and at < times[-1]:
            raise TraceError(f"{path}, line {line}: time goes back from {times[-1]:g} to {at:g}; sort the file by time")
        if len(times) >= MAX_CALLS:
            raise TraceError(f"{path} has more than {MAX_CALLS:,} calls; cut it into parts")
        model = names.setdefault(name, len(names))
        times.append(at)
        calls.append(model)
        if num_bytes:
            known[model] = num_bytes, open_s
    if not times:
        raise TraceError(f"{path} has no calls")
    drawn = make_models(len(names), np.random.default_rng(seed), work=work)
    models = []
    for name, at in names.items():
        num_bytes, open_s = known.get(at, (drawn[at].num_bytes, None))
        own_open_s = drawn[at].open_s if open_s is None else open_s
        models.append(SimModel(name, num_bytes, own_open_s, drawn[at].item_s, drawn[at].batch_s))
    began = times[0]
    return Trace(path.name, models, np.array(times) - began, np.array(calls, np.int64))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            missing = {"time", "model"} - set(reader.fieldnames or ())
            if missing:
                names = " and no ".join(sorted(missing))
                raise TraceError(f"{path} has no column {names}; its first line has to name them")
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as problem:
            raise TraceError(f"{path}, line {reader.line_num + 1}: {problem}") from None


def _seconds(column: str, text: str | None) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise TraceError(f'column {column}: "{text or ""}" is not a number of seconds from 0 on')
    return seconds


def _check_size(models: int, calls: float) -> None:
    if models < 1:
        raise TraceError("a trace needs at least one model")
    if not 0 < calls <= MAX_CALLS:
        raise TraceError(f"about {calls:,.0f} calls are not between 1 and {MAX_CALLS:,}; change --rate or --seconds")


def _poisson(rate: float, seconds: float, random: np.random.Generator) -> Times:
    return np.sort(random.uniform(0, seconds, max(1, random.poisson(rate * seconds))))


def _swaps(times: Times, every_s: float) -> list[int]:
    """Ends of the stretches between two swaps, as indices of calls."""
    if not every_s:
        return [len(times)]
    return [*np.searchsorted(times, np.arange(every_s, float(times[-1]), every_s)).tolist(), len(times)]


def _ticks(gap_s: float, seconds: float, random: np.random.Generator) -> Times:
    """Late by up to about one hundredth of the gap, as timers are."""
    ticks = np.arange(random.uniform(0, gap_s), seconds, gap_s)
    return ticks + np.abs(random.normal(0, 0.005 * gap_s, len(ticks)))


def _bursts(gap_s: float, variation: float, seconds: float, random: np.random.Generator) -> Times:
    shape = 1 / variation**2
    times = np.empty(0)
    last = -random.uniform(0, gap_s)
    while last < seconds:
        more = last + np.cumsum(random.gamma(shape, gap_s / shape, 64 + int(seconds / gap_s)))
        times = np.concatenate([times, more])
        last = float(more[-1])
    return times[(times >= 0) & (times < seconds)]
