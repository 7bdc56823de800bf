"""The way to the pool, without HTTP before it."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from serai.ipc.messages import Command, Commanded, Infer, Inferred, ModelSpec, Refusal, TensorSpec, VersionSpec, Written
from serai_gateway.api.v2.testing.fake_pool import FakePool, give_back
from serai_gateway.pending import Asked, Pending
from serai_gateway.route import InferAnswer, Route


def version(name: str, num_inputs: int = 1) -> VersionSpec:
    inputs = tuple(TensorSpec(f"{number:060}", "uint8", (1,)) for number in range(num_inputs))
    return VersionSpec(name, "o", name, "model", "", models=(ModelSpec("m", "ab" * 32, "", "onnx", 1, inputs=inputs),))


async def infer(route: Route, spec: VersionSpec, timeout_s: float = 20.0) -> InferAnswer:
    inputs = (Written("x", "uint8", (1,)),)
    asked = Asked(time.monotonic() + timeout_s, "c", "p")
    return await route.infer(spec, "m", inputs, (), b"7", asked, as_json=False)


def on_a_route(run_dir: Path, body: Callable[[Route, FakePool], Awaitable[None]]) -> None:
    async def run(pool: FakePool) -> None:
        route = Route("pool", run_dir / "pool.sock")
        route.start()
        try:
            await body(route, pool)
        finally:
            await route.close()

    with FakePool(run_dir) as pool:
        asyncio.run(run(pool))


def test_a_version_is_defined_once_and_again_when_the_pool_has_forgotten(tmp_path: Path) -> None:
    async def body(route: Route, pool: FakePool) -> None:
        for _ in range(3):
            assert isinstance((await infer(route, version("v")))[0], Inferred)
        assert len(pool.received) == 3
        pool.forget()
        assert (await infer(route, version("v")))[1] == b"7"
        assert len(pool.received) == 5  # one of them was answered with Unknown

    on_a_route(tmp_path, body)


def test_an_author_with_endless_names_is_refused_alone(tmp_path: Path) -> None:
    async def body(route: Route, pool: FakePool) -> None:
        refusal, _ = await infer(route, version("endless", num_inputs=2000))
        assert isinstance(refusal, Refusal)
        assert refusal.code == "too_large"
        assert isinstance((await infer(route, version("good")))[0], Inferred)
        assert len(pool.links) == 1

    on_a_route(tmp_path, body)


def test_without_a_pool_the_caller_is_told_to_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        route = Route("pool", tmp_path / "pool.sock")
        route.start()
        refusal, _ = await infer(route, version("v"), timeout_s=0.01)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.retriable) == ("unavailable", True)
        assert await route.inspect() == b""
        await route.close()

    asyncio.run(run())


def test_a_pool_that_answers_something_else_is_not_believed(tmp_path: Path) -> None:
    async def body(route: Route, pool: FakePool) -> None:
        pool.reply = lambda message, _: [(Commanded(message.id), b"")]
        refusal, _ = await infer(route, version("v"))
        assert isinstance(refusal, Refusal)
        assert "something else" in refusal.message

    on_a_route(tmp_path, body)


def test_commands_and_looks_go_the_same_way(tmp_path: Path) -> None:
    async def body(route: Route, pool: FakePool) -> None:
        done = await route.command(version("v"), "pin", "m", time.monotonic() + 20)
        assert isinstance(done, Commanded)
        assert isinstance(pool.last(Command)[0], Command)
        assert (await route.inspect()).startswith(b"{")
        assert not any(isinstance(message, Infer) for message, _ in pool.received)

    on_a_route(tmp_path, body)


def test_a_slow_call_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its caller is watched while it runs; the watcher's end must not keep what was asked and answered."""

    async def body(route: Route, pool: FakePool) -> None:
        watched, left, num_tasks = asyncio.Event(), asyncio.Event(), len(asyncio.all_tasks())
        pool.reply = lambda message, _: []

        async def gone() -> None:
            watched.set()
            await left.wait()

        inputs = (Written("x", "uint8", (1,)),)
        waits = Asked(time.monotonic() + 20, "c", "p", gone=gone)
        calling = asyncio.create_task(route.infer(version("v"), "m", inputs, (), b"7", waits, as_json=False))
        await watched.wait()
        asked, sent = pool.last(Infer)
        assert isinstance(asked, Infer)
        pool.reply = lambda message, payload: [give_back(asked, sent), give_back(message, payload)]
        assert isinstance((await infer(route, version("v")))[0], Inferred)
        assert isinstance((await calling)[0], Inferred)
        del calling
        while len(asyncio.all_tasks()) > num_tasks:  # the watcher is told to end, and does
            await asyncio.sleep(0)
        assert not [one for one in gc.get_objects() if type(one) is Pending], "a collector would find it late"

    gc.collect()
    gc.disable()
    try:
        on_a_route(tmp_path, body)
    finally:
        gc.enable()
