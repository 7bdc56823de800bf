"""What a PyTorch model may remember from one call to the next: nothing, or one caller would read of another."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats.base import ModelFileError, shown

#: Operations of "aten" that give the memory of a tensor, without PyTorch counting what is then written there.
UNSAFE_VIEWS = frozenset(("_unsafe_view", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"))
#: How operations call it that they work out statistics anew, and write them to those that they are given.
NORMALISING_FLAGS = ("training", "train", "use_input_stats")

#: The same in TorchScript, and what puts other memory into a tensor.
_UNCOUNTED = frozenset(
    ("prim::data", "aten::data", "aten::set_data", "aten::set_", *(f"aten::{name}" for name in UNSAFE_VIEWS))
)
#: They outlive the call. The text of a program is searched for their names as well.
_LATER = frozenset(
    ("prim::fork", "aten::wait", "prim::awaitable", "prim::awaitable_wait", "prim::awaitable_nowait",
     "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote")
)  # fmt: skip
#: They change lists and dictionaries.
_CHANGES = frozenset(
    ("aten::append", "aten::extend", "aten::insert", "aten::remove", "aten::pop", "aten::popitem", "aten::clear",
     "aten::reverse", "aten::sort", "aten::_set_item", "aten::Delete", "aten::update", "aten::setdefault")
)  # fmt: skip
#: Statistics of a normalisation are rows. Tensors of as few elements are compared after each run in any shape.
_MAX_STATISTICS = 64


class Unchanged:
    """Watches tensors that no run may change: PyTorch counts what is written to each."""

    def __init__(self, tensors: dict[str, torch.Tensor], compared: Sequence[torch.Tensor] = ()) -> None:
        """`compared`: tensors that are written to without being counted."""
        self._names, self._tensors = list(tensors), list(tensors.values())
        self._compared = list(compared)
        self._broken = ""
        self.renew()

    def renew(self) -> None:
        """As they are now they are right."""
        self._versions = self._now()
        self._views = [_flat(tensor) for tensor in self._compared]
        self._content = self._bytes()

    @contextmanager
    def during_a_run(self) -> Iterator[None]:
        """Raises ModelRunError from the first change on, for good: what is remembered can only be got rid of by
        opening the model again, and nobody may see it until then."""
        self._check()
        try:
            yield
        finally:
            self._find()
            self._check()

    def _find(self) -> None:
        now = self._now()
        if now != self._versions and not self._broken:
            self._broken = next(
                name for name, *two in zip(self._names, now, self._versions, strict=True) if two[0] != two[1]
            )
        if self._content is not None and not self._broken and not torch.equal(self._content, self._bytes()):
            self._broken = "the statistics of a normalisation"

    def _check(self) -> None:
        if self._broken:
            raise ModelRunError(
                f"the model changes its own weights while it runs ({shown(self._broken)}); "
                "export it in evaluation mode and without state",
                keeps_state=True,
            )

    def _now(self) -> list[int]:
        return [tensor._version for tensor in self._tensors]

    def _bytes(self) -> Any:
        return torch.cat(self._views) if self._views else None


class ScriptState:
    """What a scripted module could remember: tensors, which are watched; and attributes, which are put back."""

    def __init__(self, module: Any, functions: Iterable[Any]) -> None:
        """`functions`: all that the module's file brings. Raises ModelFileError."""
        graphs = [function.graph for function in functions]
        kinds = {node.kind() for graph in graphs for node in _nodes(graph)}
        for kind in sorted(kinds & (_UNCOUNTED | _LATER)):
            raise ModelFileError(f"its program uses {kind}: models may neither go on after their call nor keep state")
        self._tensors = dict([*module.named_parameters(), *module.named_buffers()])
        self._kept: list[tuple[Any, str, Any]] = []
        assigned = {node.s("name") for graph in graphs for node in graph.findAllNodes("prim::SetAttr")}
        modules = list(module.named_modules())
        parts = {one._c._type().qualified_name() for _, one in modules}
        read = {
            node.s("name")
            for graph in graphs
            for node in graph.findAllNodes("prim::GetAttr")
            if not (node.output().type().kind() == "ClassType" and node.output().type().qualified_name() in parts)
        }
        for path, one in modules:
            for name in sorted(read | assigned):
                if one._c.hasattr(name):
                    self._take(f"{path}.{name}".lstrip("."), one._c, name, name in assigned, bool(kinds & _CHANGES))
        for at, graph in enumerate(graphs):
            for number, node in enumerate(graph.findAllNodes("prim::Constant")):
                if node.output().type().kind() == "TensorType" and node.hasAttribute("value"):
                    self._tensors[f"constant {at}.{number}"] = node.t("value")
        self._lock = threading.Lock()
        may_normalise = any(_is_normalising(node) for graph in graphs for node in _nodes(graph))
        self._compared = list(filter(_may_be_statistics, self._tensors.values())) if may_normalise else []

    def watch(self) -> Unchanged:
        return Unchanged(self._tensors, self._compared)

    def run(self, call: Callable[[], Any]) -> Any:
        if not self._kept:
            return call()
        with self._lock:
            try:
                return call()
            finally:
                for owner, name, value in self._kept:
                    owner.setattr(name, value)

    def _take(self, path: str, owner: Any, name: str, is_assigned: bool, changes: bool) -> None:
        value = owner.getattr(name)
        if isinstance(value, torch._C.ScriptModule):
            return
        if isinstance(value, torch._C.ScriptObject) or hasattr(value, "_c"):
            raise ModelFileError(f'"{shown(path)}" is an object of a class of its own, which calls could change')
        for number, tensor in enumerate(_tensors(value)):
            self._tensors.setdefault(path if number == 0 else f"{path}.{number}", tensor)
        if is_assigned or (changes and isinstance(value, list | dict)):
            self._kept.append((owner, name, value))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().view(-1).view(torch.uint8)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_normalising(node: Any) -> bool:
    """Whether it may write to the statistics that it is given, of which its schema says nothing."""
    schema = node.schema()
    if "running_mean" not in schema or schema == "(no schema)":
        return False
    names = [argument.name for argument in torch._C.parse_schema(schema).arguments]
    flags = [value for name, value in zip(names, node.inputs(), strict=False) if name in NORMALISING_FLAGS]
    return not flags or any(flag.toIValue() is not False for flag in flags)


def _may_be_statistics(tensor: torch.Tensor) -> bool:
    is_row = tensor.numel() == max(tensor.shape, default=1)
    return tensor.is_contiguous() and tensor.numel() > 0 and (is_row or tensor.numel() <= _MAX_STATISTICS)
