"""Which format a model file has, whether it may be published, and what goes in and out."""

from pathlib import Path
from typing import NamedTuple

from serai.ipc.messages import ModelFormat, TensorSpec
from serai_gateway.build.errors import InvalidModel
from serai_gateway.build.model_entry import ModelEntry, TensorEntry
from serai_gateway.build.onnx_file import read_onnx
from serai_gateway.catalogue import TensorInfo
from serai_gpu_pool.formats import SUFFIXES, ModelFileError, read_program, sniff_file

_EXAMPLE = """TorchScript does not say what goes in and out; declare it:
[[models.NAME.inputs]]
name = "x"
dtype = "float32"
shape = [-1, 784]
[[models.NAME.outputs]]
name = "y"
dtype = "float32"
shape = [-1, 10]"""


class CheckedModel(NamedTuple):
    format: ModelFormat
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    num_nodes: int


def check_model(path: Path, called: str, entry: ModelEntry) -> CheckedModel:
    """Read a file without running anything of it. The file must not change meanwhile.

    Args:
        path: where it is.
        called: what its author calls it; its suffix has to agree with its content.

    Raises:
        InvalidModel: what is wrong and what to do, without `path`.
    """
    try:
        format = _sniffed(path, called, entry)
        _check_claims(called, format, entry)
        if format == "onnx":
            onnx = read_onnx(path)
            found = CheckedModel(format, onnx.inputs, onnx.outputs, onnx.num_nodes)
        else:
            read = read_program(path, format)
            found = CheckedModel(format, _infos(read.inputs), _infos(read.outputs), read.num_nodes)
    except ModelFileError as error:
        raise InvalidModel(str(error)) from None
    if format == "torchscript":
        if not entry.inputs:
            raise InvalidModel(_EXAMPLE)
        return found._replace(inputs=_declared(entry.inputs), outputs=_declared(entry.outputs))
    return _compared(found, entry) if entry.inputs else found


def _sniffed(path: Path, called: str, entry: ModelEntry) -> ModelFormat:
    try:
        return sniff_file(path)
    except ModelFileError as error:
        claimed = entry.format or SUFFIXES.get(Path(called).suffix.lower())
        raise ModelFileError(f"not {TITLES[claimed]}: {error}" if claimed else f"no model: {error}") from None


def _check_claims(called: str, format: ModelFormat, entry: ModelEntry) -> None:
    """What its author says must be what it is: another reader might go by that. Raises InvalidModel."""
    suffix = Path(called).suffix.lower()
    claimed = entry.format or SUFFIXES.get(suffix) or ("saved_model" if not suffix else "")
    by_suffix = SUFFIXES.get(suffix, claimed)
    if format == "saved_model" and not entry.format:
        return
    if not claimed:
        right = next(one for one, known in SUFFIXES.items() if known == format)
        raise InvalidModel(f"{called[-100:]} is {TITLES[format]}; call it {Path(called).stem[:50]}{right}")
    if claimed != format or by_suffix != format:
        says = f'format = "{entry.format}"' if entry.format and entry.format != format else f"its name ({suffix})"
        raise InvalidModel(f"{called[-100:]} is {TITLES[format]}, and {says} says something else; correct that")


def _compared(found: CheckedModel, entry: ModelEntry) -> CheckedModel:
    """What is declared has to fit what the file says. An exported graph has no names for its outputs: these count."""
    outputs = found.outputs
    if found.format == "torch_export" and len(outputs) == len(entry.outputs):
        outputs = tuple(
            TensorInfo(said.name, info.dtype, info.shape) for said, info in zip(entry.outputs, outputs, strict=True)
        )
    _compare("inputs", entry.inputs, found.inputs)
    _compare("outputs", entry.outputs, outputs)
    return found._replace(outputs=outputs)


def _compare(side: str, declared: tuple[TensorEntry, ...], found: tuple[TensorInfo, ...]) -> None:
    by_name = {info.name: info for info in found}
    has = ", ".join(f"{info.name} {info.dtype} {_shown(info.shape)}" for info in found)
    if set(by_name) != {tensor.name for tensor in declared}:
        raise InvalidModel(f"{side}: the file has {has}; declare these, or nothing")
    for tensor in declared:
        info = by_name[tensor.name]
        same_rank = info.shape is None or len(info.shape) == len(tensor.shape)
        fits = same_rank and all(
            size == -1 or not isinstance(real, int) or size == real
            for size, real in zip(tensor.shape, info.shape or tensor.shape, strict=True)
        )
        if tensor.dtype != info.dtype or not fits:
            raise InvalidModel(
                f"{side}: {tensor.name} is declared as {tensor.dtype} {list(tensor.shape)}; the file has {has}"
            )


def _shown(shape: tuple[int | str, ...] | None) -> str:
    return "of any shape" if shape is None else str([size if isinstance(size, int) else -1 for size in shape])


def _declared(tensors: tuple[TensorEntry, ...]) -> tuple[TensorInfo, ...]:
    return tuple(_info(TensorSpec(one.name, one.dtype, one.shape)) for one in tensors)


def _infos(tensors: tuple[TensorSpec, ...] | None) -> tuple[TensorInfo, ...]:
    return tuple(map(_info, tensors or ()))


def _info(tensor: TensorSpec) -> TensorInfo:
    shape = None if tensor.shape is None else tuple(size if size >= 0 else "" for size in tensor.shape)
    return TensorInfo(tensor.name, tensor.dtype, shape)


TITLES: dict[ModelFormat, str] = {
    "onnx": "an ONNX file",
    "torchscript": "a TorchScript file",
    "torch_export": "a torch.export archive",
    "saved_model": "a TensorFlow SavedModel",
}
