"""Device workers as processes: started in a box, spoken to over socket pairs, killed when they misbehave."""

import asyncio
import itertools
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from serai.box.cgroup import Cgroup
from serai.box.cgroups import Cgroups
from serai.ipc.messages import ModelSpec
from serai_gpu_pool.arena import Arena, Slab
from serai_gpu_pool.core import Batch, LoadFailure
from serai_gpu_pool.device import messages, sandbox
from serai_gpu_pool.device.base import WorkerEvents
from serai_gpu_pool.device.messages import Close, Improve, Item, Load, PageIn, PageOut, Run
from serai_gpu_pool.device.process_control import MOST_PROCESSES
from serai_gpu_pool.device.shown_files import SHOWN_AT, ShownFiles
from serai_gpu_pool.device.worker_link import WorkerLink, report
from serai_gpu_pool.frameworks.registry import SHARED
from serai_gpu_pool.scheduling.copies import WorkerId
from serai_gpu_pool.scheduling.workers import MAX_LANES

log = structlog.get_logger()

#: A worker that has not reported by then is stuck in its start. TensorFlow takes five seconds on a slow machine.
_START_TIMEOUT_S = 60.0
#: Memory for running models, beyond the budget for holding them.
_RUN_BYTES = 1 << 30
#: A private /tmp, which is memory: SavedModels are unpacked there while they are loaded.
_TMP_BYTES = {"tensorflow": 4 << 30}
_SMALL_TMP_BYTES = 64 << 20
#: Of all of a worker's memory, beyond what its own limit counts: the framework itself and, on a GPU, what its driver
#: keeps. The cache of files that it reads is counted too, and is given up first.
_RUNTIME_BYTES = 3 << 30
#: What was killed takes a moment to die, and only then can its group go.
_CLOSE_S, _RETRY_S = 2.0, 0.005
#: Of what a worker writes to its standard error, so much is kept for the log: models can write there too.
_MAX_COMPLAINT = 2000

#: For glibc: how large a block has to be to go back to the kernel when it is freed. Left to itself the limit moves
#: up, and the buffers of one large load stay in the heap of the thread that made it (200 MB after 40 loads). Much
#: lower, and every run of a convolutional net pays for new pages (4 MiB: a third of its speed). Smaller ones are
#: given back after each load.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "2",
}


