"""ONNX Runtime sessions: with which options they are made, and what goes in and comes out."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it starts a thread that phones home

import onnxruntime as ort

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.frameworks.base import Form
from serai_gpu_pool.frameworks.complaints import broken, is_memory, no_memory, short
from serai_gpu_pool.tensors.signature import DTYPES, Signature, Slot

RUNTIME = f"onnxruntime {ort.__version__}"
Session = ort.InferenceSession

_TYPES = {"float": "float32", "double": "float64"}  # ONNX Runtime's names where NumPy's differ
#: Log nothing: whatever matters comes as an exception, and a caller could fill the log with the rest.
_LOG_FATAL = 4
_EXTERNAL = "session.optimized_model_external_initializers"


class Sessions:
    """Makes sessions on one device. Raises RuntimeError where this build of ONNX Runtime cannot use it."""

    def __init__(self, device: str, threads: int, arena_bytes: int) -> None:
        self._threads = threads
        self._providers = _providers(device, arena_bytes)

    def plain(self, spec: ModelSpec, data: bytes) -> Session:
        """Of a file's bytes. Raises LoadError, as all here."""
        session = self._session(spec, data, self._options())
        session._model_bytes = None  # it keeps the whole file for a restart with other providers, which we never do
        return session

    def prepared(self, spec: ModelSpec, graph: Path, form: Form) -> Session:
        """Of a verified graph with its weights beside it."""
        options = self._options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # that has been done
        if form == "mapped":
            options.add_session_config_entry("session.disable_prepacking", "1")
        return self._session(spec, str(graph), options)

    def write(self, spec: ModelSpec, data: bytes, graph: Path, weights: str, smallest_bytes: int) -> None:
        """Write a file's optimised graph, and its weights of that size on, as they are and rearranged, beside it."""
        options = self._options()
        options.optimized_model_filepath = str(graph)
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        options.add_session_config_entry(f"{_EXTERNAL}_file_name", weights)
        options.add_session_config_entry(f"{_EXTERNAL}_min_size_in_bytes", str(smallest_bytes))
        self._session(spec, data, options)

    def _session(self, spec: ModelSpec, model: bytes | str, options: ort.SessionOptions) -> Session:
        try:
            return Session(model, options, providers=self._providers)
        except Exception as error:
            raise (no_memory(spec) if is_memory(error) else broken(spec, short(error))) from None

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # An arena keeps what the hungriest run ever needed, on nobody's account. Measured: no slower without.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = _LOG_FATAL
        # Threads that spin while they wait take the core from the process that brings the next batch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options


def signature_of(spec: ModelSpec, session: Session) -> Signature:
    """Raises LoadError for a model that cannot be served."""
    signature = Signature(_slots(session.get_inputs(), spec), _slots(session.get_outputs(), spec))
    if not signature.inputs or not signature.outputs:
        raise broken(spec, "it has no inputs or no outputs")
    return signature


def _providers(device: str, arena_bytes: int) -> list[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("this ONNX Runtime has no CUDA: install onnxruntime-gpu in its place")
    options = {
        "device_id": device.partition(":")[2] or "0",
        "gpu_mem_limit": str(arena_bytes),
        "arena_extend_strategy": "kSameAsRequested",  # doubling takes memory that nobody accounted for
    }
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def _slots(nodes: Sequence[ort.NodeArg], spec: ModelSpec) -> tuple[Slot, ...]:
    slots = []
    for node in nodes:
        match = re.fullmatch(r"tensor\((\w+)\)", node.type)
        dtype = _TYPES.get(match[1], match[1]) if match else node.type
        if dtype not in DTYPES:
            raise broken(spec, f'"{node.name}" is {node.type}; only tensors of numbers and booleans can be served')
        dims = tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in node.shape or ())
        slots.append(Slot(node.name, dtype, dims or None))  # the runtime does not tell a scalar from no shape at all
    return tuple(slots)
