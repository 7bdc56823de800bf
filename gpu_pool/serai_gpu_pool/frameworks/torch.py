"""PyTorch: TorchScript files and torch.export archives, on the CPU or on a CUDA device.

Neither is unpickled in Python: TorchScript is read by PyTorch's own C++, an exported graph by `formats.torch_export`.
On the CPU, weights are pages of the published file; on a GPU they lie in an arena that all models share.
"""

import errno
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device.process_control import resident_bytes, return_free_memory
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.formats.sniff import sniff
from serai_gpu_pool.formats.torch_export import read_program
from serai_gpu_pool.formats.torch_graph import Weight
from serai_gpu_pool.formats.torchscript import read_torchscript
from serai_gpu_pool.frameworks.base import Form, Source
from serai_gpu_pool.frameworks.complaints import broken, damaged, is_memory, map_file, no_memory, short
from serai_gpu_pool.frameworks.torch_graph import GraphRunner
from serai_gpu_pool.frameworks.torch_script import Script, load_script
from serai_gpu_pool.frameworks.weights import Block, MappedWeights, Weights, host_tensors, strided
from serai_gpu_pool.frameworks.weights_arena import Arena, ArenaWeights
from serai_gpu_pool.tensors.signature import DTYPES, Array, Signature, Slot

#: Runs a model: tensors by name to its outputs in their order.
Run = Callable[[dict[str, torch.Tensor]], list[Any]]
#: Uses new places of the blocks from now on.
Bind = Callable[[list[torch.Tensor]], None]


