"""What model files are, told from their bytes alone, before any framework sees them. The standard library and msgspec.

Used twice: when something is published, in a process of its own (`inspector.py`); and by the worker before it opens a
file.
"""

from serai_gpu_pool.formats.base import ModelFile, ModelFileError, Tensor
from serai_gpu_pool.formats.onnx_file import read_onnx
from serai_gpu_pool.formats.saved_model import pack_saved_model, unpack_saved_model
from serai_gpu_pool.formats.sniff import MAX_FILE_BYTES, SUFFIXES, map_model, read_program, sniff

__all__ = [
    "MAX_FILE_BYTES",
    "SUFFIXES",
    "ModelFile",
    "ModelFileError",
    "Tensor",
    "map_model",
    "pack_saved_model",
    "read_onnx",
    "read_program",
    "sniff",
    "unpack_saved_model",
]
