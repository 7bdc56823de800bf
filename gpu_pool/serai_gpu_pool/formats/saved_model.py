"""TensorFlow's SavedModel: a folder, stored and sent as one file.

    saved_model.pb                       graph, functions, signatures
    variables/variables.index, .data-…   weights
    assets/…                             files that the graph reads

`pack_saved_model` makes the file: a zip, uncompressed, names in order, no times. So the same folder is always the same
file. Operations come from a list (`saved_model_ops.txt`): computation, no files, no network, no Python.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

from serai.ipc.messages import TensorSpec
from serai_gpu_pool.formats.base import MAX_TENSORS, ModelFile, ModelFileError, shown
from serai_gpu_pool.formats.protobuf import NotProtobuf, Walk, message, signed, string
from serai_gpu_pool.formats.zip_file import MAX_MEMBERS, ZipFile

GRAPH = "saved_model.pb"
#: What callers call: the name that TensorFlow gives to a model's main function.
SIGNATURE = "serving_default"
#: Most bytes of weights in one part, and in all: what a zip without 64-bit extension holds.
MAX_FOLDER_BYTES = 2 * 1024**3
#: Largest graph: as for ONNX, everything in it is walked.
MAX_GRAPH_BYTES = 512 << 20
MAX_FIELDS = 5_000_000
MAX_NODES = 500_000

_MEMBER = re.compile(r"saved_model\.pb|variables/variables\.(index|data-\d{5}-of-\d{5})|assets/[^/]+")
#: In many folders, and of no use for running it.
_LEFT_OUT = re.compile(r"fingerprint\.pb|keras_metadata\.pb|assets\.extra/.*|debug/.*|README\.md|LICENSE(\.txt)?")
#: They read and write weights: only in the functions that TensorFlow itself makes for that, which nobody else may call.
_SAVING = frozenset(("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"))
_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")

#: DataType of TensorFlow, by NumPy's names, of what can be sent.
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 17: "uint16",
    19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_CHUNK_BYTES = 1 << 20


def pack_saved_model(folder: Path, target: BinaryIO) -> None:
    """Write the one file of a folder. Raises ModelFileError for what does not belong into one."""
    paths = sorted(_files(folder))
    if GRAPH not in paths:
        if "saved_model.pbtxt" in paths:
            raise ModelFileError("its graph is written as text; save it again with tf.saved_model.save")
        raise ModelFileError(f"a folder without {GRAPH}; tf.saved_model.save writes such a folder")
    total = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for path in paths:
            if _LEFT_OUT.fullmatch(path):
                continue
            if not _MEMBER.fullmatch(path):
                raise ModelFileError(f'"{shown(path)}" is no part of a SavedModel; leave it out of the folder')
            place = folder / path
            total += place.stat().st_size
            if total > MAX_FOLDER_BYTES:
                raise ModelFileError(f"a folder of more than {MAX_FOLDER_BYTES >> 30} GiB")
            _write(archive, place, path)


def unpack_saved_model(data: memoryview, folder: Path) -> None:
    """Write the folder of a packed file again; `folder` is new. Raises ModelFileError, OSError."""
    archive = ZipFile(data)
    for name in archive.members:
        if not _MEMBER.fullmatch(name):
            raise ModelFileError(f'"{shown(name)}" is no part of a SavedModel')
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        content = archive.stored(name)
        with place.open("xb") as file:
            for at in range(0, len(content), _CHUNK_BYTES):
                file.write(content[at : at + _CHUNK_BYTES])


def read_saved_model(data: memoryview) -> ModelFile:
    """Check a packed SavedModel. Raises ModelFileError."""
    archive = ZipFile(data)
    for name in archive.members:
        if not _MEMBER.fullmatch(name):
            raise ModelFileError(
                f'"{shown(name)}" is no part of a SavedModel; publish the folder, not an archive of it'
            )
    content = archive.stored(GRAPH)
    if len(content) > MAX_GRAPH_BYTES:
        raise ModelFileError(f"a graph of more than {MAX_GRAPH_BYTES >> 20} MiB; keep weights in variables")
    try:
        return _Reader(frozenset(archive.members)).model(content)
    except NotProtobuf as error:
        raise ModelFileError(f"{GRAPH} is damaged, or no SavedModel: {error}") from None


def _files(folder: Path) -> list[str]:
    found: list[str] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file():
                raise ModelFileError(f'"{shown(name)}" is not a plain file')
            found.append(path.relative_to(folder).as_posix())
            if len(found) > MAX_MEMBERS:
                raise ModelFileError(f"more than {MAX_MEMBERS:,} files")
    return found


def _write(archive: zipfile.ZipFile, place: Path, name: str) -> None:
    member = zipfile.ZipInfo(name)  # of 1 January 1980: the day this format's time begins
    member.create_system, member.external_attr = 3, 0o444 << 16
    member.file_size = place.stat().st_size
    with place.open("rb") as source, archive.open(member, "w") as target:
        while chunk := source.read(_CHUNK_BYTES):
            target.write(chunk)


def allowed_operations() -> frozenset[str]:
    text = Path(__file__).with_name("saved_model_ops.txt").read_text()
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


class _Reader:
    """One walk over saved_model.pb."""

    def __init__(self, members: frozenset[str]) -> None:
        self._fields = Walk(MAX_FIELDS).fields
        self._members = members
        self._allowed = allowed_operations()
        self._num_nodes = 0
        self._functions: set[str] = set()
        self._called: set[str] = set()  # operators that are not on the list: they must be functions of this file
        self._named: set[str] = set()  # functions that nodes of other functions name, or objects
        self._of_graph: set[str] = set()  # functions that nodes of the graph itself name

    def model(self, data: memoryview) -> ModelFile:
        graphs = [message(value) for number, _, value in self._fields(data) if number == 2]
        if len(graphs) != 1:
            raise ModelFileError(f"{len(graphs)} graphs; a model for serving has one (tag serve)")
        signatures: dict[str, memoryview] = {}
        has_objects = False
        for number, _, value in self._fields(graphs[0]):
            if number == 2:
                self._graph(message(value))
            elif number == 5:
                signatures.update([self._entry(message(value))])
            elif number == 6:
                self._asset(message(value))
            elif number == 7:
                has_objects = True
                self._objects(message(value))
        if not has_objects:  # then TensorFlow runs the graph itself; else only what objects name, not the saver's nodes
            self._named |= self._of_graph
        for name in sorted(self._called - self._functions):
            raise ModelFileError(
                f"operation {shown(name)} is not allowed: only computation, no files, no Python, no custom operations"
            )
        for name in sorted(self._called | self._named):
            if _SAVER.fullmatch(name):
                raise ModelFileError(f"function {shown(name)} writes or reads files, and something calls it")
        return self._described(signatures)

    def _described(self, signatures: dict[str, memoryview]) -> ModelFile:
        if SIGNATURE not in signatures:
            others = ", ".join(sorted(shown(name) for name in signatures if not name.startswith("__"))) or "none"
            raise ModelFileError(
                f"no signature {SIGNATURE} (it has: {others}); save it with "
                "tf.saved_model.save(model, path, signatures=model.__call__.get_concrete_function(…))"
            )
        tensors: dict[int, list[TensorSpec]] = {1: [], 2: []}
        for number, _, value in self._fields(signatures[SIGNATURE]):
            if number in tensors:
                name, info = self._entry(message(value))
                tensors[number].append(self._tensor(name, info))
        inputs, outputs = (tuple(sorted(tensors[number], key=lambda one: one.name)) for number in (1, 2))
        if not inputs or not outputs:
            raise ModelFileError(f"its signature {SIGNATURE} has no inputs or no outputs")
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise ModelFileError(f"more than {MAX_TENSORS} inputs and outputs")
        return ModelFile("saved_model", inputs, outputs, self._num_nodes)

    def _entry(self, data: memoryview) -> tuple[str, memoryview]:
        """One entry of a map."""
        key, content = "", memoryview(b"")
        for number, _, value in self._fields(data):
            if number == 1:
                key = string(value)
            elif number == 2:
                content = message(value)
        return key, content

    def _graph(self, data: memoryview) -> None:
        for number, _, value in self._fields(data):
            if number == 1:
                self._node(message(value), "")
            elif number == 2:
                for inner, _, function in self._fields(message(value)):
                    if inner == 1:
                        self._function(message(function))

    def _function(self, data: memoryview) -> None:
        names: list[str] = []
        attributes: list[str] = []
        for number, _, value in self._fields(data):
            if number == 1:
                names += [string(one) for inner, _, one in self._fields(message(value)) if inner == 1]
            elif number == 5:
                attributes.append(self._entry(message(value))[0])
        if len(names) != 1 or not names[0]:
            raise NotProtobuf("a function with no name, or with several")
        if _SAVER.fullmatch(names[0]) and any(one.startswith("api_") for one in attributes):
            # By these TensorFlow finds functions that may stand in for each other.
            raise ModelFileError(f"function {shown(names[0])} writes or reads files, and could stand in for another")
        self._functions.add(names[0])
        for number, _, value in self._fields(data):
            if number == 3:
                self._node(message(value), names[0])

    def _node(self, data: memoryview, function: str) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise ModelFileError(f"more than {MAX_NODES:,} operations")
        is_saver = _SAVER.fullmatch(function) is not None
        for number, _, value in self._fields(data):
            if number == 2:
                operator = string(value)
                if operator not in self._allowed and not (is_saver and operator in _SAVING):
                    self._called.add(operator)
            elif number == 5:
                for inner, _, attribute in self._fields(message(value)):
                    if inner == 2:
                        self._attribute(message(attribute), self._named if function else self._of_graph)

    def _attribute(self, data: memoryview, found: set[str]) -> None:
        """Functions that an attribute names: AttrValue.func, or AttrValue.list.func."""
        for number, _, value in self._fields(data):
            if number == 10:
                found |= self._names(message(value))
            elif number == 1:
                for inner, _, one in self._fields(message(value)):
                    if inner == 9:
                        found |= self._names(message(one))

    def _objects(self, data: memoryview) -> None:
        """Functions that objects name: these are what TensorFlow runs, by whatever name a signature goes."""
        for number, _, value in self._fields(data):
            if number == 1:
                for inner, _, part in self._fields(message(value)):
                    if inner in (6, 8):  # a function with its variants, or a single one: the name comes first
                        self._named |= self._names(message(part))
            elif number == 2:
                self._named.add(self._entry(message(value))[0])

    def _names(self, data: memoryview) -> set[str]:
        return {string(value) for number, _, value in self._fields(data) if number == 1}

    def _asset(self, data: memoryview) -> None:
        for number, _, value in self._fields(data):
            if number == 2 and f"assets/{string(value)}" not in self._members:
                raise ModelFileError(f'its asset "{shown(string(value))}" is not a file in assets/')

    def _tensor(self, name: str, data: memoryview) -> TensorSpec:
        dtype, shape = 0, None
        for number, _, value in self._fields(data):
            if number == 2 and isinstance(value, int):
                dtype = value
            elif number == 3:
                shape = self._shape(message(value))
        if dtype not in _DTYPES:
            raise ModelFileError(f'"{shown(name)}" is not a tensor of numbers; only those go in and out')
        return TensorSpec(name, _DTYPES[dtype], shape)

    def _shape(self, data: memoryview) -> tuple[int, ...] | None:
        sizes: list[int] = []
        for number, _, value in self._fields(data):
            if number == 3 and value:
                return None
            if number == 2:
                size = next((one for inner, _, one in self._fields(message(value)) if inner == 1), 0)
                sizes.append(signed(size) if isinstance(size, int) else 0)
        return tuple(size if size >= 0 else -1 for size in sizes)
