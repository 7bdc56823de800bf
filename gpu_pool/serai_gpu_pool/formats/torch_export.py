"""torch.export archives (.pt2): a zip with a graph as JSON and weights as they lie in memory.

    NAME/models/model.json                        the graph
    NAME/data/weights/model_weights_config.json   which file holds which parameter, and how
    NAME/data/constants/model_constants_config.json
    NAME/data/weights/weight_0 …, data/constants/tensor_0 …
    NAME/data/sample_inputs/model.pt              never opened: it is pickled

Read here completely, without PyTorch: its own loader unpickles, evaluates expressions and generates Python source from
what the file says. What comes out is a `Program`, a list of operations that `frameworks/torch_graph.py` runs.
"""

import math
import re
from typing import Any

import msgspec

from serai.ipc.messages import TensorSpec
from serai_gpu_pool.formats.base import MAX_TENSORS, ModelFile, ModelFileError, shown
from serai_gpu_pool.formats.torch_graph import Graph, Program, Ref, Weight, read_graph
from serai_gpu_pool.formats.torch_schema import (
    DTYPES,
    CallSpec,
    ExportedProgram,
    GraphSpec,
    OutputTree,
    Payloads,
    TensorMeta,
    only,
)
from serai_gpu_pool.formats.zip_file import ZipFile

#: The version of the graph's JSON that this reader knows. A new major version is a new language.
SCHEMA_MAJOR = 8

_MEMBER = re.compile(
    r"models/model\.json|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d{1,6})"
    r"|data/sample_inputs/model\.pt|archive_(format|version)|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/(version|serialization_id)|extra/.+"
)
#: Parts that hold compiled code, or objects of classes that are not PyTorch's.
_CODE = re.compile(r"data/aotinductor/|data/executorch/|\.(so|cubin|cpp|o|dylib|ptx|hsaco)$|(custom|opaque)_obj_\d+$")
#: Most bytes of one table; the graph of a large model has 30 MB: 1.4 kB for each operation.
MAX_TABLE_BYTES = 48 << 20
#: What a table may unfold to. Each of its objects takes up to 200 bytes of memory, however short it is in the file; a
#: graph that fills 48 MiB has 1.3 million objects and lists, and 2.7 million texts.
MAX_OBJECTS = 2_000_000
MAX_TEXTS = 4_000_000


def read_export(data: memoryview) -> ModelFile:
    """Raises ModelFileError."""
    program = read_program(data)
    return ModelFile("torch_export", program.inputs, program.outputs, program.graph.num_nodes)


def read_program(data: memoryview) -> Program:
    """The graph and where its weights lie in `data`. Raises ModelFileError."""
    archive = ZipFile(data)
    root = next(iter(archive.members)).partition("/")[0]
    _check_members(archive, root)
    if archive.read(f"{root}/archive_format") != b"pt2" or archive.read(f"{root}/archive_version") != b"0":
        raise ModelFileError("a torch.export archive of another version; save it again with PyTorch 2.9 to 2.13")
    if f"{root}/byteorder" in archive.members and archive.read(f"{root}/byteorder") != b"little":
        raise ModelFileError("saved on a machine with the other byte order; save it again on this kind of machine")
    exported = _table(archive, f"{root}/models/model.json", ExportedProgram)
    if exported.schema_version.major != SCHEMA_MAJOR:
        raise ModelFileError(
            f"its graph is written in version {exported.schema_version.major} of torch.export's format, "
            f"version {SCHEMA_MAJOR} can be run: save it with PyTorch 2.9 to 2.13"
        )
    weights = _weights(archive, f"{root}/data/weights/", "model_weights_config.json")
    weights |= _weights(archive, f"{root}/data/constants/", "model_constants_config.json")
    module = exported.graph_module
    graph = read_graph(module.graph)
    bound, inputs = _inputs(module.signature.input_specs, graph, module.graph, weights)
    _check_writes(graph, bound)
    outputs = _outputs(module.signature.output_specs, module.graph, _keys(module.module_call_graph))
    if len(inputs) + len(outputs) > MAX_TENSORS:
        raise ModelFileError(f"more than {MAX_TENSORS} inputs and outputs")
    return Program(graph, bound, inputs, outputs)


