"""TorchScript modules, and where in the published file their weights are."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.jit._recursive import wrap_cpp_module

from serai_gpu_pool.formats.zip_file import ZipFile
from serai_gpu_pool.frameworks.torch_state import ScriptState
from serai_gpu_pool.frameworks.weights import Block, strided


class Script:
    """A loaded module whose weights can be put elsewhere."""

    def __init__(
        self, module: Any, state: ScriptState, blocks: Sequence[Block], users: Sequence[list[torch.Tensor]]
    ) -> None:
        self._module = module
        self._state = state
        self._unchanged = state.watch()
        self.blocks = list(blocks)
        # For each block the parameters and buffers that look at it, and from which element on.
        self._users = [[(tensor, int(tensor.storage_offset())) for tensor in those] for those in users]

    def run(self, *inputs: torch.Tensor) -> Any:
        with self._unchanged.during_a_run():
            return self._state.run(lambda: self._module(*inputs))

    def bind(self, places: Sequence[torch.Tensor]) -> None:
        """Let parameters and buffers look at these bytes instead of at theirs."""
        for place, users in zip(places, self._users, strict=True):
            for tensor, start in users:
                tensor.data = strided(place, tensor.dtype, tensor.size(), tensor.stride(), start)
        self._unchanged.renew()


def load_script(path: str, device: torch.device, data: memoryview) -> Script:
    """Load a checked TorchScript file. Raises ModelFileError, and what PyTorch raises.

    `data`: the same file. Its weights are found by their content, because the table that says which is which is
    pickled, and only PyTorch's C++ reads it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch would rather have everybody use torch.export
        # As torch.jit.load does it, which does not tell what functions there are.
        unit: Any = torch._C.CompilationUnit()
        read: Any = torch._C.import_ir_module
        content = read(unit, path, device, {}, False)
        module: Any = wrap_cpp_module(content)
    module.train(False)
    state = ScriptState(module, unit.get_functions())
    tensors = [*module.parameters(), *module.buffers()]
    storages: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        tensor.requires_grad_(False)
        if tensor.layout == torch.strided and tensor.untyped_storage().nbytes():
            storages.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    places = _Places(data)
    found = [(places.find(users[0]), users) for users in storages.values()]
    pairs = [(block, users) for block, users in found if block is not None]
    return Script(module, state, [block for block, _ in pairs], [users for _, users in pairs])


class _Places:
    """The blocks of weights in a file, by their size."""

    def __init__(self, data: memoryview) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._of_size: dict[int, list[Block]] = {}
        for member in ZipFile(data).members.values():
            # Weights lie at multiples of 64; where another program has moved them they stay PyTorch's own.
            if "/data/" in member.name and not member.is_packed and member.offset % 16 == 0:
                self._of_size.setdefault(member.num_bytes, []).append(Block(member.offset, member.num_bytes))

    def find(self, tensor: torch.Tensor) -> Block | None:
        storage = tensor.untyped_storage().cpu()
        content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # pyright: ignore[reportArgumentType]
        for block in self._of_size.get(storage.nbytes(), ()):
            if np.array_equal(self._data[block.offset : block.offset + block.num_bytes], content):
                return block
        return None