def make(device: str, threads: int, arena_bytes: int) -> "TorchFramework":
    """`device`: "cpu" or "cuda:N". On a GPU, `arena_bytes` of its memory are taken at once and hold all weights."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    # The other executor compiles a program anew for shapes that it meets, in the middle of a call.
    torch._C._jit_set_profiling_executor(False)
    torch._C._jit_set_profiling_mode(False)
    return TorchFramework(torch.device(device), arena_bytes)


#: What opening may take besides weights: program, kernels that are made for it.
_MOST_BESIDES = 64 << 20


class TorchFramework:
    name = "torch"
    runtime = f"torch {torch.__version__}"

    def __init__(self, device: torch.device, arena_bytes: int) -> None:
        self._device = device
        self.arena = Arena(device, arena_bytes) if device.type == "cuda" else None
        self._checked: set[str] = set()

    def use_arena(self, arena: Arena) -> None:
        """Put weights there from now on: what a GPU needs can be had on the CPU too."""
        self.arena = arena

    def open(self, spec: ModelSpec, source: Source) -> "TorchModel":
        """Raises LoadError."""
        before = resident_bytes()
        try:
            model = self._open(spec, source)
        except ModelFileError as error:
            raise broken(spec, str(error)) from None
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise (no_memory(spec) if is_memory(error) else broken(spec, short(error))) from None
        return_free_memory()
        # Models that are opened at the same time blur what is measured: never more than it can be.
        model.skeleton_bytes = min(max(0, resident_bytes() - before), 2 * spec.num_bytes + _MOST_BESIDES)
        return model

    def improve(self, model: Any, spec: ModelSpec, source: Source) -> None:
        """There is one form only."""

    def _open(self, spec: ModelSpec, source: Source) -> "TorchModel":
        mapped = map_file(spec, source.path, self._checked)
        data = memoryview(mapped)
        if sniff(data) != spec.format:
            raise ModelFileError(f"its file is not of the format {spec.format}")
        if spec.format == "torch_export":
            program = read_program(data)
            runner = GraphRunner(program, self._device)
            named = program.weights
            blocks = sorted({Block(one.offset, one.num_bytes) for one in named.values()})
            inputs, outputs = program.inputs, program.outputs
            run: Run = runner.run

            def bind(places: list[torch.Tensor]) -> None:
                at = dict(zip(blocks, places, strict=True))
                runner.bind({name: _tensor(one, at[Block(one.offset, one.num_bytes)]) for name, one in named.items()})

        else:
            read_torchscript(data)
            script = load_script(source.path, self._device, data)
            blocks, bind, run, inputs, outputs = script.blocks, script.bind, _by_order(script, spec), (), ()
        signature = Signature(_slots(spec.inputs or inputs), _slots(spec.outputs or outputs))
        if not signature.inputs or not signature.outputs:
            raise ModelFileError("nothing says what its inputs and outputs are; declare them in algorithm.toml")
        weights: Weights
        if self.arena is None:
            bind(host_tensors(mapped, blocks))
            weights = MappedWeights(mapped, source.path, blocks)
        else:
            weights = ArenaWeights(self.arena, host_tensors(mapped, blocks))
        model = TorchModel(spec, signature, run, weights, bind, self._device)
        model.can_page = bool(blocks)
        try:
            model.page_in()
        except BaseException:
            model.close()
            raise
        return model


class TorchModel:
    """An open model. `skeleton_bytes`: what it took besides its weights."""

    form: Form = "packed"  # pages of a file as well, and there is none that runs faster

    def __init__(
        self, spec: ModelSpec, signature: Signature, run: Run, weights: Weights, bind: Bind, device: torch.device
    ) -> None:
        self._spec = spec
        self.signature = signature
        self.can_page = True
        self.skeleton_bytes = 0
        self._run: Run | None = run
        self._weights = weights
        self._bind: Bind | None = bind
        self._device = device

    def run(self, inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        assert self._run is not None, "a closed model was run"
        try:
            with torch.inference_mode():
                results = self._run({name: self._put(array) for name, array in inputs.items()})
                return self._wanted(results, outputs)
        except ModelRunError:
            raise
        except (Exception, MemoryError) as error:
            if is_memory(error):
                self._give_back()
                raise ModelRunError("the model ran out of memory", out_of_memory=True) from None
            raise ModelRunError(f"the model failed: {short(error)}") from None

    def _put(self, array: Array) -> torch.Tensor:
        # A model may write into its input, and the input may be read-only memory that others use.
        own = array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C")
        tensor = torch.from_numpy(own)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _wanted(self, results: list[Any], outputs: tuple[str, ...]) -> list[Array]:
        slots = self.signature.outputs
        if len(results) != len(slots):
            raise ModelRunError(f"the model gave {len(results)} outputs, not the {len(slots)} that are declared")
        arrays = {slot.name: _array(result, slot) for slot, result in zip(slots, results, strict=True)}
        return [arrays[name] for name in outputs]

    def _give_back(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def page_in(self) -> None:
        """Raises LoadError."""
        try:
            places = self._weights.page_in()
        except MemoryError:
            raise no_memory(self._spec) from None
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.EAGAIN):
                raise no_memory(self._spec) from None
            raise damaged(self._spec, f"cannot be read from the file store ({error.strerror})") from None
        if places is not None and self._bind is not None:
            self._bind(places)

    def page_out(self) -> None:
        self._weights.page_out()

    def resident_bytes(self) -> int:
        return self._weights.resident_bytes() + self.skeleton_bytes

    def kept_bytes(self) -> int:
        return self._weights.kept_bytes() + self.skeleton_bytes

    def cached_bytes(self) -> int:
        return self._weights.cached_bytes()

    def close(self) -> None:
        self._run = self._bind = None
        self._weights.close()
        gc.collect()  # scripted modules refer to themselves
        return_free_memory()
        self._give_back()


def _by_order(script: Script, spec: ModelSpec) -> Run:
    """TorchScript takes its inputs by position, in the order of the declaration."""
    names = tuple(slot.name for slot in spec.inputs)
    keys = tuple(slot.name for slot in spec.outputs)

    def run(inputs: dict[str, torch.Tensor]) -> list[Any]:
        result = script.run(*[inputs[name] for name in names])
        if isinstance(result, dict):
            missing = [key for key in keys if key not in result]
            if missing:
                raise ModelRunError(f'the model gives no output "{missing[0]}", which is declared')
            return [result[key] for key in keys]
        return list(result) if isinstance(result, tuple | list) else [result]

    return run


def _tensor(weight: Weight, place: torch.Tensor) -> torch.Tensor:
    dtype = getattr(torch, weight.dtype)
    place = place.data  # what is written to others in the same memory is not counted as written to this
    if place.data_ptr() % dtype.itemsize:
        place = place.clone()
    return strided(place, dtype, weight.sizes, weight.strides, weight.start)


def _array(result: Any, slot: Slot) -> Array:
    if not isinstance(result, torch.Tensor):
        raise ModelRunError(f'output "{slot.name}" is not a tensor')
    result = result.detach()
    if result.layout != torch.strided or str(result.dtype).removeprefix("torch.") not in DTYPES:
        raise ModelRunError(f'output "{slot.name}" is {result.dtype}, which cannot be sent')
    array = result.cpu().contiguous().resolve_conj().resolve_neg().numpy()
    if array.dtype != slot.dtype:
        raise ModelRunError(f'output "{slot.name}" is {array.dtype}, and {slot.dtype} is declared')
    return array


def _slots(tensors: tuple[TensorSpec, ...]) -> tuple[Slot, ...]:
    return tuple(
        Slot(one.name, one.dtype, None if one.shape is None else tuple(None if dim < 0 else dim for dim in one.shape))
        for one in tensors
    )
