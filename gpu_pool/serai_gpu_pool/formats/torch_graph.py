"""A torch.export graph as a list of operations with their arguments, checked and without names. No PyTorch in here.

A value of the graph is known by the number of its place (`Ref`). Operations are PyTorch's own, arithmetic on sizes, and
two that run a graph inside of the graph.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from serai.ipc.messages import TensorSpec
from serai_gpu_pool.formats.base import ModelFileError, shown
from serai_gpu_pool.formats.torch_schema import GraphSpec, NamedArgument, NodeSpec, only

#: Operations of all graphs together: a large language model has some ten thousand.
MAX_NODES = 200_000
#: How deep graphs may lie inside the operations of graphs.
MAX_DEPTH = 8

_ATEN = re.compile(r"torch\.ops\.(aten)\.(\w{1,100})\.(\w{1,100})")
#: Operations of PyTorch that reach files.
_REFUSED = frozenset(("from_file", "save"))
#: Operations that hide from PyTorch what is written to a tensor.
_HIDING = frozenset(("data", "set_data", "set_"))
#: Arithmetic on sizes, from Python's modules `_operator` and `math`, and PyTorch's own.
_PLAIN = frozenset(
    [f"_operator.{name}" for name in (
        "getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "pow", "abs",
        "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "xor", "lshift", "rshift",
    )]
    + [f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")]
    + [f"torch.{name}" for name in ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum")]
)  # fmt: skip
#: Operations that take graphs.
_WITH_GRAPHS = frozenset(("torch.ops.higher_order.cond", "torch.ops.higher_order.wrap_with_set_grad_enabled"))


class Ref(NamedTuple):
    """A value of the graph, by its place."""

    place: int


class Enum(NamedTuple):
    """One of PyTorch's own constants: kind "dtype", "layout", "memory_format" or "device" (wherever that says)."""

    kind: str
    number: int


@dataclass(frozen=True)
class Node:
    """One operation. Arguments hold `Ref`, `Enum`, `Graph`, numbers, text, None, and lists of those."""

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]  # places; None where nothing is kept; a tuple of places for a list of tensors
    is_one: bool  # the result itself is the only output, not the first of several


@dataclass(frozen=True)
class Graph:
    inputs: tuple[str, ...]  # their names; their places are 0, 1, 2, …
    nodes: tuple[Node, ...]
    outputs: tuple[Any, ...]
    num_places: int
    num_nodes: int  # with those of graphs inside


@dataclass(frozen=True)
class Weight:
    """A tensor in the archive: counts of elements, but `offset` and `num_bytes` of its file in bytes."""

    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Program:
    graph: Graph
    weights: dict[str, Weight]  # by the name of the graph's input
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_graph(spec: GraphSpec) -> Graph:
    """Raises ModelFileError for what is not allowed or not well-formed."""
    return _Reader().graph(spec, 0)