def _check_members(archive: ZipFile, root: str) -> None:
    for name in archive.members:
        path = name.removeprefix(f"{root}/")
        if _CODE.search(path):
            raise ModelFileError(
                f'it brings compiled code or objects of its own, "{shown(path)}"; '
                "save the program itself: torch.export.save(torch.export.export(model, inputs), …)"
            )
        if path.startswith("models/") and path != "models/model.json":
            raise ModelFileError("an archive of several models; save each in a file of its own")
        if path == name or not _MEMBER.fullmatch(path):
            raise ModelFileError(f'a torch.export archive with a part that does not belong there, "{shown(name)}"')


def _table(archive: ZipFile, name: str, form: Any) -> Any:
    member = archive.members.get(name)
    if member and member.is_packed:
        raise ModelFileError(f"{shown(name)} is compressed, which torch.export.save does not do; save it again")
    if member and member.num_bytes > MAX_TABLE_BYTES:
        raise ModelFileError(f"{shown(name)} is larger than {MAX_TABLE_BYTES >> 20} MiB")
    try:
        return _decoded(archive.read(name), form)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        why = str(error)[:200] or "nested too deep"
        raise ModelFileError(f"{shown(name)} is not as torch.export writes it: {why}") from None


def _decoded(data: bytes, form: Any) -> Any:
    """Raises ModelFileError, or what msgspec raises."""
    if data.count(b"[") + data.count(b"{") > MAX_OBJECTS or data.count(b'"') > 2 * MAX_TEXTS:
        raise ModelFileError(
            f"one of its tables has more than {MAX_OBJECTS:,} objects and lists, or {MAX_TEXTS:,} texts; export a part"
        )
    return msgspec.json.decode(data, type=form)


def _weights(archive: ZipFile, folder: str, config: str) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for name, payload in _table(archive, folder + config, Payloads).config.items():
        if payload.use_pickle or payload.tensor_meta is None:
            raise ModelFileError(
                f'"{shown(name)}" is saved as a pickled object, not as a plain tensor; '
                "only plain tensors can be loaded without running code"
            )
        path = folder + payload.path_name
        content = archive.stored(path) if path in archive.members else None
        if content is None and payload.path_name:
            raise ModelFileError(f"{shown(payload.path_name)} is missing in the archive")
        member = archive.members[path]
        weights[name] = _weight(name, payload.tensor_meta, member.offset, member.num_bytes)
    return weights


def _weight(name: str, meta: TensorMeta, offset: int, num_bytes: int) -> Weight:
    """Raises ModelFileError unless every element lies inside of its file."""
    dtype, item_bytes = DTYPES.get(meta.dtype, ("", 0))
    sizes, strides, start = (
        [_fixed(size, name) for size in meta.sizes],
        [_fixed(stride, name) for stride in meta.strides],
        _fixed(meta.storage_offset, name),
    )
    if not dtype or meta.layout != 7 or len(sizes) != len(strides) or len(sizes) > 64:
        raise ModelFileError(f'"{shown(name)}" is no plain tensor; only plain tensors can be loaded')
    last = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if math.prod(sizes) and (last + 1) * item_bytes > num_bytes:
        raise ModelFileError(f'"{shown(name)}" is larger than its bytes in the archive: cut off, or damaged')
    return Weight(dtype, tuple(sizes), tuple(strides), start, offset, num_bytes)


def _fixed(size: dict[str, Any], name: str) -> int:
    kind, value = only(size)
    if kind != "as_int" or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise ModelFileError(f'the size of "{shown(name)}" is not a number')
    return value


