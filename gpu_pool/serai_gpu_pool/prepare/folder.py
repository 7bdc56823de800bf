"""The folder of a prepared model: its name, what lies in it, and whether that is what it says it is.

HOME/prepared/<sha256>-<12 hex of runtime and owner>/
  profile.json                  what the model costs
  graph.onnx    weights.bin     the form that opens fastest, where there is one; no weights file when all are small
"""

import hashlib
import os
import platform
import stat
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serai.ipc.messages import ModelFormat, ModelSpec
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.frameworks.registry import FRAMEWORK_OF, FrameworkName
from serai_gpu_pool.prepare.graph_check import WEIGHTS, Range, check_prepared_graph
from serai_gpu_pool.profile import Profile, read

GRAPH = "graph.onnx"
_ROOT = "prepared"
#: Distributions that bring a framework; the first one that is installed counts.
_DISTRIBUTIONS: dict[FrameworkName, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
}


class FolderError(ValueError):
    """A prepared folder is not what it should be; the text says how."""


@dataclass(frozen=True)
class PreparedFolder:
    """A folder that has passed all checks."""

    path: Path
    profile: Profile
    raw: tuple[Range, ...]  # where in weights.bin the weights lie that a "mapped" model reads

    @property
    def graph(self) -> Path:
        return self.path / GRAPH

    @property
    def weights(self) -> Path | None:
        return self.path / WEIGHTS if self.profile.weights_bytes else None


@cache
def runtime_tag(format: ModelFormat) -> str:
    """Version of the framework and kind of processor: how weights are best arranged depends on both."""
    framework = FRAMEWORK_OF[format]
    for distribution in _DISTRIBUTIONS[framework]:
        try:
            return f"{distribution}-{version(distribution)}-{_processor()}"
        except PackageNotFoundError:
            continue
    return f"{framework}-none-{_processor()}"


def prepared_folder(home: Path, spec: ModelSpec, runtime_tag: str) -> Path:
    """Where the prepared form of a model belongs, whether it is there or not.

    What a format that can run code says of itself is believed for models of the same owner only, with the same inputs
    and outputs declared.
    """
    of_whom = "" if spec.format == "onnx" else spec.of_whom
    short = hashlib.sha256(f"{runtime_tag}\n{of_whom}".encode()).hexdigest()[:12]
    return root(home) / f"{spec.sha256}-{short}"


def root(home: Path) -> Path:
    return home / _ROOT


def verify(path: Path, sha256: str) -> PreparedFolder:
    """A folder whose files can be opened by a runtime.

    Raises FolderError: it has no prepared form, it is another model's, or it is not what our preparation writes.
    """
    profile = read(path)
    if profile is None:
        raise FolderError("it has no readable profile")
    if profile.sha256 != sha256:
        raise FolderError("it was made from another file")
    if not profile.has_prepared_form:
        raise FolderError("it has no prepared form, only a profile")
    graph = read_plain(path / GRAPH, profile.graph_bytes)
    if profile.weights_bytes:
        _open_plain(path / WEIGHTS, profile.weights_bytes).close()
    try:
        raw = check_prepared_graph(graph, profile.weights_bytes)
    except ModelFileError as error:
        raise FolderError(str(error)) from None
    return PreparedFolder(path, profile, tuple(raw))


def stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever one of the files does: what was verified under a stamp need not be verified again."""
    values: list[int] = []
    for name in (GRAPH, WEIGHTS):
        try:
            status = os.lstat(path / name)
        except OSError:
            values.append(0)
        else:
            values += [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return tuple(values)


def read_plain(path: Path, num_bytes: int) -> bytes:
    """A regular file of exactly so many bytes. Raises FolderError."""
    with _open_plain(path, num_bytes) as file:
        data = file.read(num_bytes + 1)
    if len(data) != num_bytes:
        raise FolderError(f"{path.name} has another size than its profile says")
    return data


def _open_plain(path: Path, num_bytes: int):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FolderError(f"{path.name} cannot be opened: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes or status.st_nlink != 1:
        os.close(descriptor)
        raise FolderError(f"{path.name} is no plain file of the size that its profile says")
    return open(descriptor, "rb", buffering=0)


@cache
def _processor() -> str:
    """Short hash of what this processor can do."""
    features = ""
    try:
        with open("/proc/cpuinfo") as lines:
            features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass  # the machine's kind alone then
    told = " ".join(sorted(features.partition(":")[2].split()))
    return hashlib.sha256(f"{platform.machine()}\n{told}".encode()).hexdigest()[:8]
