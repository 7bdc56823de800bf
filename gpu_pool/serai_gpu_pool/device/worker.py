"""A worker: loads models of one framework on one device and runs batches of them. A process of its own; may crash.

    python -m serai_gpu_pool.device.worker PARENT_PID FRAMEWORK DEVICE THREADS MEMORY_BYTES ARENA_BYTES FD…
    (descriptors: shared inputs, loads, then one for each lane)

One thread reads requests for loads and starts another for each that takes long; each lane has one that runs batches.
Frameworks let go of the interpreter while they work. It holds no secret and writes no file of ours.
"""

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from serai_gpu_pool.arena import ReadOnlyArena
from serai_gpu_pool.device import messages, process_control
from serai_gpu_pool.device.channel import Channel
from serai_gpu_pool.device.held import HeldModels
from serai_gpu_pool.device.items import run_items
from serai_gpu_pool.device.messages import (
    Close,
    Done,
    Improve,
    Improved,
    Item,
    Left,
    Load,
    Loaded,
    LoadFailed,
    PageIn,
    PageOut,
    Request,
    Run,
    WorkerReady,
)
from serai_gpu_pool.device.stacking import Stacker
from serai_gpu_pool.frameworks import registry
from serai_gpu_pool.frameworks.base import Framework, LoadError, Source


class Worker:
    def __init__(self, framework: Framework, memory_bytes: int, arena: ReadOnlyArena) -> None:
        self._framework = framework
        self._memory_bytes = memory_bytes
        self._arena = arena
        self._models = HeldModels()
        self._under_way = 0  # loads in threads of their own
        self._steps = 0  # of loads that were begun or done: memory was moved that belongs to no run

    # ── loads ────────────────────────────────────────────────────────────────────────────────────────────────

    def serve_loads(self, channel: Channel, base_bytes: int) -> None:
        self._answer = channel.write_alone
        self._answer(
            messages.encode(WorkerReady(base_bytes, process_control.resident_bytes(), self._framework.runtime))
        )
        while True:
            header, _ = channel.read()
            self._steps += 1
            request = messages.decode_request(header)
            if isinstance(request, Load):
                self._beside(lambda request=request: self._load(request))
            elif isinstance(request, Improve):
                self._beside(lambda request=request: self._improve(request))
            else:
                self._answer(messages.encode(self._quick(request)))

    def _beside(self, work: Callable[[], Loaded | LoadFailed | Improved]) -> None:
        def answer() -> None:
            self._under_way += 1
            answer = work()
            self._under_way -= 1
            self._answer(messages.encode(answer))

        threading.Thread(target=_quietly, args=(answer,), daemon=True).start()

    def _load(self, request: Load) -> Loaded | LoadFailed:
        spec = request.model
        began = time.perf_counter()
        source = Source(request.path, spec.prepared)
        try:
            model = self._framework.open(spec, source)
        except LoadError as error:
            process_control.return_free_memory()
            return LoadFailed(spec.key, error.failure.kind, error.failure.message)
        load_s = time.perf_counter() - began
        held = self._models.put(spec, source, model)
        self._tidy()
        return held.loaded(load_s, process_control.resident_bytes())

    def _improve(self, request: Improve) -> Improved:
        held = self._models.get(request.model)
        try:
            better = self._framework.improve(held.model, held.spec, held.source)
        except LoadError:
            better = None  # the form that it has is good enough
        if better is None:
            return Improved(request.model, 0, 0, False, process_control.resident_bytes())
        held.replace(better)
        self._tidy()
        return held.improved(process_control.resident_bytes())

    def _quick(self, request: Request) -> Loaded | LoadFailed | Left:
        if isinstance(request, PageIn):
            held = self._models.get(request.model)
            began = time.perf_counter()
            try:
                held.model.page_in()
            except LoadError as error:
                self._models.drop(request.model)
                return LoadFailed(request.model, error.failure.kind, error.failure.message)
            return held.loaded(time.perf_counter() - began, process_control.resident_bytes())
        if isinstance(request, PageOut):
            held = self._models.get(request.model)
            held.model.page_out()
            return Left(request.model, held.kept_bytes(), process_control.resident_bytes())
        if isinstance(request, Close):
            self._models.drop(request.model)
            self._tidy()
            return Left(request.model, 0, process_control.resident_bytes())
        raise ValueError("a batch came where loads are asked for")

    def _tidy(self) -> None:
        process_control.return_free_memory()
        process_control.limit_memory(self._memory_bytes)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────

    def serve_lane(self, channel: Channel) -> None:
        while True:
            header, payload = channel.read()
            request = messages.decode_request(header)
            if not isinstance(request, Run):
                raise ValueError("something else came where batches are run")
            with self._models.in_use(request.model) as stacker:
                began = time.perf_counter() - stacker.asking_s
                if request.wants_measure:
                    outcomes, parts, peak_bytes = self._measured(stacker, request.items, payload)
                else:
                    outcomes, parts = run_items(stacker, request.items, self._bodies(request.items, payload))
                    peak_bytes = 0
                duration_s = time.perf_counter() - stacker.asking_s - began  # without what is only ever done once
            channel.write(messages.encode(Done(request.batch, outcomes, duration_s, peak_bytes)), parts)

    def _measured(self, stacker: Stacker, items: list[Item], payload: memoryview):
        """A run, and the memory that it needed for a while; 0 when something else went on that moved memory."""
        steps, was_alone = self._steps, not self._under_way
        process_control.reset_peak()
        outcomes, parts = run_items(stacker, items, self._bodies(items, payload))
        peak_bytes = process_control.peak_growth()
        is_sure = was_alone and not self._under_way and steps == self._steps and self._models.num_in_use == 1
        return outcomes, parts, peak_bytes if is_sure else 0

    def _bodies(self, items: list[Item], payload: memoryview) -> list[memoryview]:
        """Where the input of each item lies: in shared memory, or one after the other in the frame."""
        bodies: list[memoryview] = []
        at = 0
        for item in items:
            if item.offset >= 0:
                bodies.append(self._arena.read(item.offset, item.num_bytes))
            else:
                bodies.append(payload[at : at + item.num_bytes])
                at += item.num_bytes
        return bodies


