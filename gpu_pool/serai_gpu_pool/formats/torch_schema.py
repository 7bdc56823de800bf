"""The JSON of a torch.export graph, as far as it is needed to run it. Fields that are not named here are not read."""

from typing import Any

import msgspec

from serai_gpu_pool.formats.base import ModelFileError

#: ScalarType of the schema: NumPy's name, or PyTorch's where NumPy has none; bytes of one element.
DTYPES: dict[int, tuple[str, int]] = {
    1: ("uint8", 1), 2: ("int8", 1), 3: ("int16", 2), 4: ("int32", 4), 5: ("int64", 8), 6: ("float16", 2),
    7: ("float32", 4), 8: ("float64", 8), 10: ("complex64", 8), 11: ("complex128", 16), 12: ("bool", 1),
    13: ("bfloat16", 2), 28: ("uint16", 2), 29: ("float8_e4m3fn", 1), 30: ("float8_e5m2", 1), 34: ("uint32", 4),
    35: ("uint64", 8),
}  # fmt: skip

#: One of several things: an object with a single field that says which.
Union = dict[str, Any]


class TensorMeta(msgspec.Struct):
    dtype: int
    sizes: list[Union]
    strides: list[Union]
    storage_offset: Union
    layout: int


class NamedArgument(msgspec.Struct):
    name: str
    arg: Union
    kind: int | None = None  # 1: by position, 2: by name


class NodeSpec(msgspec.Struct):
    target: str
    inputs: list[NamedArgument]
    outputs: list[Union]


class GraphSpec(msgspec.Struct):
    inputs: list[Union]
    outputs: list[Union]
    nodes: list[NodeSpec]
    tensor_values: dict[str, TensorMeta]


class SignatureSpec(msgspec.Struct):
    input_specs: list[Union]
    output_specs: list[Union]


class CallSignature(msgspec.Struct):
    out_spec: str  # JSON: a version, and an `OutputTree`


class CallSpec(msgspec.Struct):
    fqn: str
    signature: CallSignature | None = None


class OutputTree(msgspec.Struct):
    """How outputs are put together. `context`: for a dictionary its keys, as JSON."""

    type: str | None
    context: str | None
    children_spec: list["OutputTree"]


class ModuleSpec(msgspec.Struct):
    graph: GraphSpec
    signature: SignatureSpec
    module_call_graph: list[CallSpec] = []


class SchemaVersion(msgspec.Struct):
    major: int
    minor: int


class ExportedProgram(msgspec.Struct):
    graph_module: ModuleSpec
    schema_version: SchemaVersion


class Payload(msgspec.Struct):
    path_name: str
    use_pickle: bool
    tensor_meta: TensorMeta | None


class Payloads(msgspec.Struct):
    config: dict[str, Payload]


def only(union: Any) -> tuple[str, Any]:
    """Which of several things it is, and the thing. Raises ModelFileError."""
    if not isinstance(union, dict) or len(union) != 1:
        raise ModelFileError("its graph is not as torch.export writes it: a value of no kind, or of several")
    ((kind, value),) = union.items()
    return kind, value
