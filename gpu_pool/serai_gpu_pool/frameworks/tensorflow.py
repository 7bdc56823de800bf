"""TensorFlow: SavedModels, on the CPU or on a GPU.

A model is closed and opened again instead of being paged: TensorFlow copies weights into memory of its own, and has no
way to let go of them that would be cheaper than that.
"""

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # whatever matters comes as an exception

import tensorflow as tf

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device.process_control import resident_bytes, return_free_memory
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.formats.saved_model import SIGNATURE, read_saved_model, unpack_saved_model
from serai_gpu_pool.formats.sniff import sniff
from serai_gpu_pool.frameworks.base import Form, Source
from serai_gpu_pool.frameworks.complaints import broken, is_memory, map_file, no_memory, short
from serai_gpu_pool.tensors.signature import DTYPES, Array, Signature, Slot

#: What opening may take besides variables: the graph, functions, kernels.
_MOST_BESIDES = 128 << 20
#: Blocks from here on are asked of the kernel and go back to it. glibc raises its own limit to the largest block that
#: was ever freed, and then keeps such blocks: a closed model of 49 MB left 24 MB behind.
_OWN_MAPPING_BYTES = 8 << 20
_M_MMAP_THRESHOLD = -3


def make(device: str, threads: int, arena_bytes: int) -> "TensorFlowFramework":
    """`device`: "cpu" or "cuda:N". On a GPU, TensorFlow may take `arena_bytes` of its memory and no more."""
    with contextlib.suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
    with contextlib.suppress(RuntimeError):  # cannot be set again in a process that has run something
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    gpus = tf.config.list_physical_devices("GPU")
    if device == "cpu":
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
        return TensorFlowFramework("/CPU:0")
    gpu = gpus[int(device.partition(":")[2])]
    tf.config.set_visible_devices([gpu], "GPU")
    limit = tf.config.LogicalDeviceConfiguration(memory_limit=arena_bytes >> 20)
    tf.config.set_logical_device_configuration(gpu, [limit])
    return TensorFlowFramework("/GPU:0")


class TensorFlowFramework:
    name = "tensorflow"
    runtime = f"tensorflow {tf.__version__}"

    def __init__(self, place: str) -> None:
        self._place = place
        self._checked: set[str] = set()

    def open(self, spec: ModelSpec, source: Source) -> "TensorFlowModel":
        """Raises LoadError."""
        before = resident_bytes()
        mapped = map_file(spec, source.path, self._checked)
        data = memoryview(mapped)
        folder = Path(tempfile.mkdtemp(prefix="model-"))
        try:
            if sniff(data) != spec.format:
                raise ModelFileError(f"its file is not of the format {spec.format}")
            found = read_saved_model(data)
            unpack_saved_model(data, folder)
            with tf.device(self._place):
                model = TensorFlowModel(_load(folder), spec.inputs or found.inputs, spec.outputs or found.outputs)
        except ModelFileError as error:
            raise broken(spec, str(error)) from None
        except Exception as error:
            # The folder lies in memory too, so its limit is a limit of memory.
            full = isinstance(error, OSError) and error.errno == 28
            raise (no_memory(spec) if full or is_memory(error) else broken(spec, short(error))) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        gc.collect()
        return_free_memory()
        # Other models come and go meanwhile and blur what is measured: between what it must be and what it can be.
        measured = min(resident_bytes() - before, 2 * spec.num_bytes + _MOST_BESIDES)
        model.num_bytes = max(model.variable_bytes, measured)
        return model

    def improve(self, model: Any, spec: ModelSpec, source: Source) -> None:
        """There is one form only."""


def _load(folder: Path) -> Any:
    return tf.saved_model.load(str(folder))


class TensorFlowModel:
    """An open SavedModel: its signature `serving_default`."""

    form: Form = "plain"
    can_page = False

    def __init__(
        self, module: Any, inputs: tuple[TensorSpec, ...] | None, outputs: tuple[TensorSpec, ...] | None
    ) -> None:
        if SIGNATURE not in module.signatures:
            raise ModelFileError(f"no signature {SIGNATURE}")
        self.signature = Signature(_slots(inputs or ()), _slots(outputs or ()))
        self._module: Any = module  # owns the variables
        self._function: Any = module.signatures[SIGNATURE]
        self.variable_bytes = sum(
            variable.dtype.size * variable.shape.num_elements() for variable in _variables(module)
        )
        self.num_bytes = self.variable_bytes

    def run(self, inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        try:
            results = self._function(**{name: tf.convert_to_tensor(array) for name, array in inputs.items()})
            arrays = {name: results[name].numpy() for name in outputs}
        except Exception as error:
            if is_memory(error):
                raise ModelRunError("the model ran out of memory", out_of_memory=True) from None
            raise ModelRunError(f"the model failed: {short(error)}") from None
        for name, array in arrays.items():
            if not hasattr(array, "dtype") or array.dtype.name not in DTYPES:
                raise ModelRunError(f'output "{name}" is of a type that cannot be sent')
        return list(arrays.values())

    def page_in(self) -> None:
        """It is in memory for as long as it is open."""

    def page_out(self) -> None:
        raise OSError("TensorFlow models are not paged: close it instead")

    def resident_bytes(self) -> int:
        return self.num_bytes

    def kept_bytes(self) -> int:
        return 0

    def cached_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._module = self._function = None
        gc.collect()  # functions and variables refer to each other
        return_free_memory()


def _variables(module: Any) -> list[Any]:
    seen = {}
    for function in (module.signatures[SIGNATURE],):
        for variable in (*function.variables, *getattr(module, "variables", ())):
            if hasattr(variable, "dtype"):
                seen[id(variable)] = variable
    return list(seen.values())


def _slots(tensors: tuple[TensorSpec, ...]) -> tuple[Slot, ...]:
    return tuple(
        Slot(one.name, one.dtype, None if one.shape is None else tuple(None if dim < 0 else dim for dim in one.shape))
        for one in tensors
    )