class _Reader:
    def __init__(self) -> None:
        self._num_nodes = 0

    def graph(self, spec: GraphSpec, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise ModelFileError(f"graphs nested more than {MAX_DEPTH} deep")
        before = self._num_nodes
        places = _Places()
        inputs = tuple(_name_of(item) for item in spec.inputs)
        for name in inputs:
            places.add(name)
        nodes = tuple(self._node(node, places, depth) for node in spec.nodes)
        outputs = tuple(self._value(item, places, depth) for item in spec.outputs)
        return Graph(inputs, nodes, outputs, places.count, self._num_nodes - before)

    def _node(self, node: NodeSpec, places: "_Places", depth: int) -> Node:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise ModelFileError(f"more than {MAX_NODES:,} operations")
        _check_target(node.target)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in node.inputs:
            value = self._value(argument.arg, places, depth)
            if _is_by_name(argument, node.target, kwargs):
                kwargs[argument.name] = value
            else:
                args.append(value)
        outputs = tuple(_output(item, places) for item in node.outputs)
        is_one = len(outputs) == 1 and not isinstance(outputs[0], tuple)
        if len(outputs) == 1 and isinstance(outputs[0], tuple):
            outputs = outputs[0]
        if node.target.startswith("torch.ops.higher_order."):
            is_one = False
        return Node(node.target, tuple(args), kwargs, outputs, is_one)

    def _value(self, union: Any, places: "_Places", depth: int) -> Any:
        kind, value = only(union)
        if kind == "as_none":
            return None
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return _plain(value)
        if kind in ("as_ints", "as_floats", "as_bools", "as_strings", "as_int_lists", "as_float_lists"):
            return _plain(value, 2)
        if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            return _reference(value, places)
        if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [_reference(item, places) for item in _list(value)]
        if kind == "as_nested_tensors":
            return [[_reference(item, places) for item in _list(inner)] for inner in _list(value)]
        if kind in ("as_optional_tensors", "as_optional_tensor"):
            items = [self._value(item, places, depth) for item in (_list(value) if kind[-1] == "s" else [value])]
            return items if kind[-1] == "s" else items[0]
        if kind in ("as_scalar_type", "as_layout", "as_memory_format") and isinstance(value, int):
            return Enum({"as_scalar_type": "dtype"}.get(kind, kind[3:]), value)
        if kind == "as_device":
            return Enum("device", 0)
        if kind == "as_complex" and isinstance(value, dict):
            return complex(value.get("real", 0.0), value.get("imag", 0.0))
        if kind == "as_graph" and isinstance(value, dict):
            try:
                return self.graph(msgspec.convert(value.get("graph"), GraphSpec), depth + 1)
            except msgspec.ValidationError as error:
                raise ModelFileError(f"a graph inside of its graph is damaged: {error}") from None
        raise ModelFileError(f"its graph uses a value of kind {shown(kind)}, which cannot be run")


class _Places:
    """Numbers for the names of one graph."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self.count = 0

    def add(self, name: str) -> int:
        if name in self._of:
            raise ModelFileError(f"two values of its graph are called {shown(name)}")
        self._of[name] = self.count
        self.count += 1
        return self._of[name]

    def find(self, name: str) -> Ref:
        try:
            return Ref(self._of[name])
        except KeyError:
            raise ModelFileError(f"its graph uses {shown(name)} before it is made") from None


def _check_target(target: str) -> None:
    if target in _PLAIN or target in _WITH_GRAPHS:
        return
    found = _ATEN.fullmatch(target)
    if found is None:
        raise ModelFileError(
            f"operation {shown(target)} cannot be run here: only PyTorch's own (torch.ops.aten), "
            "cond, and arithmetic on sizes"
        )
    if found[2] in _REFUSED:
        raise ModelFileError(f"operation {shown(target)} is not allowed: models may not reach files")
    if found[2] in _HIDING:
        raise ModelFileError(f"operation {shown(target)} is not allowed: models may not keep state")


def _is_by_name(argument: NamedArgument, target: str, kwargs: dict[str, Any]) -> bool:
    if argument.kind == 1 or not argument.name or target in _WITH_GRAPHS or target in _PLAIN:
        if kwargs:
            raise ModelFileError(f"the arguments of {shown(target)} are in no order")
        return False
    if argument.kind != 2 or not argument.name.isidentifier() or argument.name in kwargs:
        raise ModelFileError(f"the arguments of {shown(target)} are damaged, or of an older PyTorch; save it again")
    return True


def _output(union: Any, places: _Places) -> Any:
    kind, value = only(union)
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        name = _text(value)
        return places.add(name) if name is not None else None
    if kind in ("as_tensors", "as_sym_ints"):
        return tuple(places.add(_text(item) or "") for item in _list(value))
    raise ModelFileError(f"an operation gives a result of kind {shown(kind)}, which cannot be kept")


def _name_of(union: Any) -> str:
    kind, value = only(union)
    name = _text(value) if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool") else None
    if not name:
        raise ModelFileError("an input of its graph is not a tensor; only tensors go in and out")
    return name


def _text(value: Any) -> str | None:
    """The name in a reference, or None where a number stands in its place."""
    if isinstance(value, dict):
        name = value.get("name", value.get("as_name"))
        if isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable():
            return name
        if set(value) <= {"as_int", "as_float", "as_bool"}:
            return None
    raise ModelFileError("a value of its graph has no name")


def _reference(value: Any, places: _Places) -> Any:
    name = _text(value)
    return places.find(name) if name is not None else _plain(next(iter(value.values())))


def _plain(value: Any, depth: int = 0) -> Any:
    """A number, a truth value or a text, or lists of them."""
    if isinstance(value, str) and len(value) > 10_000:
        raise ModelFileError("a text in its graph is longer than 10,000 characters")
    if isinstance(value, list) and depth:
        return [_plain(item, depth - 1) for item in value]
    if not isinstance(value, int | float | str | bool):
        raise ModelFileError("a value of its graph is not what it says")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ModelFileError("a list of its graph is none")
    return value
