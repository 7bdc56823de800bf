"""What an ONNX file is and wants, read without a library that could act on it.

Answers whether the file may run here (one self-contained file, operators from an allowlist, no embedded engine or
session configuration) and what its inputs and outputs are. That it computes anything is for the pool to find out.
"""

from typing import NamedTuple

from serai_gpu_pool.formats.base import MAX_TENSORS, ModelFileError, Tensor, shown
from serai_gpu_pool.formats.protobuf import VARINT, NotProtobuf, Walk, message, signed, string

#: Fields looked at: about 100,000 nodes. Half a minute of walking at the very most; real models have a few thousand.
MAX_FIELDS = 5_000_000
#: How deep graphs may lie inside the nodes of graphs.
MAX_GRAPH_DEPTH = 16
#: Nodes of all graphs: fifty times a large language model.
MAX_NODES = 500_000
#: Newest file format and newest ONNX operators that ONNX Runtime 1.31 runs; both grow with its releases.
MAX_IR_VERSION = 13
MAX_OPSET = 26

#: Where operators may come from. Others are custom: code that the file expects somebody to load.
DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})
#: Operators inside these domains that carry native code or an engine of their own.
REFUSED_OPERATORS = frozenset({("com.microsoft", "EPContext"), ("com.microsoft", "PyOp")})
#: Keys of the file's metadata that onnxruntime may take session settings from.
REFUSED_METADATA = frozenset({"ort_config", "session.load_model_format"})

#: TensorProto.DataType, by NumPy's names.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1fn",
}  # fmt: skip


class OnnxFile(NamedTuple):
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opsets: dict[str, int]
    num_nodes: int


def read_onnx(data: memoryview) -> OnnxFile:
    """Raises ModelFileError with what is wrong."""
    if not data:
        raise ModelFileError("the file is empty")
    try:
        return _Reader().model(data)
    except NotProtobuf as error:
        raise ModelFileError(f"not an ONNX file, or a damaged one: {error}") from None


