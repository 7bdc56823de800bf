"""What makes model files of each format, where its framework is installed."""

import os
from importlib import import_module
from types import ModuleType

import pytest

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.frameworks import registry

_MAKERS = {"onnx": "nets", "torch": "torch_models", "tensorflow": "tf_models"}


def needs(format: ModelFormat) -> None:
    """Skips the test where the framework is missing; in CI it may not be."""
    if reason := registry.missing(format):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def maker(format: ModelFormat) -> ModuleType:
    """The module that makes files of this format; importing it imports the framework."""
    needs(format)
    return import_module(f"serai_gpu_pool.testing.{_MAKERS[registry.FRAMEWORK_OF[format]]}")
