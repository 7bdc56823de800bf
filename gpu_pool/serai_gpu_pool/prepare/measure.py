"""Measures an open model: memory and time of opening it, of paging, and of batches. Runs in the box."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from serai_gpu_pool.device import process_control
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.frameworks.base import OpenModel
from serai_gpu_pool.frameworks.paging import private_bytes
from serai_gpu_pool.prepare.inputs import Guess
from serai_gpu_pool.profile import BATCH_SIZES, FormProfile

#: How often memory is looked at while something runs that cannot say what its peak was.
_SAMPLE_S = 0.0005
#: A figure is the best of so many, unless they take longer than this together.
_REPEATS, _REPEAT_S = 7, 0.3
_OPENINGS, _OPENING_S = 3, 1.0
#: Written to clear_refs: forget the highest resident size so far.
_RESET_PEAK = "5"

Opened = TypeVar("Opened", bound=OpenModel)


class Clock:
    """What is left of the time that measuring may take."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        return self._until - time.monotonic()

    def has_time(self) -> bool:
        return self.left() > 0


def measure_opening(open_model: Callable[[], Opened]) -> tuple[Opened, FormProfile]:
    """Open a model, some times if that is quick, and leave the last one open. Raises LoadError."""
    times: list[float] = []
    peak = 0
    while True:
        gc.collect()
        process_control.return_free_memory()
        before = private_bytes()
        with _Peak() as sampled:
            began = time.perf_counter()
            model = open_model()
            times.append(time.perf_counter() - began)
        peak = max(peak, sampled.bytes)
        if len(times) == _OPENINGS or sum(times) > _OPENING_S:
            break
        model.close()
        del model
    process_control.return_free_memory()
    private = max(0, private_bytes() - before)
    if not model.can_page:
        return model, FormProfile(min(times), private or model.resident_bytes(), 0, max(peak, private))
    resident = model.resident_bytes()
    # What the model says it keeps is a guess of its own; here nothing else goes on, and it can be seen.
    resident += private - model.kept_bytes()
    return model, FormProfile(min(times), max(0, resident), private, max(peak, private), _page_in_s(model))


def measure_batches(
    model: OpenModel, guess: Guess, sizes: tuple[int, ...], clock: Clock
) -> tuple[dict[int, float], dict[int, int]]:
    """Seconds and peak memory by batch size: as far as the time goes, and as batches succeed."""
    seconds: dict[int, float] = {}
    activation: dict[int, int] = {}
    names = model.signature.output_names
    for size in sizes:
        # Each doubling takes up to twice as long, and is run twice at least.
        if seconds and clock.left() < 4 * seconds[max(seconds)]:
            break
        inputs = guess.inputs(model.signature, size)
        try:
            activation[size] = _peak_of_run(lambda inputs=inputs: model.run(inputs, names))
            seconds[size] = _best_s(lambda inputs=inputs: model.run(inputs, names))
        except ModelRunError:
            break
    return seconds, activation


def batch_sizes(model: OpenModel) -> tuple[int, ...]:
    """Those that its signature lets one try."""
    return BATCH_SIZES if model.signature.has_free_rows else BATCH_SIZES[:1]


def _page_in_s(model: OpenModel) -> float:
    times: list[float] = []
    for _ in range(_OPENINGS):
        model.page_out()
        began = time.perf_counter()
        model.page_in()
        times.append(time.perf_counter() - began)
    return min(times)


def _best_s(run: Callable[[], object]) -> float:
    """Whatever else the machine does makes runs longer, so the shortest tells most about the model."""
    times: list[float] = []
    while len(times) < _REPEATS and (not times or sum(times) < _REPEAT_S):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _peak_of_run(run: Callable[[], object]) -> int:
    """Most memory beyond what there was before, as the kernel has seen it. Pages of files are all there already."""
    gc.collect()
    process_control.return_free_memory()  # memory that an earlier run has left would hide what this one takes
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:  # not compiled into this kernel
        with _Peak() as sampled:
            run()
        return sampled.bytes
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0


class _Peak:
    """Most private memory of this process while the block ran, beyond what there was at its start."""

    def __enter__(self) -> "_Peak":
        self.bytes = 0
        self._before = process_control.resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, process_control.resident_bytes() - self._before)