class _Reader:
    def __init__(self) -> None:
        self._fields = Walk(MAX_FIELDS).fields
        self._num_nodes = 0

    def model(self, data: memoryview) -> OnnxFile:
        graphs: list[memoryview] = []
        opsets: dict[str, int] = {}
        ir_version = 0
        for number, _, value in self._fields(data):
            if number == 1 and isinstance(value, int):
                ir_version = value
            elif number == 7:
                graphs.append(message(value))
            elif number == 8:
                domain, version = self._opset(message(value))
                opsets[domain] = version
            elif number == 14:
                self._metadata(message(value))
            elif number == 20:
                raise ModelFileError("it carries a graph for training; export it for inference")
            elif number == 25:
                raise ModelFileError(
                    "it has functions of its own; inline them: model = onnx.inliner.inline_local_functions(model)"
                )
        if not ir_version or len(graphs) != 1 or not opsets:
            raise ModelFileError("not an ONNX file, or a damaged one: no version, graph or operator set")
        _check_versions(ir_version, opsets)
        inputs, outputs = self._graph(graphs[0], 0)
        if not outputs:
            raise ModelFileError("it has no outputs")
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise ModelFileError(f"more than {MAX_TENSORS} inputs and outputs")
        return OnnxFile(inputs, outputs, opsets, self._num_nodes)

    def _opset(self, data: memoryview) -> tuple[str, int]:
        domain, version = "", 0
        for number, _, value in self._fields(data):
            if number == 1:
                domain = string(value)
            elif number == 2 and isinstance(value, int):
                version = signed(value)
        return domain, version

    def _metadata(self, data: memoryview) -> None:
        for number, _, value in self._fields(data):
            if number == 1 and string(value) in REFUSED_METADATA:
                raise ModelFileError(f'its metadata "{string(value)}" would configure the runtime; remove it')

    def _graph(self, data: memoryview, depth: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        if depth > MAX_GRAPH_DEPTH:
            raise ModelFileError(f"graphs nested more than {MAX_GRAPH_DEPTH} deep")
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        constants: set[str] = set()
        for number, _, value in self._fields(data):
            if number == 1:
                self._node(message(value), depth)
            elif number == 5:
                constants.add(self._tensor(message(value)))
            elif number == 11 and depth == 0:
                inputs.append(self._value_info(message(value)))
            elif number == 12 and depth == 0:
                outputs.append(self._value_info(message(value)))
            elif number == 15:
                self._sparse_tensor(message(value))
        # Old files list every constant among the inputs.
        return tuple(item for item in inputs if item.name not in constants), tuple(outputs)

    def _node(self, data: memoryview, depth: int) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise ModelFileError(f"more than {MAX_NODES:,} nodes")
        name = domain = ""
        for number, _, value in self._fields(data):
            if number == 4:
                name = string(value)
            elif number == 7:
                domain = string(value)
            elif number == 5:
                self._attribute(message(value), depth)
        domain = "" if domain == "ai.onnx" else domain
        if (domain, name) in REFUSED_OPERATORS:
            raise ModelFileError(f"operator {domain}.{name} is not allowed: it carries native code")
        if domain not in DOMAINS:
            raise ModelFileError(f"operator {shown(domain)}.{shown(name)} is not allowed: custom operators do not run")

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, _, value in self._fields(data):
            if number in (5, 10):
                self._tensor(message(value))
            elif number in (6, 11):
                self._graph(message(value), depth + 1)
            elif number in (22, 23):
                self._sparse_tensor(message(value))

    def _sparse_tensor(self, data: memoryview) -> None:
        for number, _, value in self._fields(data):
            if number in (1, 2):
                self._tensor(message(value))

    def _tensor(self, data: memoryview) -> str:
        """The tensor's name. What it holds is not looked at."""
        name = ""
        for number, _, value in self._fields(data):
            if number == 8:
                name = string(value)
            elif number == 13 or (number == 14 and value):
                raise ModelFileError("its weights are in other files; save it as one file (onnx.save_model does)")
        return name

    def _value_info(self, data: memoryview) -> Tensor:
        name, dtype, shape = "", "", None
        for number, _, value in self._fields(data):
            if number == 1:
                name = string(value)
            elif number == 2:
                dtype, shape = self._type(message(value))
        if not dtype:
            raise ModelFileError(f"input or output {shown(name)} is not a tensor; only tensors go in and out")
        return Tensor(name, dtype, shape)

    def _type(self, data: memoryview) -> tuple[str, tuple[int | str, ...] | None]:
        dtype, shape = "", None
        for number, _, value in self._fields(data):
            if number != 1:  # sequences, maps and optionals have other numbers
                continue
            for inner, _, part in self._fields(message(value)):
                if inner == 1 and isinstance(part, int):
                    dtype = DTYPES.get(part, "")
                elif inner == 2:
                    shape = self._shape(message(part))
        return dtype, shape

    def _shape(self, data: memoryview) -> tuple[int | str, ...]:
        return tuple(self._dimension(message(value)) for number, _, value in self._fields(data) if number == 1)

    def _dimension(self, data: memoryview) -> int | str:
        size: int | str = ""
        for number, wire_type, value in self._fields(data):
            if number == 1 and wire_type == VARINT and isinstance(value, int):
                # Negative sizes are how some exporters write "any".
                size = signed(value) if signed(value) >= 0 else ""
            elif number == 2:
                size = string(value)
        return size


def _check_versions(ir_version: int, opsets: dict[str, int]) -> None:
    """Raises ModelFileError for a file newer than the runtime: it would be refused at every call."""
    has: list[str] = []
    changes: list[str] = []
    opset = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
    if opset > MAX_OPSET:
        has.append(f"opset {opset}")
        changes.append(f"model = onnx.version_converter.convert_version(model, {MAX_OPSET})")
    if ir_version > MAX_IR_VERSION:
        has.append(f"IR version {ir_version}")
        changes.append(f"model.ir_version = {MAX_IR_VERSION}")
    if has:
        raise ModelFileError(
            f"it has {' and '.join(has)}; this server's ONNX Runtime runs opset {MAX_OPSET} and IR version "
            f"{MAX_IR_VERSION} at most: export it for these, or before saving: {'; '.join(changes)}"
        )
