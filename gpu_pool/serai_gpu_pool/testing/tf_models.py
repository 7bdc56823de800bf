"""Small SavedModels for tests, as folders. Importing this imports TensorFlow."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from serai_gpu_pool.testing.nets import weights


class Net(tf.Module):
    """The net of `nets`."""

    def __init__(self) -> None:
        super().__init__()
        given = {name: tf.convert_to_tensor(array) for name, array in weights().items()}
        self.kernel = tf.Variable(tf.transpose(given["kernel"], [2, 3, 1, 0]))
        self.shift, self.linear, self.bias = (tf.Variable(given[name]) for name in ("shift", "linear", "bias"))

    @tf.function(input_signature=[tf.TensorSpec([None, 1, 8, 8], tf.float32, name="input")])
    def __call__(self, input: Any) -> dict[str, Any]:
        # On a CPU TensorFlow convolves with channels last only.
        mapped = tf.nn.conv2d(tf.transpose(input, [0, 2, 3, 1]), self.kernel, 1, "SAME")
        active = tf.transpose(tf.nn.relu(mapped + self.shift), [0, 3, 1, 2])
        scores = tf.matmul(tf.reshape(active, [-1, 256]), self.linear, transpose_b=True) + self.bias
        return {"output": tf.nn.softmax(scores)}


class Scaled(tf.Module):
    """x [N, 4] * factor, with `num_bytes` of weights."""

    def __init__(self, factor: float, num_bytes: int) -> None:
        super().__init__()
        self.factor = tf.constant(factor)
        self.ballast = tf.Variable(tf.random.stateless_normal([num_bytes // 16, 4], (1, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.factor + tf.reduce_sum(self.ballast, 0) * 0.0}


class TakesRow(tf.Module):
    """Row x of a table with 4 rows; an index outside of it fails when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(tf.range(4.0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": tf.gather(self.table, x)}


def _double(array: Any) -> Any:
    return array * 2


class CallsPython(tf.Module):
    """Needs a Python function of whoever saved it."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": tf.numpy_function(_double, [x], tf.float32)}


class WritesFile(tf.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        tf.io.write_file(self.path, "written")
        return {"y": x}


class ReadsFile(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)}


def save(module: Any, folder: Path, **signatures: Any) -> Path:
    """Write a module as a SavedModel, with `serving_default` unless other signatures are given."""
    tf.saved_model.save(module, str(folder), signatures=signatures or module.__call__.get_concrete_function())
    return folder
