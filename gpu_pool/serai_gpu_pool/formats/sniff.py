"""What a file is, by its content: the suffix is only a claim."""

import mmap
import os

from serai.ipc.messages import ModelFormat
from serai_gpu_pool.formats.base import ModelFile, ModelFileError
from serai_gpu_pool.formats.saved_model import GRAPH, read_saved_model
from serai_gpu_pool.formats.torch_export import read_export
from serai_gpu_pool.formats.torchscript import read_torchscript
from serai_gpu_pool.formats.zip_file import ZipFile, looks_like_zip

#: What the file of each format is called. A SavedModel is a folder.
SUFFIXES: dict[str, ModelFormat] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".torchscript": "torchscript",
    ".jit": "torchscript",
    ".pt2": "torch_export",
}

#: Largest file of the formats that are programs, as for ONNX. Together with the archive's rules: no 64-bit zip.
MAX_FILE_BYTES = 2 * 1024**3

_PICKLED = (
    "pickled Python objects, which run code when they are loaded: save the model with torch.jit.script(model).save(…) "
    "(.pt) or torch.export.save(…) (.pt2), or convert it to ONNX"
)
#: How other files begin, and what to do about them.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", 'a Keras or HDF5 file: write a SavedModel folder with model.export("models/NAME")'),
    (b"\x93NUMPY", "a NumPy array, no model"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"BZh", "compressed with bzip2: unpack it"),
    (b"GGUF", "a GGUF file; it cannot be run here: convert the model to ONNX"),
    (b"\x7fELF", "a program or shared library, no model"),
    (b"version https://git-lfs.", "a Git LFS pointer, not the model: commit the file itself"),
)


def sniff(data: memoryview) -> ModelFormat:
    """The format of a file. Raises ModelFileError for anything that is no model of a format that we know."""
    head = bytes(data[:512])
    if not head:
        raise ModelFileError("the file is empty")
    if looks_like_zip(data):
        return _kind_of_zip(ZipFile(data))
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        raise ModelFileError(_PICKLED)
    if head[257:262] == b"ustar":
        raise ModelFileError("a tar archive: unpack it, and name the model file inside")
    if head[4:8] == b"TFL3":
        raise ModelFileError("a TensorFlow Lite file; it cannot be run here: convert the model to ONNX")
    if len(head) > 16 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < len(data):
        raise ModelFileError("safetensors: weights without a model; save the model itself as ONNX or TorchScript")
    for start, what in _OTHERS:
        if head.startswith(start):
            raise ModelFileError(what)
    if head[0] in (0x08, 0x3A, 0x12, 0x1A, 0x42):  # the first field of a protobuf that may be an ONNX model
        return "onnx"
    raise ModelFileError("no model file of a known format (ONNX, TorchScript, torch.export, SavedModel)")


def map_model(descriptor: int) -> memoryview:
    """A file's content, as pages of it. The file must not change meanwhile. Raises ModelFileError for its size."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise ModelFileError("the file is empty")
    if size > MAX_FILE_BYTES:
        raise ModelFileError(f"{size:,} bytes; a model has at most {MAX_FILE_BYTES >> 30} GiB")
    # Unmapped with its last view: closing it by hand would fail while an exception still holds one.
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def read_program(data: memoryview, format: ModelFormat) -> ModelFile:
    """Check a file of one of the formats that are programs: nothing of it is run, nothing is unpickled.

    Raises ModelFileError with what is wrong.
    """
    if format == "torchscript":
        return read_torchscript(data)
    if format == "torch_export":
        return read_export(data)
    if format == "saved_model":
        return read_saved_model(data)
    raise ValueError(f"{format} is checked elsewhere")


def _kind_of_zip(archive: ZipFile) -> ModelFormat:
    if GRAPH in archive.members:
        return "saved_model"
    inside = {name.partition("/")[2] for name in archive.members}
    if "archive_format" in inside:
        return "torch_export"
    if "constants.pkl" in inside:
        return "torchscript"
    if "serialized_exported_program.json" in {*inside, *archive.members}:
        raise ModelFileError("written by torch.export of an older PyTorch; save it again with PyTorch 2.9 or newer")
    if "data.pkl" in inside:
        raise ModelFileError(f"written by torch.save: weights (a state_dict) or {_PICKLED}")
    if "config.json" in archive.members and "metadata.json" in archive.members:
        raise ModelFileError('a .keras file: write a SavedModel folder with model.export("models/NAME")')
    raise ModelFileError("a zip archive, but neither TorchScript nor torch.export")
