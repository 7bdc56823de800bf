"""What every device promises: one suite, run on the fake and on the worker process."""

import asyncio
import json
import os
import shutil
from typing import Any

import pytest

from serai_gpu_pool.arena import Arena
from serai_gpu_pool.core import Batch, Ticket
from serai_gpu_pool.device.process import WorkerProcess
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.fakes import FakeDevice
from serai_gpu_pool.testing.process import PATIENCE_S, is_alive, store


class Events:
    """What a device reports, in the order in which it does."""

    def __init__(self):
        self.queue: asyncio.Queue[tuple[str, tuple]] = asyncio.Queue()

    def __getattr__(self, name: str):
        return lambda *arguments: self.queue.put_nowait((name, arguments))

    async def next(self, name: str) -> tuple:
        happened, arguments = await asyncio.wait_for(self.queue.get(), PATIENCE_S)
        assert happened == name, (happened, arguments)
        return arguments


@pytest.fixture(params=["fake", "process"])
def on_device(request, tmp_path):
    """Runs a scenario: a coroutine function of a started device, its events and a place for model files."""

    def run(scenario) -> None:
        async def live() -> None:
            if request.param == "fake":
                device: Any = FakeDevice()
            else:
                device = WorkerProcess(tmp_path / "worker", 1, 64 << 20, Arena(1 << 20))
            events = Events()
            device.start(events)
            try:
                await events.next("on_worker_ready")
                await scenario(device, events, tmp_path)
            finally:
                await device.stop()

        asyncio.run(live())

    return run


def batch(number: int, model: str, *inputs: bytes) -> Batch:
    return Batch(number, model, [Ticket(at, model, "p", 1e9, body) for at, body in enumerate(inputs)])


def test_a_loaded_model_answers_each_item_of_a_batch(on_device):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one())
        device.load(spec)
        model, resident_bytes, load_s = await events.next("on_loaded")
        assert model == spec.sha256 and resident_bytes >= spec.num_bytes and load_s > 0
        device.run(batch(1, model, b"[1,2,3]", b"[[4,5,6],[7,8,9]]"))
        number, results, duration_s = await events.next("on_batch_done")
        assert number == 1 and duration_s > 0
        assert [outcome.kind for outcome, _ in results] == ["ok", "ok"]
        assert [json.loads(bytes(body)) for _, body in results] == [[2, 3, 4], [[5, 6, 7], [8, 9, 10]]]

    on_device(scenario)


def test_a_bad_item_fails_alone(on_device):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one())
        device.load(spec)
        await events.next("on_loaded")
        device.run(batch(1, spec.sha256, b"[1,2,3]", b"nonsense", b"[1]", b"[4,5,6]"))
        _, results, _ = await events.next("on_batch_done")
        assert [outcome.kind for outcome, _ in results] == ["ok", "InputError", "InputError", "ok"]
        assert json.loads(bytes(results[3][1])) == [5, 6, 7]

    on_device(scenario)


def test_batches_are_answered_in_order(on_device):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one())
        device.load(spec)
        await events.next("on_loaded")
        for number in range(5):
            device.run(batch(number, spec.sha256, b"[%d,0,0]" % number))
        for number in range(5):
            at, results, _ = await events.next("on_batch_done")
            assert at == number and json.loads(bytes(results[0][1]))[0] == number + 1

    on_device(scenario)


def test_a_dropped_model_can_be_loaded_again(on_device):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one())
        for _ in range(3):
            device.load(spec)
            await events.next("on_loaded")
            device.drop(spec.sha256)
            assert await events.next("on_dropped") == (spec.sha256,)

    on_device(scenario)


@pytest.mark.parametrize(("damage", "kind"), [(False, "broken"), (True, "damaged")])
def test_a_bad_file_is_told_from_a_damaged_one(on_device, damage, kind):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one() if damage else b"not a model")
        if damage:
            with open(spec.path, "r+b") as file:
                file.seek(spec.num_bytes // 2)
                file.write(b"\xff")
        device.load(spec)
        model, failure = await events.next("on_load_failed")
        assert model == spec.sha256 and failure.kind == kind
        good = store(folder, "good", models.two_in_two_out())
        device.load(good)
        await events.next("on_loaded")

    on_device(scenario)


def test_a_killed_worker_is_reported_once_and_comes_back_empty(on_device):
    async def scenario(device, events, folder):
        spec = store(folder, "m", models.add_one())
        device.load(spec)
        await events.next("on_loaded")
        device.run(batch(1, spec.sha256, b"[1,2,3]"))
        device.kill("for a test")
        happened, arguments = await asyncio.wait_for(events.queue.get(), PATIENCE_S)
        if happened == "on_batch_done":  # it was faster
            happened, arguments = await asyncio.wait_for(events.queue.get(), PATIENCE_S)
        assert (happened, arguments) == ("on_worker_lost", ("for a test",))
        await events.next("on_worker_ready")
        device.load(spec)
        await events.next("on_loaded")

    on_device(scenario)


def test_large_inputs_are_read_from_shared_memory(tmp_path):
    async def live():
        arena = Arena(1 << 20)
        device = WorkerProcess(tmp_path / "worker", 1, 64 << 20, arena)
        events = Events()
        device.start(events)
        try:
            await events.next("on_worker_ready")
            spec = store(tmp_path, "m", models.add_one())
            device.load(spec)
            await events.next("on_loaded")
            slab = arena.take(12)
            assert slab is not None
            slab.view()[:] = b"\x00\x00\x80\x3f" * 3
            device.run(Batch(1, spec.sha256, [Ticket(1, spec.sha256, "p", 1e9, slab, "binary")]))
            _, results, _ = await events.next("on_batch_done")
            assert bytes(results[0][1]) == b"\x00\x00\x00\x40" * 3
        finally:
            await device.stop()

    asyncio.run(live())


def test_a_stopped_device_leaves_no_process(tmp_path):
    async def live() -> int:
        device = WorkerProcess(tmp_path / "worker", 1, 64 << 20, Arena(1 << 20))
        events = Events()
        device.start(events)
        await events.next("on_worker_ready")
        pid = device.pid
        assert pid is not None and os.listdir(tmp_path / "worker") == []
        await device.stop()
        return pid

    assert not is_alive(asyncio.run(live()))


def test_a_worker_that_cannot_start_is_reported_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("serai_gpu_pool.device.process.sys.executable", shutil.which("false"))

    async def live():
        device = WorkerProcess(tmp_path / "worker", 1, 64 << 20, Arena(1 << 20))
        events = Events()
        device.start(events)
        try:
            assert await events.next("on_start_failed") == ("exit code 1",)
            monkeypatch.undo()
            while (await asyncio.wait_for(events.queue.get(), PATIENCE_S))[0] != "on_worker_ready":
                pass
        finally:
            await device.stop()

    asyncio.run(live())
