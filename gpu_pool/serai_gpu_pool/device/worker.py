"""The worker of the CPU device: loads ONNX models and runs batches of them. A process of its own; may crash.

    python -m serai_gpu_pool.device.worker LOADS_FD BATCHES_FD ARENA_FD PARENT_PID THREADS MEMORY_BYTES

Two threads: one loads and drops, the main one runs batches. Each reads requests from its own socket and answers
them in order; ONNX Runtime lets go of the interpreter while it works. It holds no secret and writes no file.
"""

import gc
import os
import socket
import sys
import threading
import time

from serai_gpu_pool.arena import ReadOnlyArena
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.device import messages, process_control
from serai_gpu_pool.device.channel import Channel
from serai_gpu_pool.device.items import run_items
from serai_gpu_pool.device.messages import Done, Drop, Dropped, Item, Load, Loaded, LoadFailed, Run, WorkerReady
from serai_gpu_pool.device.stacking import Stacker


class Worker:
    def __init__(self, threads: int, arena: ReadOnlyArena) -> None:
        self._threads = threads
        self._arena = arena
        self._models: dict[str, Stacker] = {}  # one thread writes, the other reads what the owner says is there
        self._checked: set[str] = set()

    # ── loads ────────────────────────────────────────────────────────────────────────────────────────────────

    def serve_loads(self, channel: Channel, runtime: str) -> None:
        channel.write(messages.encode(WorkerReady(process_control.resident_bytes(), runtime)), [])
        while True:
            header, _ = channel.read()
            request = messages.decode_request(header)
            if isinstance(request, Load):
                answer = self._load(request)
            elif isinstance(request, Drop):
                answer = self._drop(request)
            else:
                raise ValueError("a batch came where loads are asked for")
            channel.write(messages.encode(answer), [])

    def _load(self, request: Load) -> Loaded | LoadFailed:
        from serai_gpu_pool.device import onnx_cpu

        spec = request.model
        before, began = process_control.resident_bytes(), time.perf_counter()
        if spec.format != "onnx":
            failure = LoadFailure("broken", f'model "{spec.name}" is of format {spec.format}; this device runs onnx')
            return LoadFailed(spec.sha256, failure.kind, failure.message)
        try:
            self._models[spec.sha256] = onnx_cpu.load(spec, self._threads, self._checked)
        except onnx_cpu.LoadError as error:
            process_control.return_free_memory()
            return LoadFailed(spec.sha256, error.failure.kind, error.failure.message)
        load_s = time.perf_counter() - began
        process_control.return_free_memory()
        after = process_control.resident_bytes()
        return Loaded(spec.sha256, _plausible(after - before, spec.num_bytes), load_s, after)

    def _drop(self, request: Drop) -> Dropped:
        self._models.pop(request.model, None)
        process_control.return_free_memory()
        return Dropped(request.model, process_control.resident_bytes())

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────

    def serve_batches(self, channel: Channel) -> None:
        while True:
            header, payload = channel.read()
            request = messages.decode_request(header)
            if not isinstance(request, Run):
                raise ValueError("something else came where batches are run")
            began = time.perf_counter()
            bodies = self._bodies(request.items, payload)
            outcomes, parts = run_items(self._models[request.model], request.items, bodies)
            duration_s = time.perf_counter() - began
            channel.write(messages.encode(Done(request.batch, outcomes, duration_s)), parts)

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


def _plausible(measured_bytes: int, file_bytes: int) -> int:
    """What a load added to the process, held between bounds: other models run meanwhile and blur it."""
    return max(file_bytes, min(measured_bytes, 4 * file_bytes + (64 << 20)))


def _quietly(serve, *args) -> None:
    """Serve until the pool has gone; then there is nothing left to clean up or to wait for."""
    try:
        serve(*args)
    except (EOFError, ConnectionError):
        os._exit(0)
    except BaseException as error:
        print(f"device worker: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(70)


def main() -> None:
    loads_fd, batches_fd, arena_fd, parent_pid, threads, memory_bytes = map(int, sys.argv[1:])
    process_control.die_with(parent_pid)
    loads = Channel(socket.socket(fileno=loads_fd), messages.MAX_LINK_BYTES)
    batches = Channel(socket.socket(fileno=batches_fd), messages.MAX_LINK_BYTES)
    from serai_gpu_pool.device import onnx_cpu  # slow, and only needed in here

    process_control.limit_memory(memory_bytes)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    worker = Worker(threads, ReadOnlyArena(arena_fd))
    threading.Thread(target=_quietly, args=(worker.serve_loads, loads, onnx_cpu.RUNTIME), daemon=True).start()
    _quietly(worker.serve_batches, batches)


if __name__ == "__main__":
    main()