def _inputs(
    specs: list[dict[str, Any]], graph: Graph, spec: GraphSpec, weights: dict[str, Weight]
) -> tuple[dict[str, Weight], tuple[TensorSpec, ...]]:
    """What is put into the graph's inputs: weights by the input's name, and what callers give."""
    bound: dict[str, Weight] = {}
    inputs: list[TensorSpec] = []
    if len(specs) != len(graph.inputs):
        raise ModelFileError("its signature and its graph differ; save it again")
    for item, name in zip(specs, graph.inputs, strict=True):
        kind, value = only(item)
        target = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        if kind in target:
            stored = value.get(target[kind])
            if not isinstance(stored, str) or stored not in weights:
                raise ModelFileError(f'the weight "{shown(str(stored))}" is missing in the archive')
            bound[name] = weights[stored]
        elif kind == "user_input":
            inputs.append(_tensor(name, name, spec))
        else:
            raise ModelFileError(f"its input {shown(name)} is not a tensor; only tensors go in and out")
    return bound, tuple(inputs)


def _outputs(specs: list[dict[str, Any]], spec: GraphSpec, keys: list[str]) -> tuple[TensorSpec, ...]:
    names: list[str] = []
    for item in specs:
        kind, value = only(item)
        if kind.endswith("_mutation"):
            raise keeps_state(str(value.get("buffer_name") or value.get("parameter_name") or "an input"))
        argument, name = only(value.get("arg")) if kind == "user_output" else ("", None)
        if argument != "as_tensor" or not isinstance(name, dict) or not isinstance(name.get("name"), str):
            raise ModelFileError("one of its outputs is not a tensor; only tensors go in and out")
        names.append(name["name"])
    if not names:
        raise ModelFileError("it has no outputs")
    if len(keys) != len(names):
        keys = ["output"] if len(names) == 1 else [f"output_{at}" for at in range(len(names))]
    return tuple(_tensor(key, name, spec) for key, name in zip(keys, names, strict=True))


def _check_writes(graph: Graph, bound: dict[str, Weight]) -> None:
    """What a graph does to its weights without saying so in its signature: the operations whose names end with "_"."""
    for node in graph.nodes:
        name = node.target.split(".")[-2]
        if name.endswith("_") and not name.endswith("__") and node.args and isinstance(node.args[0], Ref):
            place = node.args[0].place
            if place < len(graph.inputs) and graph.inputs[place] in bound:
                raise keeps_state(graph.inputs[place])


def keeps_state(what: str) -> ModelFileError:
    return ModelFileError(
        f'it changes "{shown(what)}" while it runs, and calls must not see each other; '
        "put it into evaluation mode before exporting, and keep no state in it"
    )


def _tensor(called: str, name: str, spec: GraphSpec) -> TensorSpec:
    meta = spec.tensor_values.get(name)
    if meta is None:
        raise ModelFileError(f"its input or output {shown(name)} is not a tensor; only tensors go in and out")
    shape: list[int] = []
    for size in meta.sizes:
        kind, value = only(size)
        shape.append(value if kind == "as_int" and isinstance(value, int) else -1)
    dtype = DTYPES.get(meta.dtype, ("", 0))[0]
    if not dtype or dtype.startswith(("complex", "bfloat", "float8")):
        raise ModelFileError(
            f'"{shown(called)}" is of a type that cannot be sent; use float32 for what goes in and out'
        )
    return TensorSpec(called, dtype, tuple(shape))


def _keys(calls: list[CallSpec]) -> list[str]:
    """The names of the outputs, where the model returns a dictionary of tensors."""
    described = next((call.signature.out_spec for call in calls if not call.fqn and call.signature), "")
    try:
        _, tree = _decoded(described.encode(), tuple[int, OutputTree])
        keys = _decoded(tree.context.encode(), list[str]) if tree.type == "builtins.dict" and tree.context else []
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return []
    leaves = all(not child.children_spec and child.type is None for child in tree.children_spec)
    named = all(0 < len(key) <= 256 for key in keys)
    return keys if named and leaves and len(set(keys)) == len(keys) else []