def _quietly(serve: Callable[..., None], *arguments: object) -> None:
    """Serve until the pool has gone; then there is nothing left to clean up or to wait for."""
    try:
        serve(*arguments)
    except (EOFError, ConnectionError):
        os._exit(0)
    except BaseException as error:
        print(f"device worker: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(70)


def main() -> None:
    parent_pid, framework_name, device, threads, memory_bytes, arena_bytes, *descriptors = sys.argv[1:]
    process_control.die_with(int(parent_pid))
    inputs_fd, loads_fd, *lane_fds = map(int, descriptors)
    loads, *lanes = (Channel(socket.socket(fileno=fd), messages.MAX_LINK_BYTES) for fd in (loads_fd, *lane_fds))
    framework = registry.make(framework_name, device, int(threads), int(arena_bytes))  # pyright: ignore[reportArgumentType]
    process_control.limit_memory(int(memory_bytes))
    process_control.contain(process_control.MOST_PROCESSES)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    worker = Worker(framework, int(memory_bytes), ReadOnlyArena(inputs_fd))
    base_bytes = process_control.resident_bytes() if device == "cpu" else _device_bytes(framework)
    for lane in lanes[1:]:
        threading.Thread(target=_quietly, args=(worker.serve_lane, lane), daemon=True).start()
    threading.Thread(target=_quietly, args=(worker.serve_loads, loads, base_bytes), daemon=True).start()
    _quietly(worker.serve_lane, lanes[0])


def _device_bytes(framework: Framework) -> int:
    """What the runtime takes of a GPU before a model is there, where it can tell."""
    with contextlib.suppress(AttributeError):
        return framework.device_bytes()  # pyright: ignore[reportAttributeAccessIssue]
    return 0


if __name__ == "__main__":
    main()
