"""What model files are, told from their bytes alone, before any framework sees them. The standard library and msgspec.

Used twice: by the gateway when something is published, and by the worker before it opens a file.
"""

from serai_gpu_pool.formats.base import ModelFile, ModelFileError
from serai_gpu_pool.formats.saved_model import pack_saved_model, unpack_saved_model
from serai_gpu_pool.formats.sniff import SUFFIXES, read_program, sniff, sniff_file

__all__ = [
    "SUFFIXES",
    "ModelFile",
    "ModelFileError",
    "pack_saved_model",
    "read_program",
    "sniff",
    "sniff_file",
    "unpack_saved_model",
]
