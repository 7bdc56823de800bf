"""What the pool costs between its socket and the model: C3 (large tensor, heavy model) and C2 (small model, batches).

    python benchmarks/pool_hop.py [--threads N] [--seconds S] [--rounds R]

C3: a 602 kB float32 tensor to a net of MobileNetV2's shape, 8 outstanding, against `session.run` in this process with
the same threads. C2: a 784-10 MLP at 1 and 32 outstanding. Rounds are interleaved, medians printed with their spread.
"""

import argparse
import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort
import uvloop
from onnx import TensorProto, helper, numpy_helper

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import Call, ContentType, Define, ModelSpec, Result, VersionSpec, decode, encode

#: MobileNetV2: expansion, channels out, repeats, stride of each stage.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet() -> bytes:
    """A net of MobileNetV2's layers with random weights (14 MB), input [N, 3, 224, 224]."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(x: str, cin: int, cout: int, size: int = 1, stride: int = 1, groups: int = 1, relu: bool = True) -> str:
        name = f"w{len(weights)}"
        shape = (cout, cin // groups, size, size)
        array = (rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(array, name))
        pads = [size // 2] * 4
        nodes.append(helper.make_node("Conv", [x, name], [f"{name}_c"], strides=[stride] * 2, pads=pads, group=groups))
        if relu:
            nodes.append(helper.make_node("Clip", [f"{name}_c", "zero", "six"], [f"{name}_r"]))
        return f"{name}_r" if relu else f"{name}_c"

    weights += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("zero", 0), ("six", 6))]
    x, channels = conv("x", 3, 32, 3, 2), 32
    for expand, out, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            stride, hidden = (first_stride if repeat == 0 else 1), channels * expand
            y = conv(x, channels, hidden) if expand > 1 else x
            y = conv(conv(y, hidden, hidden, 3, stride, hidden), hidden, out, relu=False)
            if stride == 1 and channels == out:
                nodes.append(helper.make_node("Add", [x, y], [f"{y}_a"]))
                y = f"{y}_a"
            x, channels = y, out
    x = conv(x, channels, 1280)
    weights.append(numpy_helper.from_array(rng.standard_normal((1280, 1000)).astype(np.float32) / 36, "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"]))
    return _model(nodes, weights, ["N", 3, 224, 224], ["N", 1000])


def mlp() -> bytes:
    """784 numbers in, 128 hidden, 10 out."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((784, 128)).astype(np.float32), "a"),
        numpy_helper.from_array(rng.standard_normal((128, 10)).astype(np.float32), "b"),
    ]
    steps = (("MatMul", ["x", "a"], "h"), ("Relu", ["h"], "r"), ("MatMul", ["r", "b"], "y"))
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in steps]
    return _model(nodes, weights, ["N", 784], ["N", 10])


def _model(nodes: list, weights: list, x: list, y: list) -> bytes:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


class Client(FrameProtocol):
    """Keeps `depth` calls outstanding for a while and counts answers."""

    def __init__(self, version: str, body: bytes, content_type: ContentType) -> None:
        super().__init__()
        self.version, self.body = version, body
        self.content_type: ContentType = content_type
        self.count = self.last = 0
        self.began: dict[int, float] = {}
        self.latencies: list[float] = []
        self.end = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def send(self) -> None:
        self.last += 1
        now = self.began[self.last] = time.monotonic()
        call = Call(self.last, self.version, self.content_type, now + 30, "bench", "me")
        self.send_frame(encode(call), self.body)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        assert isinstance(message, Result), message
        now = time.monotonic()
        self.latencies.append(now - self.began.pop(message.id))
        self.count += 1
        if now < self.end:
            self.send()
        elif not self.began:
            self.done.set_result(None)


async def measure(path: Path, spec: ModelSpec, body: bytes, depth: int, seconds: float, kind: ContentType = "binary"):
    """Calls a second and median latency in seconds."""
    version = VersionSpec(f"a/{spec.name}@1", "a", spec.name, "model", "", models=(spec,))
    _, client = await asyncio.get_running_loop().create_unix_connection(
        lambda: Client(version.key, body, kind), str(path)
    )
    client.send_frame(encode(Define(version)))
    began = time.monotonic()
    client.end = began + seconds
    for _ in range(depth):
        client.send()
    await client.done
    client.close()
    return client.count / (time.monotonic() - began), statistics.median(client.latencies)


def in_process(data: bytes, array: np.ndarray, threads: int, seconds: float) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": array})
    count, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        session.run(None, {"x": array})
        count += 1
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        specs = {}
        for name, data in (("mobilenet", mobilenet()), ("mlp", mlp())):
            path = home / f"{name}.onnx"
            path.write_bytes(data)
            specs[name] = ModelSpec(name, hashlib.sha256(data).hexdigest(), str(path), "onnx", len(data))
        pool = subprocess.Popen(
            [sys.executable, "-m", "serai_gpu_pool", "--home", folder, "--threads", str(options.threads)],
            stderr=subprocess.DEVNULL,
        )
        try:
            _run(home, specs, options)
        finally:
            pool.terminate()
            pool.wait(20)


def _run(home: Path, specs: dict[str, ModelSpec], options: argparse.Namespace) -> None:
    sock = home / "run" / "pool.sock"
    give_up = time.monotonic() + 20
    while not sock.exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    rng = np.random.default_rng(1)
    image = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
    row = rng.standard_normal((1, 784)).astype(np.float32)
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    def pool(name: str, body: bytes, depth: int, kind: ContentType = "binary") -> tuple[float, float]:
        return uvloop.run(measure(sock, specs[name], body, depth, options.seconds, kind))

    pool("mobilenet", image.tobytes(), 1)
    pool("mlp", row.tobytes(), 1)
    for _ in range(options.rounds):
        if options.only in ("", "c3"):
            bare = in_process(Path(specs["mobilenet"].path).read_bytes(), image, options.threads, options.seconds)
            rate, _ = pool("mobilenet", image.tobytes(), 8)
            note("C3 in process, runs/s", bare)
            note("C3 pool, 8 outstanding, calls/s", rate)
            note("C3 ratio", rate / bare)
            note("C3 pool, 1 outstanding, added ms", 1e3 * (pool("mobilenet", image.tobytes(), 1)[1] - 1 / bare))
        if options.only in ("", "c2"):
            json_row = b"[" + b",".join(b"%.6f" % value for value in row[0]) + b"]"
            note("C2 pool, 32 outstanding, binary calls/s", pool("mlp", row.tobytes(), 32)[0])
            note("C2 pool, 32 outstanding, JSON calls/s", pool("mlp", json_row, 32, "json")[0])
            note("C2 pool, 1 outstanding, median ms", 1e3 * pool("mlp", row.tobytes(), 1)[1])
    for name, values in figures.items():
        print(f"{name:45} {statistics.median(values):10.2f}   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
