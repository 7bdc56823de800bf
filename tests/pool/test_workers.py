"""What all workers promise: one suite, run on the fake, on processes, and on processes in their box."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serai.box.cgroups import Cgroups
from serai.ipc.messages import ModelSpec
from serai_gpu_pool.arena import Arena
from serai_gpu_pool.core import Batch, Ticket
from serai_gpu_pool.device import sandbox
from serai_gpu_pool.device.processes import WorkerProcesses
from serai_gpu_pool.scheduling.copies import WorkerId
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.fakes import FakeWorkers
from serai_gpu_pool.testing.prepared import prepared
from serai_gpu_pool.testing.process import PATIENCE_S, is_alive, store, wait_for

SHARED = WorkerId("cpu", "onnx")
PROCESSES = [pytest.param("processes"), pytest.param("boxed", marks=pytest.mark.needs_bubblewrap)]


class Events:
    """What workers report, in the order in which they do."""

    def __init__(self):
        self.queue: asyncio.Queue[tuple[str, tuple]] = asyncio.Queue()

    def __getattr__(self, name: str):
        return lambda *arguments: self.queue.put_nowait((name, arguments))

    async def next(self, name: str) -> tuple:
        happened, arguments = await asyncio.wait_for(self.queue.get(), PATIENCE_S)
        assert happened == name, (happened, arguments)
        return arguments

    async def until(self, name: str) -> tuple:
        """The next of that name; others are passed over."""
        while True:
            happened, arguments = await asyncio.wait_for(self.queue.get(), PATIENCE_S)
            if happened == name:
                return arguments


def make(kind: str, folder, arena: Arena | None = None) -> Any:
    if kind == "fake":
        return FakeWorkers()
    (folder / "prepared").mkdir(exist_ok=True)
    budget = 64 << 20
    cgroups = Cgroups.detect("serai-pool-test") if kind == "boxed" else None
    return WorkerProcesses(
        folder / "w",
        folder / "prepared",
        1,
        lambda _: budget,
        arena or Arena(1 << 20),
        kind == "boxed",
        cgroups=cgroups,
    )


def live(scenario, kind: str, folder, arena: Arena | None = None) -> None:
    """Run a coroutine function of workers, events and a folder, with the shared worker up."""

    async def run() -> None:
        workers, events = make(kind, folder, arena), Events()
        workers.begin(events)
        workers.start_worker(SHARED)
        try:
            worker, base_bytes, process_bytes = await events.next("on_worker_ready")
            assert worker == SHARED and base_bytes == 0 and process_bytes > 0
            await scenario(SimpleNamespace(workers=workers, events=events, folder=folder))
        finally:
            await workers.stop()

    asyncio.run(run())


@pytest.fixture(params=["fake", *PROCESSES])
def on_workers(request, tmp_path):
    return lambda scenario: live(scenario, request.param, tmp_path)


def batch(number: int, model: str, *inputs: bytes, lane: int = 0, form: Any = "json") -> Batch:
    tickets = [Ticket(at, model, "p", 1e9, body, form) for at, body in enumerate(inputs)]
    return Batch(number, model, tickets, worker=SHARED, lane=lane, wants_measure=True)


async def loaded(here, spec: ModelSpec):
    here.workers.load(SHARED, spec)
    worker, key, residence, load_s = await here.events.next("on_loaded")
    assert (worker, key) == (SHARED, spec.key) and load_s > 0 and residence.num_bytes >= 0
    return residence


def test_a_loaded_model_answers_each_item_of_a_batch(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        await loaded(here, spec)
        here.workers.run(batch(1, spec.key, b"[1,2,3]", b"[[4,5,6],[7,8,9]]"))
        worker, number, results, duration_s, peak_bytes = await here.events.next("on_batch_done")
        assert (worker, number) == (SHARED, 1) and duration_s > 0 and peak_bytes > 0
        assert [outcome.kind for outcome, _ in results] == ["ok", "ok"]
        assert [json.loads(bytes(body)) for _, body in results] == [[2, 3, 4], [[5, 6, 7], [8, 9, 10]]]

    on_workers(scenario)


def test_a_bad_item_fails_alone(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        await loaded(here, spec)
        here.workers.run(batch(1, spec.key, b"[1,2,3]", b"nonsense", b"[1]", b"[4,5,6]"))
        _, _, results, _, _ = await here.events.next("on_batch_done")
        assert [outcome.kind for outcome, _ in results] == ["ok", "ParsingError", "InputError", "ok"]
        assert json.loads(bytes(results[3][1])) == [5, 6, 7]

    on_workers(scenario)


def test_batches_of_one_lane_are_answered_in_order(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        await loaded(here, spec)
        for number in range(5):
            here.workers.run(batch(number, spec.key, b"[%d,0,0]" % number))
        for number in range(5):
            _, at, results, _, _ = await here.events.next("on_batch_done")
            assert at == number and json.loads(bytes(results[0][1]))[0] == number + 1

    on_workers(scenario)


def test_a_closed_model_can_be_loaded_again(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        for _ in range(3):
            await loaded(here, spec)
            here.workers.close(SHARED, spec.key)
            worker, key, kept_bytes, process_bytes = await here.events.next("on_left")
            assert (worker, key, kept_bytes) == (SHARED, spec.key, 0) and process_bytes >= 0

    on_workers(scenario)


def test_a_model_that_was_paged_out_answers_again_when_it_is_back(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        spec = ModelSpec(*_fields(spec), str(_prepared(here, spec)))
        residence = await loaded(here, spec)
        assert residence.can_page
        for number in range(3):
            here.workers.page_out(SHARED, spec.key)
            assert (await here.events.next("on_left"))[:2] == (SHARED, spec.key)
            here.workers.page_in(SHARED, spec.key)
            assert (await here.events.next("on_loaded"))[:2] == (SHARED, spec.key)
            here.workers.run(batch(number, spec.key, b"[1,2,3]"))
            _, _, results, _, _ = await here.events.next("on_batch_done")
            assert json.loads(bytes(results[0][1])) == [2, 3, 4]

    on_workers(scenario)


def test_an_improvement_is_always_answered_and_the_model_goes_on(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        spec = ModelSpec(*_fields(spec), str(_prepared(here, spec)))
        await loaded(here, spec)
        here.workers.improve(SHARED, spec.key)
        assert (await here.events.next("on_improved"))[:2] == (SHARED, spec.key)
        here.workers.run(batch(1, spec.key, b"[1,2,3]"))
        _, _, results, _, _ = await here.events.next("on_batch_done")
        assert json.loads(bytes(results[0][1])) == [2, 3, 4]

    on_workers(scenario)


def _fields(spec: ModelSpec) -> tuple:
    return spec.name, spec.sha256, spec.path, spec.format, spec.num_bytes, spec.owner


def _prepared(here, spec: ModelSpec):
    folder = here.folder / "prepared" / spec.sha256
    folder.parent.mkdir(exist_ok=True)
    return prepared(folder, spec)


@pytest.mark.parametrize(("damage", "kind"), [(False, "broken"), (True, "damaged")])
def test_a_bad_file_is_told_from_a_damaged_one(on_workers, damage, kind):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one() if damage else b"not a model")
        if damage:
            with open(spec.path, "r+b") as file:
                file.seek(spec.num_bytes // 2)
                file.write(b"\xff")
        here.workers.load(SHARED, spec)
        worker, key, failure = await here.events.next("on_load_failed")
        assert (worker, key) == (SHARED, spec.key) and failure.kind == kind
        await loaded(here, store(here.folder, "good", models.two_in_two_out()))

    on_workers(scenario)


def test_a_killed_worker_is_reported_once_and_comes_back_empty_when_it_is_asked_for(on_workers):
    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        await loaded(here, spec)
        here.workers.run(batch(1, spec.key, b"[1,2,3]"))
        here.workers.kill_worker(SHARED, "for a test")
        assert await here.events.until("on_worker_lost") == (SHARED, "for a test")
        here.workers.start_worker(SHARED)
        await here.events.next("on_worker_ready")
        await loaded(here, spec)

    on_workers(scenario)


# ── what only processes can show ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", PROCESSES)
def test_an_endless_run_holds_up_its_own_lane_only(kind, tmp_path):
    async def scenario(here):
        slow, quick = store(here.folder, "slow", models.loop()), store(here.folder, "quick", models.add_one())
        await loaded(here, slow)
        await loaded(here, quick)
        here.workers.run(batch(1, slow.key, b"[1000000000]"))
        here.workers.run(batch(2, quick.key, b"[1,2,3]", lane=1))
        _, number, results, _, _ = await here.events.next("on_batch_done")
        assert number == 2 and json.loads(bytes(results[0][1])) == [2, 3, 4]
        other = store(here.folder, "other", models.two_in_two_out())
        await loaded(here, other)
        here.workers.close(SHARED, other.key)
        await here.events.next("on_left")

    live(scenario, kind, tmp_path)


@pytest.mark.parametrize("kind", PROCESSES)
def test_large_inputs_are_read_from_shared_memory(kind, tmp_path):
    arena = Arena(1 << 20)

    async def scenario(here):
        spec = store(here.folder, "m", models.add_one())
        await loaded(here, spec)
        slab = arena.take(12)
        assert slab is not None
        slab.view()[:] = b"\x00\x00\x80\x3f" * 3
        here.workers.run(Batch(1, spec.key, [Ticket(1, spec.key, "p", 1e9, slab, "binary")], worker=SHARED))
        _, _, results, _, _ = await here.events.next("on_batch_done")
        assert bytes(results[0][1]) == b"\x00\x00\x00\x40" * 3

    live(scenario, kind, tmp_path, arena)


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_model_whose_file_has_gone_from_the_store_is_damaged_and_the_worker_goes_on(kind, tmp_path):
    async def scenario(here):
        gone = store(here.folder, "gone", models.add_one())
        os.unlink(gone.path)
        here.workers.load(SHARED, gone)
        _, _, failure = await here.events.next("on_load_failed")
        assert failure.kind == "damaged"
        await loaded(here, store(here.folder, "good", models.two_in_two_out()))

    live(scenario, kind, tmp_path)


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_process_that_is_killed_from_outside_is_reported_and_leaves_nothing(kind, tmp_path):
    async def scenario(here):
        outer = here.workers.pid(SHARED)
        inner = sandbox.inner_pid(outer) if kind == "boxed" else outer
        assert outer is not None and inner is not None
        os.kill(inner, 9)
        worker, reason = await here.events.next("on_worker_lost")
        assert worker == SHARED and ("9" in reason or "137" in reason)
        assert not is_alive(inner) and not is_alive(outer) and here.workers.pid(SHARED) is None

    live(scenario, kind, tmp_path)


@pytest.mark.parametrize("kind", PROCESSES)
def test_stopped_workers_leave_no_process(kind, tmp_path):
    pids: list[int] = []

    async def scenario(here):
        outer = here.workers.pid(SHARED)
        pids.extend(pid for pid in (outer, sandbox.inner_pid(outer)) if pid is not None)

    live(scenario, kind, tmp_path)
    assert pids
    wait_for(lambda: not any(map(is_alive, pids)))  # all of a box are killed at once; only the first is ours to reap


def test_a_worker_that_cannot_start_is_reported_and_can_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("serai_gpu_pool.device.processes.sys.executable", shutil.which("false"))

    async def run():
        workers, events = make("processes", tmp_path), Events()
        workers.begin(events)
        workers.start_worker(SHARED)
        try:
            assert await events.next("on_start_failed") == (SHARED, "exit code 1")
            monkeypatch.undo()
            workers.start_worker(SHARED)
            await events.next("on_worker_ready")
        finally:
            await workers.stop()

    asyncio.run(run())


@pytest.mark.needs_bubblewrap
def test_all_of_a_worker_is_in_a_control_group_that_goes_with_it(tmp_path):
    if not Cgroups.detect("serai-pool-test").limits_memory:
        pytest.skip("no control group for memory can be created here")
    groups: set[str] = set()

    async def scenario(here):
        outer = here.workers.pid(SHARED)
        inner = sandbox.inner_pid(outer)
        for pid in (outer, inner):
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            groups.update(line.partition(":")[2] for line in lines if "/serai-pool-test-" in line)

    live(scenario, "boxed", tmp_path)
    assert groups and {group.rpartition("/")[2] for group in groups} == {"0"}, "of each controller the same for both"
    assert not list(Path("/sys/fs/cgroup").glob(f"**/serai-pool-test-{os.getpid()}*"))
