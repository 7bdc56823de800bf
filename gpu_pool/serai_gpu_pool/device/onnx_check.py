"""May this ONNX file be loaded? Answered from its bytes alone, before any library sees it.

A walk over the protobuf that looks at names and skips weights. Refused are files that reach outside of themselves
(external data), operators from domains we do not know or that embed native code, and files built to be expensive.
Every occurrence of a field counts, so a file cannot mean one thing here and another to the real parser.
"""

from collections.abc import Iterator

from serai_gpu_pool.formats.base import ModelFileError

#: Operators may come from here; the custom domains of other runtimes are native code.
_DOMAINS = frozenset((b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"))
#: In an allowed domain, but a container for foreign code.
_FORBIDDEN = frozenset((b"EPContext", b"PythonOp", b"PythonOpGrad", b"ATen", b"ATenGrad"))
#: The largest published models have some ten thousand nodes; each costs memory and time before anything runs.
_MAX_NODES = 200_000
#: Fields looked at in all: bounds the time of this walk, which holds up the interpreter.
_MAX_FIELDS = 4_000_000
#: Graphs within graphs (If, Loop, Scan).
_MAX_DEPTH = 16

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS, _MODEL_TRAINING = 7, 25, 20
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


def check_onnx(data: bytes | memoryview) -> None:
    """Raises ModelFileError."""
    walk = Walk(memoryview(data))
    walk.model()
    if not walk.num_graphs:
        raise ModelFileError("the file is not an ONNX model: it has no graph")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelFileError("the file is not an ONNX model: broken number")


class Walk:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fields = 0
        self._nodes = 0
        self.num_graphs = 0

    def _each(self, data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
        """Field numbers and values of one message: an int, or the bytes of what has a length."""
        at, end = 0, len(data)
        try:
            while at < end:
                self._fields += 1
                if self._fields > _MAX_FIELDS:
                    raise ModelFileError(f"the model has more than {_MAX_FIELDS} fields")
                key, at = _varint(data, at)
                wire = key & 7
                if wire == 2:
                    length, at = _varint(data, at)
                    if length > end - at:
                        raise ModelFileError("the file is not an ONNX model: it ends too early")
                    yield key >> 3, data[at : at + length]
                    at += length
                elif wire == 0:
                    value, at = _varint(data, at)
                    yield key >> 3, value
                elif wire in (1, 5):
                    at += 8 if wire == 1 else 4
                    if at > end:
                        raise ModelFileError("the file is not an ONNX model: it ends too early")
                else:
                    raise ModelFileError("the file is not an ONNX model: unknown wire type")
        except IndexError:
            raise ModelFileError("the file is not an ONNX model: it ends too early") from None

    def _messages(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        for number, value in self._each(data):
            if not isinstance(value, int):
                yield number, value

    def model(self) -> None:
        fields = list(self._messages(self._data))
        for number, _ in fields:
            if number == _MODEL_FUNCTIONS:
                raise ModelFileError(
                    "the model has functions of its own: inline them (onnx.inliner.inline_local_functions)"
                )
            if number == _MODEL_TRAINING:
                raise ModelFileError("the model carries training information: export it for inference")
        for number, value in fields:
            if number == _MODEL_GRAPH:
                self._graph(value, 0)

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"graphs are nested more than {_MAX_DEPTH} deep")
        self.num_graphs += 1
        for number, value in self._messages(data):
            if number == _GRAPH_NODE:
                self._node(value, depth)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(value)
            elif number == _GRAPH_SPARSE:
                self._sparse(value)

    def _node(self, data: memoryview, depth: int) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise ModelFileError(f"the model has more than {_MAX_NODES} nodes")
        for number, value in self._messages(data):
            if number == _NODE_OP:
                if bytes(value) in _FORBIDDEN:
                    raise ModelFileError(f"operator {_text(value)} is not allowed: it holds code of its own")
            elif number == _NODE_DOMAIN:
                if bytes(value) not in _DOMAINS:
                    raise ModelFileError(f'operators of domain "{_text(value)}" are not allowed')
            elif number == _NODE_ATTRIBUTE:
                self._attribute(value, depth)

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in self._messages(data):
            if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(value)
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(value, depth + 1)
            elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                self._sparse(value)

    def _sparse(self, data: memoryview) -> None:
        for number, value in self._messages(data):
            if number in (_SPARSE_VALUES, _SPARSE_INDICES):
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        for number, value in self._each(data):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
                raise ModelFileError(
                    "the model keeps weights in another file: save it as a single file "
                    "(onnx.save_model(model, path, save_as_external_data=False))"
                )


def _text(name: memoryview) -> str:
    return bytes(name[:64]).decode("utf-8", "replace")
