"""C3: a model for which batching does not pay: MobileNetV2, a 602 kB tensor as bytes.

Limits, in the same run: the same session behind bare uvicorn in one process, with as many threads as cores; and
`session.run` in a bare loop on one thread, which leaves a core to whoever brings the tensors, beside a Serai whose pool
runs on one thread. Target: at least 0.95 of both at 8 connections.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import servers, wrk
from benchmarks.table import Rounds, print_table

_SOURCE = Path(__file__).parent.parent / "algorithms/vision/classify/models/mobilenet_v2.onnx"
_CONNECTIONS = (1, 8)
_SERAI = "Serai"
_LOOP = "session.run loop, one thread"
_BINARY = {"Content-Type": "application/octet-stream"}

_MANIFEST = """[algorithm]
owner = "operator"
name = "mobilenet"
tagline = "ImageNet logits of a tensor"

[models.mobilenet]
file = "models/mobilenet_v2.onnx"
"""

_LOOP_PROGRAM = """
import os, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name, x = session.get_inputs()[0].name, np.fromfile(sys.argv[4], np.float32).reshape(1, 3, 224, 224)
session.run(None, {name: x})
num, end = 0, time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < end:
    session.run(None, {name: x}); num += 1
print(num / float(sys.argv[3]))
"""


def _write_algorithm(folder: Path) -> Path:
    """The net from its first convolution on: float32 [batch, 3, 224, 224] in, so that 602 kB have to travel."""
    import onnx
    from onnx import TensorProto, helper

    net = onnx.load(_SOURCE)
    nodes = list(net.graph.node)
    start = next(at for at, node in enumerate(nodes) if node.op_type == "Conv")
    del net.graph.node[:], net.graph.input[:]
    net.graph.node.extend(nodes[start:])
    used = {name for node in nodes[start:] for name in node.input}
    weights = [tensor for tensor in net.graph.initializer if tensor.name in used]
    del net.graph.initializer[:]
    net.graph.initializer.extend(weights)
    first = nodes[start].input[0]
    net.graph.input.append(helper.make_tensor_value_info(first, TensorProto.FLOAT, ["batch", 3, 224, 224]))
    (folder / "models").mkdir(parents=True)
    (folder / "algorithm.toml").write_text(_MANIFEST)
    onnx.save(net, folder / "models/mobilenet_v2.onnx")
    (folder / "README.md").write_text("# mobilenet\n")
    return folder


def _loop_rate(model: Path, threads: int, seconds: float, tensor: Path) -> float:
    command = [sys.executable, "-c", _LOOP_PROGRAM, str(model), str(threads), str(seconds), str(tensor)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run(*, rounds: int, seconds: float) -> None:
    import numpy as np

    wrk.require()
    threads = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tensor = folder / "tensor"
        body = np.random.default_rng(7).standard_normal((1, 3, 224, 224), np.float32).tobytes()
        tensor.write_bytes(body)
        algorithm = _write_algorithm(folder / "mobilenet")
        model = algorithm / "models/mobilenet_v2.onnx"
        own = stack.enter_context(servers.serai([algorithm]))
        subjects = {_SERAI: (f"{own.url}/v1/algo/operator/mobilenet?output=raw", own.headers)}
        for count in sorted({1, threads}):
            environment = {"BENCH_MODEL": str(model), "BENCH_THREADS": str(count)}
            limit = stack.enter_context(servers.uvicorn("benchmarks.limits:in_process", environment, "--factory"))
            subjects[_in_process(count)] = (limit.url, {})
        _check_same_answers(subjects, body)
        single = stack.enter_context(servers.serai([algorithm], "--cpu-threads", "1"))
        single_url = f"{single.url}/v1/algo/operator/mobilenet?output=raw"
        found = Rounds()
        for number in range(rounds + 1):  # the first warms up
            into = found if number else Rounds()
            for connections in _CONNECTIONS:
                _measure_pair(into, subjects, threads, connections, body, seconds)
            before = _loop_rate(model, 1, seconds, tensor)
            load = wrk.run(single_url, body, {**single.headers, **_BINARY}, connections=8, seconds=seconds)
            after = _loop_rate(model, 1, seconds, tensor)
            into.add(_LOOP, "rate", (before + after) / 2)
            into.add(_LOOP, "own rate", load.per_second)
            into.add(_LOOP, "ratio", load.per_second * 2 / (before + after))
    _report(found, list(subjects), threads, rounds, seconds)


def _measure_pair(
    found: Rounds,
    subjects: dict[str, tuple[str, dict[str, str]]],
    threads: int,
    connections: int,
    body: bytes,
    seconds: float,
) -> None:
    """Serai between two measurements of its limit: the speed of a shared machine drifts within seconds."""

    def measure(name: str) -> float:
        url, headers = subjects[name]
        load = wrk.run(url, body, {**headers, **_BINARY}, connections=connections, seconds=seconds)
        if load.num_errors:
            raise RuntimeError(f"{name}: {load.num_errors} errors")
        found.add(name, f"{connections} rate", load.per_second)
        found.add(name, f"{connections} p50", load.p50_ms)
        found.add(name, f"{connections} p99", load.p99_ms)
        return load.per_second

    limit = _in_process(threads)
    before, own, after = measure(limit), measure(_SERAI), measure(limit)
    found.add(_SERAI, f"{connections} ratio", own * 2 / (before + after))
    if threads != 1:
        measure(_in_process(1))


def _in_process(threads: int) -> str:
    return f"in-process behind uvicorn, {threads} thread(s)"


def _check_same_answers(subjects: dict[str, tuple[str, dict[str, str]]], body: bytes) -> None:
    import numpy as np

    answers = {}
    for name, (url, headers) in subjects.items():
        status, answer = servers.post(url, body, {**headers, **_BINARY})
        if status != 200:
            raise RuntimeError(f"{name} answered {status}: {answer[:300]!r}")
        answers[name] = np.frombuffer(answer, np.float32)
    first = next(iter(answers.values()))
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, first, atol=1e-3, err_msg=name)


def _report(found: Rounds, subjects: list[str], threads: int, rounds: int, seconds: float) -> None:
    print(f"\nC3 MobileNetV2, 602 kB tensor as bytes: medians of {rounds} rounds of {seconds:g} s")
    rows = []
    for connections in _CONNECTIONS:
        for name in subjects:
            ratio = f"{found.median(name, f'{connections} ratio'):.2f}" if name == _SERAI else ""
            rate, p50, p99 = (found.median(name, f"{connections} {what}") for what in ("rate", "p50", "p99"))
            rows.append([str(connections), name, f"{rate:,.1f}", ratio, f"{p50:.2f}", f"{p99:.1f}"])
    ratio = f"{found.median(_LOOP, 'ratio'):.2f}"
    rows.append(["8", "Serai, pool on one thread", f"{found.median(_LOOP, 'own rate'):,.1f}", ratio, "", ""])
    rows.append(["-", _LOOP, f"{found.median(_LOOP, 'rate'):,.1f}", "", "", ""])
    print_table(["conn.", "server", "calls/s", "of limit", "p50 ms", "p99 ms"], rows)
    for connections in _CONNECTIONS:
        print(f"ratio at {connections} connection(s) over the rounds: {found.spread(_SERAI, f'{connections} ratio')}")
    print(
        f"limit: {_in_process(threads)}, measured before and after Serai in each round; target >= 0.95 at 8 connections"
    )
