"""Runs a torch.export graph: PyTorch's operations one after the other, as the graph lists them.

PyTorch's own loader is not used. It unpickles parts of the archive, evaluates expressions of the file as Python and
generates source from its names; and it takes hundreds of milliseconds and a compiler's worth of imports to do so.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch

from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.formats.torch_export import keeps_state
from serai_gpu_pool.formats.torch_graph import Enum, Graph, Node, Program, Ref
from serai_gpu_pool.frameworks.torch_state import NORMALISING_FLAGS, UNSAFE_VIEWS, Unchanged

_LAYOUTS = {7: torch.strided}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
#: ScalarType of the schema.
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
    28: torch.uint16, 34: torch.uint32, 35: torch.uint64,
}  # fmt: skip
_MODULES = {"_operator": operator, "math": math, "torch": torch}


class GraphRunner:
    """One program, ready to run. Runs may overlap: each has its own values."""

    def __init__(self, program: Program, device: torch.device) -> None:
        """Raises ModelFileError for an operation that this PyTorch does not have."""
        self._graph = _Compiled(program.graph, device)
        self._names = program.graph.inputs
        _check_writes(program.graph, {at for at, name in enumerate(self._names) if name in program.weights})
        self._weights: dict[str, torch.Tensor] = {}
        self._unchanged = Unchanged({})

    def bind(self, weights: dict[str, torch.Tensor]) -> None:
        """Use these tensors as the graph's weights from now on."""
        self._weights = weights
        self._unchanged = Unchanged(weights)

    def run(self, inputs: dict[str, torch.Tensor]) -> list[Any]:
        """The outputs in their order. Raises ModelRunError, and what PyTorch raises."""
        weights = self._weights
        with self._unchanged.during_a_run():
            return self._graph.run([weights[name] if name in weights else inputs[name] for name in self._names])


class _Step:
    """One operation, with the places of its arguments worked out."""

    __slots__ = ("args", "done_with", "function", "is_one", "kwargs", "nested", "outputs", "refs")

    def __init__(self, node: Node, device: torch.device) -> None:
        self.function = _function(node.target, device)
        self.args = [_constant(value, device) for value in node.args]
        self.kwargs = {name: _constant(value, device) for name, value in node.kwargs.items()}
        # Most arguments are plain values or constants: those inside of lists are looked for only where there are any.
        self.refs = [(at, value.place) for at, value in enumerate(self.args) if isinstance(value, Ref)]
        self.nested = [at for at, value in enumerate(self.args) if isinstance(value, list) and _has_refs(value)]
        self.outputs = node.outputs
        self.is_one = node.is_one
        self.done_with: tuple[int, ...] = ()

    def run(self, values: list[Any]) -> None:
        args = self.args
        if self.refs or self.nested:
            args = args.copy()
            for at, place in self.refs:
                args[at] = values[place]
            for at in self.nested:
                args[at] = _filled(args[at], values)
        kwargs = {name: _filled(value, values) for name, value in self.kwargs.items()} if self.kwargs else self.kwargs
        result = self.function(*args, **kwargs)
        if self.is_one:
            if self.outputs[0] is not None:
                values[self.outputs[0]] = result
        else:
            _keep(self.outputs, result, values)
        for place in self.done_with:
            values[place] = None


class _Compiled:
    def __init__(self, graph: Graph, device: torch.device) -> None:
        self._num_inputs = len(graph.inputs)
        self._room = graph.num_places - self._num_inputs
        self._steps = [_Step(node, device) for node in graph.nodes]
        self._outputs = list(graph.outputs)
        self._forget_early(graph)

    def _forget_early(self, graph: Graph) -> None:
        """Each value is let go after its last use, as a Python function would."""
        last: dict[int, int] = {}
        for at, node in enumerate(graph.nodes):
            for place in (*_places((*node.args, *node.kwargs.values())), *_flat(node.outputs)):
                last[place] = at
        kept = set(_places(graph.outputs)) | set(range(self._num_inputs))
        by_step: dict[int, list[int]] = {}
        for place, at in last.items():
            if place not in kept:
                by_step.setdefault(at, []).append(place)
        for at, places in by_step.items():
            self._steps[at].done_with = tuple(places)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) != self._num_inputs:
            raise RuntimeError(f"a graph with {self._num_inputs} inputs was given {len(inputs)}")
        values = [*inputs, *[None] * self._room]
        for step in self._steps:
            step.run(values)
        return _filled(self._outputs, values)


def _function(target: str, device: torch.device) -> Any:
    kind, *path = target.split(".")
    if target == "torch.ops.higher_order.cond":
        return _choose
    if target == "torch.ops.higher_order.wrap_with_set_grad_enabled":
        return _run_inside
    if len(path) == 4:
        packet = getattr(torch.ops.aten, path[2], None)
        function = getattr(packet, path[3], None)
        if not isinstance(function, torch._ops.OpOverload):
            raise ModelFileError(f"this version of PyTorch ({torch.__version__}) has no operation {target}")
        return function
    return getattr(_MODULES[kind], path[0])


