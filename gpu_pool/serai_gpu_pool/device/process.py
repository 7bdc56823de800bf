"""A device whose worker is a process of its own: the owner's end. Restarts the worker whenever it ends."""

import asyncio
import os
import shutil
import socket
import sys
from pathlib import Path

import structlog

from serai.ipc.frames import FrameError, FrameProtocol, pack_prefix
from serai.ipc.messages import ModelSpec
from serai_gpu_pool.arena import Arena, Slab
from serai_gpu_pool.core import Batch, LoadFailure, Outcome
from serai_gpu_pool.device import messages
from serai_gpu_pool.device.base import DeviceEvents
from serai_gpu_pool.device.messages import Done, Drop, Dropped, Item, Load, Loaded, LoadFailed, Run, WorkerReady

log = structlog.get_logger()

#: Starts that fail in a row before waiting callers are told.
_MAX_FAILED_STARTS = 3
#: First wait before the next start of a worker that did not come up; doubled each time, up to the last.
_RESTART_S, _MAX_RESTART_S = 0.1, 5.0
#: A worker that has not reported by then is stuck in its start.
_START_TIMEOUT_S = 30.0
#: Memory for running models, beyond the budget for holding them.
_RUN_BYTES = 1 << 30


class WorkerProcess:
    """The CPU device. See `Device` in base.py for what each method promises."""

    def __init__(self, working_directory: Path, threads: int, budget_bytes: int, arena: Arena) -> None:
        self._directory = working_directory
        self._arena = arena
        self._arguments = [str(threads), str(budget_bytes + max(_RUN_BYTES, budget_bytes // 4))]
        self._events: DeviceEvents | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._loads: _Link | None = None
        self._batches: _Link | None = None
        self._life: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._kill_reason = ""
        self.worker_bytes = 0  # resident set of the worker when it last said

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    # ── what the owner asks for ──────────────────────────────────────────────────────────────────────────────

    def start(self, events: DeviceEvents) -> None:
        self._events = events
        self._life = asyncio.get_running_loop().create_task(self._keep_alive())

    def load(self, model: ModelSpec) -> None:
        assert self._loads, "nothing is asked of a device before on_worker_ready"
        self._loads.send_frame(messages.encode(Load(model)))

    def drop(self, model: str) -> None:
        assert self._loads, "nothing is asked of a device before on_worker_ready"
        self._loads.send_frame(messages.encode(Drop(model)))

    def run(self, batch: Batch) -> None:
        assert self._batches, "nothing is asked of a device before on_worker_ready"
        items: list[Item] = []
        parts: list[bytes | memoryview] = []
        for ticket in batch.tickets:
            payload, offset = ticket.payload, -1
            if isinstance(payload, Slab):
                offset = payload.offset
            else:
                parts.append(payload)
            items.append(Item(len(payload), ticket.form, offset, ticket.tensors, ticket.outputs))
        self._batches.send_parts(messages.encode(Run(batch.id, batch.model, items)), parts)

    def kill(self, reason: str) -> None:
        self._kill_reason = reason
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    # ── the worker's life ────────────────────────────────────────────────────────────────────────────────────

    async def _keep_alive(self) -> None:
        assert self._events
        failed_starts = 0
        while True:
            reason = await self._live_once()
            if self._ready.is_set():
                failed_starts = 0
                self._events.on_worker_lost(reason)
                continue
            failed_starts += 1
            if failed_starts >= _MAX_FAILED_STARTS:
                self._events.on_start_failed(reason)
            await asyncio.sleep(min(_RESTART_S * 2 ** min(failed_starts - 1, 30), _MAX_RESTART_S))

    async def _live_once(self) -> str:
        """One worker from its start to its end; how it ended."""
        self._ready.clear()
        self._kill_reason = ""
        try:
            process = self._process = await self._spawn()
        except OSError as error:
            return f"it could not be started: {error}"
        try:
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes as the awaited thing ends.
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await self._ready_or_ended(process)
            except TimeoutError:
                self.kill(f"not ready after {_START_TIMEOUT_S:g} s")
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            for link in (self._loads, self._batches):
                if link is not None:
                    link.close()
        reason = self._kill_reason or (f"signal {-code}" if code < 0 else f"exit code {code}")
        log.warning("device worker ended", action="worker_lost", pid=process.pid, reason=reason)
        return reason

    async def _ready_or_ended(self, process: asyncio.subprocess.Process) -> None:
        ready, ended = asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start a worker with an empty working directory, an empty environment and two inherited sockets."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        pairs = [socket.socketpair() for _ in range(2)]
        try:
            theirs = [*(pair[1].fileno() for pair in pairs), self._arena.fd]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "serai_gpu_pool.device.worker"),
                *(str(fd) for fd in theirs),
                *(str(os.getpid()), *self._arguments),
                pass_fds=theirs,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=self._directory,
                env={"ORT_DISABLE_TELEMETRY": "1", "LANG": "C.UTF-8", "HOME": str(self._directory)},
            )
            loop = asyncio.get_running_loop()
            links = []
            for ours, _ in pairs:
                ours.setblocking(False)
                links.append((await loop.create_connection(lambda: _Link(self), sock=ours))[1])
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, other in pairs:
                other.close()
        self._loads, self._batches = links
        return process

    # ── what the worker says ─────────────────────────────────────────────────────────────────────────────────

    def answered(self, header: bytes, payload: bytes) -> None:
        """One answer of the worker, which is our own code and yet not believed: it runs models of strangers."""
        assert self._events
        try:
            answer = messages.decode_answer(header)
        except ValueError as error:
            self.kill(f"it sent what is no answer: {error}")
            return
        if isinstance(answer, Done):
            self._events.on_batch_done(answer.batch, _results(answer, payload), answer.duration_s)
        elif isinstance(answer, Loaded):
            self.worker_bytes = answer.worker_bytes
            self._events.on_loaded(answer.model, answer.resident_bytes, answer.load_s)
        elif isinstance(answer, LoadFailed):
            self._events.on_load_failed(answer.model, LoadFailure(answer.kind, answer.message))
        elif isinstance(answer, Dropped):
            self.worker_bytes = answer.worker_bytes
            self._events.on_dropped(answer.model)
        elif isinstance(answer, WorkerReady):
            self.worker_bytes = answer.base_bytes
            self._ready.set()
            log.info("device worker ready", action="worker_ready", pid=self.pid, runtime=answer.runtime)
            self._events.on_worker_ready()


def _results(done: Done, payload: bytes) -> list[tuple[Outcome, bytes | memoryview]]:
    results: list[tuple[Outcome, bytes | memoryview]] = []
    at = 0
    for outcome in done.outcomes:
        results.append((outcome, payload[at : at + outcome.num_bytes]))
        at += outcome.num_bytes
    return results


class _Link(FrameProtocol):
    """One of the two sockets."""

    def __init__(self, device: WorkerProcess) -> None:
        super().__init__(messages.MAX_LINK_BYTES)
        self._device = device

    def frame_received(self, header: bytes, payload: bytes) -> None:
        self._device.answered(header, payload)

    def frame_error(self, error: FrameError) -> None:
        self._device.kill(f"it sent what is no frame: {error}")

    def send_parts(self, header: bytes, parts: list[bytes | memoryview]) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        num_bytes = sum([len(part) for part in parts])
        prefix = pack_prefix(header, num_bytes) + header
        if num_bytes < 256 * 1024 and len(parts) > 1:
            self.transport.write(b"".join([prefix, *parts]))
        else:
            self.transport.writelines([prefix, *parts])
