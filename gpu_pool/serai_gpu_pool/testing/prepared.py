"""Prepared folders as `prepare` makes them, without its box and its measuring; and models that are worth it."""

import hashlib
import itertools
from pathlib import Path

import msgspec
import numpy as np
from onnx import helper

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.frameworks.base import Source
from serai_gpu_pool.frameworks.onnx import OnnxFramework, make
from serai_gpu_pool.prepare.folder import GRAPH
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.profile import FILE_NAME, Form, FormProfile, Profile, encode
from serai_gpu_pool.testing.models import FLOAT, build


def layers(*widths: int, seed: int = 0) -> bytes:
    """x [N, first width] through fully connected layers to y [N, last width]; (2048, 3000, 2048) makes 49 MB."""
    random = np.random.default_rng(seed)
    nodes, weights = [], []
    name = "x"
    for at, (rows, columns) in enumerate(itertools.pairwise(widths)):
        last = at == len(widths) - 2
        matrix = random.standard_normal((rows, columns)).astype(np.float32) / np.float32(np.sqrt(rows))
        weights += [(f"w{at}", matrix), (f"b{at}", random.standard_normal(columns).astype(np.float32))]
        nodes.append(helper.make_node("Gemm", [name, f"w{at}", f"b{at}"], ["y" if last else f"h{at}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
        name = f"r{at}"
    return build(nodes, [("x", FLOAT, ["N", widths[0]])], [("y", FLOAT, ["N", widths[-1]])], weights)


def stored(folder: Path, data: bytes, name: str = "m", owner: str = "") -> ModelSpec:
    """A model file in `folder` and what the pool is told about it."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / sha256
    path.write_bytes(data)
    return ModelSpec(name, sha256, str(path), "onnx", len(data), owner)


def prepared(folder: Path, spec: ModelSpec, first: Form = "mapped", best: Form = "packed") -> Path:
    """A whole prepared folder of a stored model, with made-up figures."""
    folder.mkdir()
    framework = make("cpu", 1, 0)
    assert isinstance(framework, OnnxFramework)
    framework.write_prepared(spec, Source(spec.path), folder)
    weights = folder / WEIGHTS
    form = FormProfile(0.001, 0)
    forms: dict[Form, FormProfile] = {"mapped": form, "packed": form}
    profile = Profile(spec.sha256, "test", 1, first, best, forms)
    sizes = {
        "graph_bytes": (folder / GRAPH).stat().st_size,
        "weights_bytes": weights.stat().st_size if weights.exists() else 0,
    }
    (folder / FILE_NAME).write_bytes(encode(msgspec.structs.replace(profile, **sizes)))
    return folder
