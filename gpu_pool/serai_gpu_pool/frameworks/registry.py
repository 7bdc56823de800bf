"""Which framework runs which format, and whether it is installed. The one place to add another."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from serai.ipc.messages import ModelFormat

if TYPE_CHECKING:  # it needs NumPy, which whoever only asks what is missing may not have
    from serai_gpu_pool.frameworks.base import Framework, MakeFramework

FrameworkName = Literal["onnx", "torch", "tensorflow"]

FRAMEWORK_OF: dict[ModelFormat, FrameworkName] = {
    "onnx": "onnx",
    "torchscript": "torch",
    "torch_export": "torch",
    "saved_model": "tensorflow",
}

#: What people call it, the package that it imports, and what installs it in the server's folder.
_PACKAGES: dict[FrameworkName, tuple[str, str, str]] = {
    "onnx": ("ONNX Runtime", "onnxruntime", "make install"),
    "torch": ("PyTorch", "torch", "make frameworks"),
    "tensorflow": ("TensorFlow", "tensorflow", "make frameworks"),
}

#: Frameworks whose files are data: models of different owners may share a worker of these.
SHARED: frozenset[FrameworkName] = frozenset(("onnx",))


def missing(format: ModelFormat) -> str:
    """Why files of this format cannot be run here, as a sentence for their author; empty when they can.

    Looks for the package without importing it, so the answer is cheap, and safe in the owner's process.
    """
    title, package, command = _PACKAGES[FRAMEWORK_OF[format]]
    if find_spec(package) is not None:
        return ""
    return f"{title} is not installed on this server; its operator installs it with `{command}` and restarts `serai up`"


def make(name: FrameworkName, device: str, threads: int, arena_bytes: int) -> "Framework":
    """A framework for one worker. Imports it: seconds for the large ones. Raises ImportError where it is missing."""
    maker: MakeFramework = import_module(f"serai_gpu_pool.frameworks.{name}").make
    return maker(device, threads, arena_bytes)
