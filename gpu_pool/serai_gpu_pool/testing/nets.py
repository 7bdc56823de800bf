"""One small net with fixed weights, written down in every format: all of them must give the same answers.

input [N, 1, 8, 8] ─▶ convolution to 4 channels ─▶ relu ─▶ flatten ─▶ linear to 10 ─▶ softmax ─▶ output [N, 10]
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from serai.ipc.messages import TensorSpec
from serai_gpu_pool.testing.models import build

INPUTS = (TensorSpec("input", "float32", (-1, 1, 8, 8)),)
OUTPUTS = (TensorSpec("output", "float32", (-1, 10)),)


def declared(model: str) -> str:
    """What a manifest says of it, where the file does not."""
    return f"""
[[models.{model}.inputs]]
name = "input"
dtype = "float32"
shape = [-1, 1, 8, 8]
[[models.{model}.outputs]]
name = "output"
dtype = "float32"
shape = [-1, 10]
"""


def weights() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(7)
    shapes = {"kernel": (4, 1, 3, 3), "shift": (4,), "linear": (10, 256), "bias": (10,)}
    return {name: random.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}


def example(rows: int = 3) -> NDArray[Any]:
    return np.random.default_rng(11).standard_normal((rows, 1, 8, 8)).astype(np.float32)


def onnx_net() -> bytes:
    nodes = [
        helper.make_node("Conv", ["input", "kernel", "shift"], ["mapped"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["mapped"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "linear", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["output"], axis=-1),
    ]
    inputs = [("input", TensorProto.FLOAT, ["N", 1, 8, 8])]
    return build(nodes, inputs, [("output", TensorProto.FLOAT, ["N", 10])], list(weights().items()))
