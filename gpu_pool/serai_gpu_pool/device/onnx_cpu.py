"""ONNX models on the CPU, inside the worker: check a file, load it, run it."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it starts a thread that phones home

import onnxruntime as ort

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.device.onnx_check import ModelFileError, check_onnx
from serai_gpu_pool.device.stacking import ModelRunError, Stacker
from serai_gpu_pool.tensors import DTYPES, Array, Signature, Slot

RUNTIME = f"onnxruntime {ort.__version__}"

_TYPES = {"float": "float32", "double": "float64"}  # ONNX Runtime's names where NumPy's differ
#: Runtime errors repeat the graph's internals; this much of one helps an author.
_MAX_MESSAGE = 300
#: Log nothing: whatever matters comes as an exception, and a caller could fill the log with the rest.
_LOG_FATAL = 4


class LoadError(Exception):
    def __init__(self, failure: LoadFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def load(spec: ModelSpec, threads: int, checked: set[str]) -> Stacker:
    """Make a session of a file.

    Args:
        checked: files that have passed the checks before, by sha256; added to. Saves hashing them at every load.

    Raises:
        LoadError: with whose fault it is.
    """
    data = _read(spec)
    if spec.sha256 not in checked:
        if hashlib.sha256(data).hexdigest() != spec.sha256:
            message = f'checksum of model "{spec.name}" is wrong: its stored file is damaged; publish it again'
            raise LoadError(LoadFailure("damaged", message))
        try:
            check_onnx(data)
        except ModelFileError as error:
            raise _broken(spec, str(error)) from None
        checked.add(spec.sha256)
    try:
        session = ort.InferenceSession(data, _options(threads), providers=["CPUExecutionProvider"])
    except MemoryError:
        raise _no_memory(spec) from None
    except Exception as error:
        text = _short(error)
        raise (_no_memory(spec) if _is_memory(text) else _broken(spec, text)) from None
    session._model_bytes = None  # it keeps the whole file for a restart with other providers, which we never do
    signature = Signature(_slots(session.get_inputs(), spec), _slots(session.get_outputs(), spec))
    if not signature.inputs or not signature.outputs:
        raise _broken(spec, "it has no inputs or no outputs")
    return Stacker(signature, _runner(session))


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An arena keeps what the hungriest run ever needed, for ever and on nobody's account. Measured: no slower without.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = _LOG_FATAL
    # Threads that spin while they wait take the core from the process that brings the next batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _read(spec: ModelSpec) -> bytes:
    """The whole file. Given as bytes (and an empty working directory), a model has no path to look for others from."""
    try:
        data = Path(spec.path).read_bytes()
    except OSError as error:
        message = f'model "{spec.name}" cannot be read from the file store ({error.strerror}); publish it again'
        raise LoadError(LoadFailure("damaged", message)) from None
    except MemoryError:
        raise _no_memory(spec) from None
    return data


def _slots(nodes: Sequence[ort.NodeArg], spec: ModelSpec) -> tuple[Slot, ...]:
    slots = []
    for node in nodes:
        match = re.fullmatch(r"tensor\((\w+)\)", node.type)
        dtype = _TYPES.get(match[1], match[1]) if match else node.type
        if dtype not in DTYPES:
            raise _broken(spec, f'"{node.name}" is {node.type}; only tensors of numbers and booleans can be served')
        dims = tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in node.shape or ())
        slots.append(Slot(node.name, dtype, dims or None))  # the runtime does not tell a scalar from no shape at all
    return tuple(slots)


def _runner(session: ort.InferenceSession):
    def run(inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        try:
            results = session.run(outputs, inputs)
        except MemoryError:
            raise ModelRunError("the model ran out of memory", out_of_memory=True) from None
        except Exception as error:
            text = _short(error)
            raise ModelRunError(f"the model failed: {text}", _is_memory(text)) from None
        return results  # pyright: ignore[reportReturnType]: all outputs are tensors, checked at load

    return run


def _broken(spec: ModelSpec, why: str) -> LoadError:
    return LoadError(LoadFailure("broken", f'model "{spec.name}" cannot be loaded: {why}'))


def _no_memory(spec: ModelSpec) -> LoadError:
    return LoadError(LoadFailure("memory", f'model "{spec.name}" cannot be loaded: not enough memory on the device'))


def _short(error: Exception) -> str:
    """The first line of a runtime's complaint, without our paths."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"(/[\w.+-]+){2,}/?", "…", text)[:_MAX_MESSAGE]


def _is_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in ("bad_alloc", "failed to allocate", "out of memory", "bad allocation"))
