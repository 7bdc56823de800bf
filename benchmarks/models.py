"""Models made from a seed, with the answers that they have to give."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Packed and unpacked weights, and batches of different sizes, sum in a different order.
_TOLERANCE = 1e-3

_MANIFEST = """[algorithm]
owner = "operator"
name = "{name}"
tagline = "For a benchmark"

[models.{name}]
file = "models/{name}.onnx"
"""


@dataclass(frozen=True)
class Mlp:
    """Layers of `dims` widths with ReLU between them, float32 [rows, dims[0]] in and [rows, dims[-1]] out."""

    dims: tuple[int, ...]
    seed: int

    def weights(self) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        pairs = zip(self.dims, self.dims[1:], strict=False)
        return [rng.standard_normal(pair, np.float32) / np.float32(pair[0] ** 0.5) for pair in pairs]

    def build(self) -> onnx.ModelProto:
        weights = self.weights()
        nodes, tensors, x = [], [], "x"
        for at, array in enumerate(weights):
            tensors.append(numpy_helper.from_array(array, f"w{at}"))
            tensors.append(numpy_helper.from_array(np.zeros(array.shape[1], np.float32), f"b{at}"))
            is_last = at == len(weights) - 1
            nodes.append(helper.make_node("Gemm", [x, f"w{at}", f"b{at}"], ["y" if is_last else f"h{at}"]))
            if not is_last:
                nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
            x = f"r{at}"
        ends = (("x", self.dims[0]), ("y", self.dims[-1]))
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name, width in ends]
        graph = helper.make_graph(nodes, "mlp", infos[:1], infos[1:], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def answer(self, x: np.ndarray) -> np.ndarray:
        *hidden, last = self.weights()
        for array in hidden:
            x = np.maximum(x @ array, 0)
        return x @ last

    @property
    def weight_bytes(self) -> int:
        return 4 * sum(rows * columns for rows, columns in zip(self.dims, self.dims[1:], strict=False))


def of_megabytes(megabytes: float, seed: int) -> Mlp:
    """Two layers that take so much together (MB, powers of ten): one wide hidden layer between 2048 and 2048."""
    return Mlp((2048, max(1, round(megabytes * 1e6 / 4 / 4096)), 2048), seed)


def is_close_to(right: np.ndarray) -> Callable[[bytes], bool]:
    """Whether raw float32 bytes are these numbers."""
    return lambda body: (
        len(body) == right.nbytes and bool((np.abs(np.frombuffer(body, np.float32) - right.ravel()) < _TOLERANCE).all())
    )


def write_algorithm(folder: Path, name: str, model: bytes) -> Path:
    """A folder that `serai publish` takes: nothing but a model."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / f"{name}.onnx").write_bytes(model)
    (folder / "algorithm.toml").write_text(_MANIFEST.format(name=name))
    (folder / "README.md").write_text(f"# {name}\n")
    return folder