class WorkerProcesses:
    """See `Workers` in base.py for what each method promises.

    Args:
        folder: where a worker without a box gets its empty working folder.
        prepared: folder of prepared models, which workers for ONNX may read.
        budget_of: device to bytes, for the limit on a worker's own memory.
        is_boxed: whether workers run in a box; else only our own checks stand between a model and the machine.
        host_bytes: memory for weights that were paged out.
        cgroups: what limits a worker as a whole, where the kernel lets us.
    """

    def __init__(
        self,
        folder: Path,
        prepared: Path,
        threads: int,
        budget_of: Callable[[str], int],
        arena: Arena,
        is_boxed: bool,
        host_bytes: int = 0,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._folder = folder
        self._prepared = prepared
        self._threads = threads
        self._budget_of = budget_of
        self._arena = arena
        self._nothing = Arena(1)  # workers that run an owner's programs do not see what others send
        self._is_boxed = is_boxed
        self._host_bytes = host_bytes
        self._cgroups = cgroups
        self._numbers = itertools.count()  # of groups
        self._events: WorkerEvents | None = None
        self._processes: dict[WorkerId, _Process] = {}

    def begin(self, events: WorkerEvents) -> None:
        self._events = events

    # ── what the owner asks for ──────────────────────────────────────────────────────────────────────────────

    def start_worker(self, worker: WorkerId) -> None:
        assert self._events, "begin comes first"
        inputs = self._nothing.read_only_fd if worker.owner else self._arena.read_only_fd
        files = ShownFiles(self._work_folder(worker) / "models")
        process = self._processes[worker] = _Process(worker, self._events, inputs, files)
        process.task = asyncio.get_running_loop().create_task(self._live(process))

    def kill_worker(self, worker: WorkerId, reason: str) -> None:
        process = self._processes.get(worker)
        if process is not None:
            process.kill(reason)

    def load(self, worker: WorkerId, model: ModelSpec) -> None:
        process = self._processes[worker]
        try:
            path = process.files.show(model) if self._is_boxed else model.path
        except OSError as error:
            message = f'model "{model.name}" cannot be read from the file store ({error.strerror}); publish it again'
            failure = LoadFailure("damaged", message)
            asyncio.get_running_loop().call_soon(process.load_failed, model.key, failure)
            return
        process.ask(Load(model, path))

    def page_in(self, worker: WorkerId, key: str) -> None:
        self._processes[worker].ask(PageIn(key))

    def page_out(self, worker: WorkerId, key: str) -> None:
        self._processes[worker].ask(PageOut(key))

    def close(self, worker: WorkerId, key: str) -> None:
        self._processes[worker].ask(Close(key))

    def improve(self, worker: WorkerId, key: str) -> None:
        self._processes[worker].ask(Improve(key))

    def run(self, batch: Batch) -> None:
        items: list[Item] = []
        parts: list[bytes | memoryview] = []
        for ticket in batch.tickets:
            payload, offset = ticket.payload, -1
            if not isinstance(payload, Slab):
                parts.append(payload)
            elif batch.worker.owner:
                parts.append(payload.view())
            else:
                offset = payload.offset
            items.append(Item(len(payload), ticket.form, offset, ticket.tensors, ticket.outputs, ticket.as_json))
        header = messages.encode(Run(batch.id, batch.model, items, batch.wants_measure))
        self._processes[batch.worker].lanes[batch.lane].send_parts(header, parts)

    def pid(self, worker: WorkerId) -> int | None:
        process = self._processes.get(worker)
        return process.pid if process is not None else None

    async def stop(self) -> None:
        tasks = [process.task for process in self._processes.values() if process.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop = asyncio.get_running_loop()
        until = loop.time() + _CLOSE_S
        while self._cgroups and not self._cgroups.close() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_RETRY_S)  # nothing tells when a group is empty, so we look

    # ── a worker's life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, process: "_Process") -> None:
        """From its start to its end, and who is told."""
        assert self._events
        group: Cgroup | None = None
        try:
            group = self._group(process.id)
            await self._spawn(process, group)
            reason = await process.live(group)
        except OSError as error:
            reason = f"it could not be started: {error}"
        finally:
            if group is not None:
                group.kill()
                group.remove()
        if self._processes.get(process.id) is process:
            del self._processes[process.id]
        if process.is_ready:
            self._events.on_worker_lost(process.id, reason)
        else:
            self._events.on_start_failed(process.id, reason)

    def _work_folder(self, worker: WorkerId) -> Path:
        return self._folder / str(worker).replace("/", "-").replace(":", "-")

    def _memory_bytes(self, worker: WorkerId) -> int:
        """For models and for running them."""
        budget = self._budget_of(worker.device)
        return budget + max(_RUN_BYTES, budget // 4)

    def _tmp_bytes(self, worker: WorkerId) -> int:
        return _TMP_BYTES.get(worker.framework, _SMALL_TMP_BYTES)

    def _group(self, worker: WorkerId) -> Cgroup | None:
        """Bounds what a worker's own limit does not see: shared memory, the kernel's on its behalf, its children."""
        if self._cgroups is None:
            return None
        memory_bytes = self._memory_bytes(worker) + self._host_bytes + self._tmp_bytes(worker) + _RUNTIME_BYTES
        return self._cgroups.create(next(self._numbers), memory_bytes, MOST_PROCESSES, cpus=None)

    async def _spawn(self, process: "_Process", group: Cgroup | None) -> None:
        filter_fd = sandbox.open_filter() if self._is_boxed else None
        try:
            command = self._command(process, filter_fd)
            folder = self._work_folder(process.id)
            await process.spawn(group.wrap(command) if group else command, folder, filter_fd)
        finally:
            if filter_fd is not None:
                os.close(filter_fd)

    def _command(self, process: "_Process", filter_fd: int | None) -> list[str]:
        """Without the other descriptors."""
        worker = process.id
        parent = sandbox.PARENT_INSIDE if self._is_boxed else os.getpid()
        words = [sys.executable, "-I", "-m", "serai_gpu_pool.device.worker", str(parent), worker.framework]
        sizes = (self._threads, self._memory_bytes(worker), self._budget_of(worker.device))
        words += [worker.device, *map(str, sizes)]
        if not self._is_boxed:
            return words
        read_only: tuple[sandbox.Mount, ...] = ((process.files.folder, SHOWN_AT),)
        if worker.framework in SHARED:
            read_only += (self._prepared,)
        return sandbox.enclose(
            words,
            read_only=read_only,
            tmp_bytes=self._tmp_bytes(worker),
            seccomp_fd=filter_fd,
            gpu=worker.device != "cpu",
            variables=_ALLOCATOR,
        )


class _Process:
    """One life of one worker."""

    def __init__(self, id: WorkerId, events: WorkerEvents, inputs_fd: int, files: ShownFiles) -> None:
        self.id = id
        self.files = files
        self.is_ready = False
        self.lanes: list[WorkerLink] = []
        self.task: asyncio.Task[None] | None = None
        self._events = events
        self._inputs_fd = inputs_fd
        self._loads: WorkerLink | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._kill_reason = ""
        self._said = b""
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    def ask(self, request: messages.Request) -> None:
        assert self._loads, "nothing is asked of a worker before on_worker_ready"
        self._loads.send_frame(messages.encode(request))

    def load_failed(self, key: str, failure: LoadFailure) -> None:
        self._events.on_load_failed(self.id, key, failure)

    def kill(self, reason: str) -> None:
        self._kill_reason = self._kill_reason or reason
        if self.pid is not None:
            sandbox.kill(self.pid)

    async def live(self, group: Cgroup | None) -> str:
        """From `spawn` to its end, and how it ended."""
        process = self._process
        assert process, "spawn comes first"
        assert process.stderr
        reading = asyncio.get_running_loop().create_task(self._read_complaints(process.stderr))
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
                sandbox.kill(process.pid)
                await process.wait()
            self._close_links()
            reading.cancel()
        out_of_memory = "it needed more memory than a worker may have" if group and group.num_oom_kills() else ""
        reason = self._kill_reason or out_of_memory or (f"signal {-code}" if code < 0 else f"exit code {code}")
        said = self._said.decode("utf-8", "replace").strip()
        log.warning("device worker ended", action="worker_lost", worker=str(self.id), reason=reason, said=said)
        return reason

    async def _read_complaints(self, stream: asyncio.StreamReader) -> None:
        """Its last words are kept; the rest is read so that it does not wait for us, and dropped."""
        while chunk := await stream.read(4096):
            self._said = (self._said + chunk)[-_MAX_COMPLAINT:]

    def _close_links(self) -> None:
        for link in (self._loads, *self.lanes):
            if link is not None:
                link.close()

    async def _ready_or_ended(self, process: asyncio.subprocess.Process) -> None:
        ready, ended = asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def spawn(self, command: list[str], folder: Path, filter_fd: int | None) -> None:
        """Start it with an empty working folder, an empty environment and inherited sockets.

        Raises OSError when it could not be started.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self.files.folder.mkdir(mode=0o700, parents=True)
        pairs = [socket.socketpair() for _ in range(1 + MAX_LANES)]
        try:
            theirs = [self._inputs_fd, *(pair[1].fileno() for pair in pairs)]
            self._process = await asyncio.create_subprocess_exec(
                *(*command, *map(str, theirs)),
                pass_fds=theirs if filter_fd is None else [*theirs, filter_fd],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                start_new_session=True,  # so that all of a box is one process group: see sandbox.kill
                env={"ORT_DISABLE_TELEMETRY": "1", "LANG": "C.UTF-8", "HOME": str(folder)} | _ALLOCATOR,
            )
            links = [await self._link(ours) for ours, _ in pairs]
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, other in pairs:
                other.close()
        self._loads, *self.lanes = links

    async def _link(self, sock: socket.socket) -> WorkerLink:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: WorkerLink(self.answered, self.kill), sock=sock))[1]

    def answered(self, header: bytes, payload: bytes) -> None:
        """One answer of the worker, which is our own code and yet not believed: it runs models of strangers."""
        try:
            answer = messages.decode_answer(header)
        except ValueError as error:
            self.kill(f"it sent what is no answer: {error}")
            return
        if isinstance(answer, messages.WorkerReady):
            self.is_ready = True
            self._ready.set()
            log.info("device worker ready", action="worker_ready", worker=str(self.id), runtime=answer.runtime)
        if isinstance(answer, messages.Loaded | messages.LoadFailed):
            self.files.hide(answer.model)
        if self.is_ready:
            report(self._events, self.id, answer, payload)
