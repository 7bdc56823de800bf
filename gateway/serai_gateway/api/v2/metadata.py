"""What the server and its models say about themselves. Pure: the catalogue's records as the protocol writes them."""

from collections.abc import Sequence
from typing import Any

from serai import __version__
from serai_gateway.api.v2.datatypes import describe_dtype
from serai_gateway.api.v2.models import FoundModel
from serai_gateway.catalogue import TensorInfo

SERVER = {
    "name": "serai",
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_repository", "schedule_policy", "model_configuration", "statistics"],
}

#: Format in the catalogue -> platform and backend, as Triton calls them.
_PLATFORMS = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "torchscript": ("pytorch_torchscript", "pytorch"),
    "torch_export": ("pytorch_torch_export", "pytorch"),
    "saved_model": ("tensorflow_savedmodel", "tensorflow"),
}


def metadata(found: FoundModel) -> dict[str, Any]:
    return {
        "name": found.name,
        "versions": [found.version_name],
        "platform": _platform(found)[0],
        "inputs": [_tensor(info) for info in found.model.inputs],
        "outputs": [_tensor(info) for info in found.model.outputs],
    }


def config(found: FoundModel) -> dict[str, Any]:
    """Triton's model configuration, as far as it has a meaning here.

    `max_batch_size` 0 says that the shapes are whole, first dimension included. Calls are batched all the same.
    """
    platform, backend = _platform(found)
    return {
        "name": found.name,
        "platform": platform,
        "backend": backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": _configured(found.model.inputs),
        "output": _configured(found.model.outputs),
    }


def _platform(found: FoundModel) -> tuple[str, str]:
    return _PLATFORMS.get(found.model.format, (found.model.format, found.model.format))


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "datatype": describe_dtype(info.dtype), "shape": _shape(info)}


def _configured(infos: Sequence[TensorInfo]) -> list[dict[str, Any]]:
    described = [(info, describe_dtype(info.dtype)) for info in infos]
    return [
        {"name": info.name, "data_type": "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}", "dims": _shape(info)}
        for info, name in described
    ]


def _shape(info: TensorInfo) -> list[int]:
    """-1 is a free dimension; where not even the rank is known there is one of them."""
    if info.shape is None:
        return [-1]
    return [dim if isinstance(dim, int) else -1 for dim in info.shape]