def _check_writes(graph: Graph, weights: set[int]) -> None:
    """Raises ModelFileError where an operation writes to a weight, or to something that looks at one.

    `weights`: places of inputs that are weights.
    """
    looking = set(weights)
    for node in graph.nodes:
        found = getattr(torch.ops.aten, node.target.split(".")[-2], None)
        function = getattr(found, node.target.split(".")[-1], None)
        if not isinstance(function, torch._ops.OpOverload):
            _check_inside(node, looking)
            continue
        given = dict(zip([argument.name for argument in function._schema.arguments], node.args, strict=False))
        given |= node.kwargs
        if statistics := looking & set(_places(_statistics(function, given))):
            raise keeps_state(_name(graph, min(statistics)))
        if node.target.split(".")[-2] in UNSAFE_VIEWS and looking & set(_places(node.args)):
            looking.update(_flat(node.outputs))
        aliases: set[str] = set()
        for argument in function._schema.arguments:
            touched = looking & set(_places([given.get(argument.name)]))
            if touched and argument.alias_info is not None:
                if argument.alias_info.is_write:
                    raise keeps_state(_name(graph, min(touched)))
                aliases |= argument.alias_info.before_set
        returns = function._schema.returns
        results = [_flat(node.outputs)] if len(returns) == 1 else [_flat([place]) for place in node.outputs]
        for result, outputs in zip(returns, results, strict=False):
            if result.alias_info is not None and aliases & result.alias_info.before_set:
                looking.update(outputs)


def _statistics(function: Any, given: dict[str, Any]) -> list[Any]:
    """Arguments that a normalisation writes to without its schema saying so."""
    flags = [argument for argument in function._schema.arguments if argument.name in NORMALISING_FLAGS]
    if flags and all(given.get(flag.name, flag.default_value) is False for flag in flags):
        return []
    return [given.get("running_mean"), given.get("running_var")]


def _check_inside(node: Node, looking: set[int]) -> None:
    """The graphs that an operation runs: what it hands them counts, all of it if one does."""
    operands = [value for value in node.args if not isinstance(value, Graph)]
    if looking & set(_places(operands)):
        for value in node.args:
            if isinstance(value, Graph):
                _check_writes(value, set(range(len(value.inputs))))
        looking.update(_flat(node.outputs))


def _name(graph: Graph, place: int) -> str:
    return graph.inputs[place] if place < len(graph.inputs) else "a weight"


def _choose(condition: Any, if_true: _Compiled, if_false: _Compiled, operands: Sequence[Any] = ()) -> Any:
    return (if_true if bool(condition) else if_false).run(operands)


def _run_inside(_: bool, graph: _Compiled, *operands: Any) -> Any:
    return graph.run(operands)  # gradients are off anyway


def _constant(value: Any, device: torch.device) -> Any:
    """An argument as PyTorch takes it; what depends on values of the run stays a `Ref`."""
    if isinstance(value, Enum):
        if value.kind == "device":
            return device  # wherever it was exported, it runs here
        table: dict[int, Any] = {"dtype": _DTYPES, "layout": _LAYOUTS, "memory_format": _MEMORY_FORMATS}[value.kind]
        if value.number not in table:
            raise ModelFileError(f"a {value.kind} that cannot be run here (number {value.number})")
        return table[value.number]
    if isinstance(value, Graph):
        return _Compiled(value, device)
    if isinstance(value, list):
        return [_constant(item, device) for item in value]
    return value


def _has_refs(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, list) and any(map(_has_refs, value)))


def _filled(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.place]
    return [_filled(item, values) for item in value] if isinstance(value, list) else value


def _keep(outputs: Sequence[Any], result: Any, values: list[Any]) -> None:
    if not isinstance(result, tuple | list) or len(result) != len(outputs):
        raise RuntimeError("an operation gave another number of results than the graph says")
    for place, item in zip(outputs, result, strict=True):
        if isinstance(place, tuple):
            _keep(place, item, values)
        elif place is not None:
            values[place] = item


def _places(values: Any) -> list[int]:
    """Every place that is referred to anywhere in a list of arguments."""
    found: list[int] = []
    for value in values:
        if isinstance(value, Ref):
            found.append(value.place)
        elif isinstance(value, list | tuple) and not isinstance(value, Enum):
            found += _places(value)
    return found


def _flat(outputs: Sequence[Any]) -> list[int]:
    """Every place that results are put into."""
    found: list[int] = []
    for place in outputs:
        found += _flat(place) if isinstance(place, tuple) else [] if place is None else [place]
    return found
