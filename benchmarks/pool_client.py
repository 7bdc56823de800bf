"""The pool's socket as a benchmark uses it: calls with deadlines, in a closed or an open loop, without HTTP."""

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import (
    Call,
    ContentType,
    Define,
    ModelSpec,
    Refusal,
    Result,
    Unknown,
    VersionSpec,
    decode,
    encode,
)
from serai_gpu_pool.prepare import prepare

#: No call of a benchmark takes longer, unless it is stuck.
_PATIENCE_S = 60.0

#: Told how a call ended, with its payload.
OnEnd = Callable[[Any, bytes], None]


def version_of(path: Path, name: str, home: Path | None = None) -> VersionSpec:
    """A version that is only the model file at `path`; with a `home`, prepared there as at publish time."""
    data = path.read_bytes()
    model = ModelSpec(name, hashlib.sha256(data).hexdigest(), str(path), "onnx", len(data), "bench")
    if home is not None:
        prepared = prepare(model, home, threads=os.cpu_count() or 1)
        model = msgspec.structs.replace(model, prepared=str(prepared.folder))
    return VersionSpec(f"bench/{name}@{model.sha256[:8]}", "bench", name, "model", "", models=(model,))


class PoolClient(FrameProtocol):
    """One connection. Each call's end goes to the function that was given with it."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self._ends: dict[int, OnEnd] = {}

    def define(self, version: VersionSpec) -> None:
        self.send_frame(encode(Define(version)))

    def call(
        self,
        version: str,
        body: bytes,
        on_end: OnEnd,
        *,
        kind: ContentType = "binary",
        deadline: float | None = None,
        payer: str = "bench",
    ) -> None:
        """`deadline` as `time.monotonic()` counts; without one there is a minute."""
        number = next(self._ids)
        self._ends[number] = on_end
        due = deadline or time.monotonic() + _PATIENCE_S
        self.send_frame(encode(Call(number, version, kind, due, "bench", payer)), body)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        self._ends.pop(message.id)(message, payload)  # pyright: ignore[reportAttributeAccessIssue]

    async def ask(self, version: str, body: bytes, **options: Any) -> bytes:
        """The result of one call. Raises RuntimeError when it ends otherwise."""
        message, payload = await self._end_of(version, body, **options)
        if not isinstance(message, Result):
            raise RuntimeError(f"a call ended with {message}")
        return payload

    async def _end_of(self, version: str, body: bytes, **options: Any) -> tuple[Any, bytes]:
        end: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self.call(version, body, lambda message, payload: end.set_result((message, payload)), **options)
        async with asyncio.timeout(_PATIENCE_S):
            return await end

    async def ping(self) -> float:
        """Seconds that the owner takes for the least that it can be asked: a call of what was never defined."""
        began = time.perf_counter()
        message, _ = await self._end_of("nobody/nothing@0", b"")
        assert isinstance(message, Unknown), message
        return time.perf_counter() - began


async def connect(path: Path) -> PoolClient:
    return (await asyncio.get_running_loop().create_unix_connection(PoolClient, str(path)))[1]


@dataclass
class Ends:
    """How the calls of one measurement ended. Latencies in seconds, counted from when a call was due to be sent."""

    seconds: float = 0.0
    sent: int = 0
    good_s: list[float] = field(default_factory=list)  # answered in time
    late: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_s: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)  # how late this process sent
    unexpected: str = ""  # the first end that no benchmark expects

    @property
    def num_ended(self) -> int:
        return len(self.good_s) + self.late + len(self.refused_s)

    @property
    def per_second(self) -> float:
        return len(self.good_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.good_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 if ordered else float("nan")

    def note(self, message: Any, took_s: float, slo_s: float) -> None:
        if isinstance(message, Result):
            if took_s <= slo_s:
                self.good_s.append(took_s)
            else:
                self.late += 1
        elif isinstance(message, Refusal) and message.code in ("busy", "deadline"):
            self.refused[message.code] = self.refused.get(message.code, 0) + 1
            self.refused_s.append(took_s)
        else:
            self.late += 1
            self.unexpected = self.unexpected or str(message)

    def check(self) -> None:
        """Raises RuntimeError after an end that no benchmark expects."""
        if self.unexpected:
            raise RuntimeError(f"a call ended with {self.unexpected}")


async def closed_loop(
    client: PoolClient, version: str, body: bytes, *, depth: int, seconds: float, kind: ContentType = "binary"
) -> Ends:
    """`depth` calls outstanding for so long."""
    ends = Ends()
    done = asyncio.Event()
    began = time.perf_counter()
    outstanding = 0

    def send() -> None:
        nonlocal outstanding
        sent_at = time.perf_counter()
        outstanding += 1

        def ended(message: Any, _: bytes) -> None:
            nonlocal outstanding
            now = time.perf_counter()
            outstanding -= 1
            ends.note(message, now - sent_at, _PATIENCE_S)
            if now - began < seconds and not ends.unexpected:
                send()
            elif not outstanding:
                done.set()

        client.call(version, body, ended, kind=kind)

    for _ in range(depth):
        send()
    async with asyncio.timeout(seconds + _PATIENCE_S):
        await done.wait()
    ends.seconds = time.perf_counter() - began
    ends.check()
    return ends


async def open_loop(
    client: PoolClient, calls: Iterable[tuple[float, str]], body: bytes, *, slo_s: float, payer: str = "bench"
) -> Ends:
    """Sends each call, a version's key, when it is due: seconds from now, ascending. Its deadline is `slo_s` later.

    What is sent late because this process was busy counts from when it was due, so that a stall hides nothing.
    """
    ends, done = Ends(), asyncio.Event()
    began, finished = time.monotonic(), False

    def send(version: str, due: float) -> None:
        def ended(message: Any, _: bytes) -> None:
            ends.note(message, time.monotonic() - due, slo_s)
            if finished and ends.num_ended == ends.sent:
                done.set()

        ends.sent += 1
        ends.lags_s.append(time.monotonic() - due)
        client.call(version, body, ended, deadline=due + slo_s, payer=payer)

    for offset, version in calls:
        due = began + offset
        pause_s = due - time.monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        send(version, due)
    finished = True
    if ends.num_ended < ends.sent:
        async with asyncio.timeout(_PATIENCE_S):
            await done.wait()
    ends.seconds = time.monotonic() - began
    ends.check()
    return ends
