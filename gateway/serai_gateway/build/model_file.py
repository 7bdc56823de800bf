"""Which format a model file has, whether it may be published, and what goes in and out."""

from pathlib import Path
from typing import NamedTuple

from serai.ipc.messages import ModelFormat
from serai_gateway.build.errors import BuildError, InvalidModel
from serai_gateway.build.inspection import Inspector
from serai_gateway.build.model_entry import ModelEntry, TensorEntry
from serai_gateway.catalogue import TensorInfo
from serai_gpu_pool.formats import SUFFIXES, Tensor
from serai_gpu_pool.formats.base import shown
from serai_gpu_pool.frameworks.registry import missing

_EXAMPLE = """TorchScript does not say what goes in and out; declare it in algorithm.toml, for example:
[[models.{key}.inputs]]
name = "x"
dtype = "float32"
shape = [-1, 784]
[[models.{key}.outputs]]
name = "y"
dtype = "float32"
shape = [-1, 10]"""

#: Inputs, or outputs, that a message lists. Beyond these it says how many there are.
_MAX_LISTED = 8


class CheckedModel(NamedTuple):
    format: ModelFormat
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    num_nodes: int


def check_model(path: Path, name: str, entry: ModelEntry, inspector: Inspector) -> CheckedModel:
    """Have a file read, without running anything of it. It must not change meanwhile.

    Args:
        path: where it is.
        name: the model's, in the manifest.
        entry: what its author says of it; the suffix there has to agree with the file's content.

    Raises:
        InvalidModel: what is wrong and what to do, without `path`.
        BuildError: nothing is wrong with it, and what runs it is not installed.
    """
    called = entry.file or entry.path
    report = inspector.inspect(path)
    if report.format is None:
        claimed = entry.format or SUFFIXES.get(Path(called).suffix.lower())
        raise InvalidModel(f"not {TITLES[claimed]}: {report.refused}" if claimed else f"no model: {report.refused}")
    _check_claims(called, report.format, entry)
    if report.refused:
        raise InvalidModel(report.refused)
    found = CheckedModel(report.format, _infos(report.inputs), _infos(report.outputs), report.num_nodes)
    absent = missing(found.format)
    if found.format == "torchscript":
        if not entry.inputs:
            undeclared = _EXAMPLE.format(key=f'"{name}"' if "." in name else name)
            raise InvalidModel(f"{absent}. And {undeclared}" if absent else undeclared)
        found = found._replace(inputs=_declared(entry.inputs), outputs=_declared(entry.outputs))
    elif entry.inputs:
        found = _compared(found, entry)
    if absent:
        raise BuildError(absent)
    return found


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
    """What is declared has to be what the file says, which is what counts. Only an exported graph has no names for
    its outputs: it gets those that are declared."""
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
    has = list_tensors(found, "-1")
    if set(by_name) != {tensor.name for tensor in declared}:
        raise InvalidModel(f"{side}: the file has {has}; declare these, or nothing")
    for tensor in declared:
        info = by_name[tensor.name]
        if tensor.dtype != info.dtype or not _is_covered(tensor.shape, info.shape):
            raise InvalidModel(
                f"{side}: {tensor.name} is declared as {tensor.dtype} {list(tensor.shape)}; the file has {has}, and "
                "the file counts: declare the same, or leave inputs and outputs out"
            )


def _is_covered(declared: tuple[int, ...], real: tuple[int | str, ...] | None) -> bool:
    """Whether every size that is declared is the file's: nobody would keep callers to another."""
    if real is None or len(declared) != len(real):
        return False
    return all(size in (-1, known) for size, known in zip(declared, real, strict=True))


def list_tensors(tensors: tuple[TensorInfo, ...], free: str) -> str:
    """Names, types and shapes on one line, the first of many. `free` stands for a size that may be any."""
    listed = [f"{shown(info.name)} {info.dtype} {_shape(info.shape, free)}" for info in tensors[:_MAX_LISTED]]
    if len(tensors) > _MAX_LISTED:
        listed.append(f"… ({len(tensors):,} in all)")
    return ", ".join(listed) or "nothing"


def _shape(shape: tuple[int | str, ...] | None, free: str) -> str:
    if shape is None:
        return "of any shape"
    return "[" + ", ".join(str(size) if isinstance(size, int) else free for size in shape) + "]"


def _declared(tensors: tuple[TensorEntry, ...]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(one.name, one.dtype, tuple(size if size >= 0 else "" for size in one.shape)) for one in tensors
    )


def _infos(tensors: tuple[Tensor, ...]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(one.name, one.dtype, one.shape) for one in tensors)


TITLES: dict[ModelFormat, str] = {
    "onnx": "an ONNX file",
    "torchscript": "a TorchScript file",
    "torch_export": "a torch.export archive",
    "saved_model": "a TensorFlow SavedModel",
}
