"""Servers that somebody might write by hand, as plain ASGI on uvicorn: limits and references that protect nobody.

`many_models`: a folder of models, as many in memory as BENCH_ROOM says, the least recently used goes. With room for
all of them it is the limit of W4. `batching`: one small model, whatever came while a batch ran is the next one: C2.
"""

import asyncio
import collections
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import msgspec
import numpy as np
import onnxruntime as ort

#: Rows of one batch: from here on a small model gains next to nothing.
_MAX_ROWS = 64


def open_session(path: Path, threads: int = 1, *, prepacked: bool = True) -> ort.InferenceSession:
    """Raises what ONNX Runtime raises. Without prepacking, weights in a side file stay pages of that file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not prepacked:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class _Sessions:
    """At most `room` of them; one load for all who wait for it."""

    def __init__(self, folder: Path, room: int, prepacked: bool) -> None:
        self._folder, self._room, self._prepacked = folder, room, prepacked
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, ort.InferenceSession] = collections.OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self.hits = self.loads = 0

    def take(self, name: str) -> ort.InferenceSession:
        session = self._look(name)
        if session is not None:
            return session
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            session = self._look(name)
            if session is not None:
                return session
            with self._lock:
                while len(self._open) >= self._room:
                    self._open.popitem(last=False)
            session = open_session(self._folder / f"{name}.onnx", prepacked=self._prepacked)
            with self._lock:
                self._open[name] = session
                self.loads += 1
        return session

    def _look(self, name: str) -> ort.InferenceSession | None:
        with self._lock:
            session = self._open.get(name)
            if session is not None:
                self._open.move_to_end(name)
                self.hits += 1
            return session


class ManyModels:
    """POST /NAME with raw float32: the raw answer. GET /: hits and loads."""

    def __init__(self) -> None:
        room, prepacked = int(os.environ["BENCH_ROOM"]), os.environ["BENCH_PREPACKED"] == "1"
        self._sessions = _Sessions(Path(os.environ["BENCH_MODELS"]), room, prepacked)
        self._threads = ThreadPoolExecutor(os.cpu_count())

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            counts = {"hits": self._sessions.hits, "loads": self._sessions.loads}
            await _answer(send, msgspec.json.encode(counts), b"application/json")
            return
        body, name = await _body(receive), scope["path"][1:]
        output = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, name, body)
        await _answer(send, output, b"application/octet-stream")

    def _run(self, name: str, body: bytes) -> bytes:
        array = np.frombuffer(body, np.float32)[None]
        return np.asarray(self._sessions.take(name).run(None, {"x": array})[0]).tobytes()


class Batching:
    """POST / with raw float32 or a JSON list. One thread runs batches; nothing ever waits for a fuller one."""

    def __init__(self) -> None:
        self._session = open_session(Path(os.environ["BENCH_MODEL"]))
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        is_json = (b"content-type", b"application/json") in scope["headers"]
        row = np.array(msgspec.json.decode(body), np.float32) if is_json else np.frombuffer(body, np.float32)
        output = await self._run(row)
        if is_json:
            await _answer(send, msgspec.json.encode(output.tolist()), b"application/json")
        else:
            await _answer(send, output.tobytes(), b"application/octet-stream")

    async def _run(self, row: np.ndarray) -> np.ndarray:
        result: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run_all())
        return await result

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_ROWS], self._waiting[_MAX_ROWS:]
            rows = np.stack([row for row, _ in batch])
            outputs = await loop.run_in_executor(self._thread, self._session.run, None, {"x": rows})
            for (_, result), output in zip(batch, np.asarray(outputs[0]), strict=True):
                if not result.done():  # its caller has not gone
                    result.set_result(output)
        self._task = None


async def _body(receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def many_models() -> ManyModels:
    """Factory for uvicorn --factory."""
    return ManyModels()


def batching() -> Batching:
    """Factory for uvicorn --factory."""
    return Batching()
