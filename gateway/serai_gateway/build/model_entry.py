"""Models that an author names: [models.NAME] of algorithm.toml."""

import re
from typing import Any, Literal

import msgspec

from serai.ipc.messages import ModelFormat
from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import check_path
from serai_gateway.build.sections import checked, refuse, section, within

#: Most models of one algorithm.
MAX_MODELS = 64
#: Most dimensions of a declared input or output: what NumPy handles.
MAX_DIMENSIONS = 32
#: Element types that can be sent, by NumPy's names.
DTYPES = frozenset(
    ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_WHEEL = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})\Z")


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output, as its author declares it: formats that do not say need that."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # -1 where any size goes, else at least 1


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model comes from: a file or SavedModel folder of the tree, or one file inside a wheel."""

    file: str = ""
    wheel: str = ""  # "name==version"
    path: str = ""  # inside the wheel
    sha256: str = ""  # of the model file
    data: str = ""
    format: ModelFormat | Literal[""] = ""  # told by the file where it is left out
    inputs: tuple[TensorEntry, ...] = ()
    outputs: tuple[TensorEntry, ...] = ()


def read_models(table: Any) -> dict[str, ModelEntry]:
    if not isinstance(table, dict):
        raise refuse("models", "is a section; write [models.NAME]")
    within("models", len(table), 0, MAX_MODELS)
    return {name: _model(name, entry) for name, entry in table.items()}


def _model(name: str, table: Any) -> ModelEntry:
    key = f"models.{name[:70]}"
    if not _MODEL_NAME.match(name):
        raise refuse(key, "a model's name is letters, digits, '-', '_' and '.', at most 64")
    entry = section(key, table, ModelEntry)
    given = [source for source in ("file", "wheel", "data") if getattr(entry, source)]
    if len(given) != 1:
        raise refuse(key, 'needs one of file = "models/x.onnx" and wheel = "name==version"')
    if entry.data:
        raise refuse(f"{key}.data", "this server has no data store; use file = or wheel =")
    _check_tensors(key, entry)
    if entry.sha256 and not _SHA256.match(entry.sha256):
        raise refuse(f"{key}.sha256", "is not 64 hexadecimal digits; `sha256sum FILE` prints them")
    if entry.file:
        if entry.path:
            raise refuse(f"{key}.path", "goes with wheel =, not with file =")
        parts = checked(f"{key}.file", entry.file, _relative)
        return msgspec.structs.replace(entry, file="/".join(parts), sha256=entry.sha256.lower())
    if not _WHEEL.match(entry.wheel):
        raise refuse(f"{key}.wheel", f'"{entry.wheel[:100]}" is not one version of a package; write name==1.0.1')
    for field in ("path", "sha256"):
        if not getattr(entry, field):
            raise refuse(f"{key}.{field}", "is missing; a wheel needs path (inside it) and sha256 (of that file)")
    parts = checked(f"{key}.path", entry.path, _relative)
    return msgspec.structs.replace(entry, path="/".join(parts), sha256=entry.sha256.lower())


def _check_tensors(key: str, entry: ModelEntry) -> None:
    if bool(entry.inputs) != bool(entry.outputs):
        raise refuse(key, "declares inputs or outputs alone; declare both")
    for side in ("inputs", "outputs"):
        tensors: tuple[TensorEntry, ...] = getattr(entry, side)
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise refuse(f"{key}.{side}", "two of them have the same name")
        for at, tensor in enumerate(tensors):
            where = f"{key}.{side}[{at}]"
            if not 0 < len(tensor.name) <= 256 or not tensor.name.isprintable():
                raise refuse(f"{where}.name", "is 1 to 256 printable characters")
            if tensor.dtype not in DTYPES:
                raise refuse(f"{where}.dtype", f'"{tensor.dtype[:40]}" cannot be sent; {", ".join(sorted(DTYPES))} can')
            if len(tensor.shape) > MAX_DIMENSIONS or not all(map(_is_size, tensor.shape)):
                raise refuse(
                    f"{where}.shape",
                    "is a list of sizes such as [-1, 3, 224, 224]: -1 where any size goes, else at least 1",
                )


def _is_size(size: int) -> bool:
    return size == -1 or 1 <= size < 1 << 31


def _relative(text: str) -> tuple[str, ...]:
    try:
        parts = check_path(text)
    except UnsafeTree as error:
        raise ValueError(str(error)) from None
    if not parts:
        raise ValueError("is not a path to a file")
    return parts
