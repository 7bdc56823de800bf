"""ONNX Runtime: models from their file, or from the prepared form whose weights are pages of a file.

A prepared model opens in two forms. "mapped" reads weights as they were written, so it is open at once; "packed" reads
them rearranged for the fastest run, and takes as long to open as rearranging does. Either can page: see `paging`.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakSet

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it starts a thread that phones home

import onnxruntime as ort

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.device import process_control
from serai_gpu_pool.device.onnx_check import ModelFileError, check_onnx
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.frameworks.base import Form, LoadError, OpenModel, Source
from serai_gpu_pool.frameworks.complaints import broken, damaged, is_memory, no_memory, short
from serai_gpu_pool.frameworks.paging import FilePages
from serai_gpu_pool.prepare.folder import FolderError, PreparedFolder, stamp, verify
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.tensors import DTYPES, Array, Signature, Slot

RUNTIME = f"onnxruntime {ort.__version__}"

_TYPES = {"float": "float32", "double": "float64"}  # ONNX Runtime's names where NumPy's differ
#: Log nothing: whatever matters comes as an exception, and a caller could fill the log with the rest.
_LOG_FATAL = 4
#: Smaller weights stay in the graph: for them a mapping each costs more than four pages of copy.
_MIN_EXTERNAL_BYTES = 16 << 10
#: How a plain model's memory is guessed at least and at most: others run while it is measured, and blur it.
_MAX_FACTOR, _MAX_EXTRA_BYTES = 4, 64 << 20


def make(device: str, threads: int, arena_bytes: int) -> "OnnxFramework":
    """For one worker.

    Args:
        device: "cpu", or "cuda:N".
        threads: that one run may use.
        arena_bytes: most memory of one model on a GPU; nothing on the CPU.

    Raises:
        RuntimeError: this build of ONNX Runtime cannot use that device.
    """
    return OnnxFramework(device, threads, arena_bytes)


class OnnxModel:
    """An open session. `OpenModel` in base.py says what each method promises."""

    def __init__(
        self, session: ort.InferenceSession, signature: Signature, form: Form, pages: FilePages | None, own_bytes: int
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self.signature = signature
        self.form: Form = form
        self.can_page = form != "plain"
        self._pages = pages
        self._own_bytes = own_bytes  # memory besides the pages

    def run(self, inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        assert self._session, "a closed model is not run"
        try:
            results = self._session.run(outputs, inputs)
        except Exception as error:
            raise ModelRunError(f"the model failed: {short(error)}", is_memory(error)) from None
        return results  # pyright: ignore[reportReturnType]: all outputs are tensors, checked when it was opened

    def page_in(self) -> None:
        if self._pages is None:
            return
        try:
            self._pages.populate()
        except OSError as error:
            message = f"the model's weights cannot be brought into memory: {error.strerror}"
            raise LoadError(LoadFailure("memory", message)) from None

    def page_out(self) -> None:
        if self._pages is not None:
            self._pages.drop()

    def resident_bytes(self) -> int:
        return self._own_bytes + (self._pages.resident_bytes() if self._pages else 0)

    def kept_bytes(self) -> int:
        return self._own_bytes if self.can_page else 0

    def close(self) -> None:
        self._pages = None  # first: its mappings go with the session
        self._session = None
        if not self.can_page:
            process_control.return_free_memory()


class OnnxFramework:
    name = "onnx"
    runtime = RUNTIME

    def __init__(self, device: str, threads: int, arena_bytes: int) -> None:
        self._threads = threads
        self._providers = _providers(device, arena_bytes)
        self._is_cpu = device == "cpu"
        self._checked: set[str] = set()  # files that have passed, by sha256: hashing them takes longer than a load
        self._folders: dict[str, tuple[tuple[int, ...], PreparedFolder | None]] = {}
        self._pages: dict[str, WeakSet[FilePages]] = {}  # of what is open, by weights file

    def open(self, spec: ModelSpec, source: Source) -> OnnxModel:
        prepared = self._prepared(spec, source)
        if prepared is not None:
            try:
                return self.open_prepared(spec, prepared, prepared.profile.first)
            except LoadError as error:
                if error.failure.kind == "memory":
                    raise
        return self.open_plain(spec, source)

    def improve(self, model: OpenModel, spec: ModelSpec, source: Source) -> OnnxModel | None:
        prepared = self._prepared(spec, source)
        if prepared is None or prepared.profile.best in ("plain", model.form):
            return None
        return self.open_prepared(spec, prepared, prepared.profile.best)

    def open_plain(self, spec: ModelSpec, source: Source) -> OnnxModel:
        """From the published file, after all checks. Raises LoadError."""
        before = process_control.resident_bytes()
        data = self._read(spec, source)
        session = self._session(spec, data, self._options())
        session._model_bytes = None  # it keeps the whole file for a restart with other providers, which we never do
        del data
        process_control.return_free_memory()
        grown = process_control.resident_bytes() - before
        own = max(spec.num_bytes, min(grown, _MAX_FACTOR * spec.num_bytes + _MAX_EXTRA_BYTES))
        return OnnxModel(session, self._signature(spec, session), "plain", None, own)

    def open_prepared(self, spec: ModelSpec, prepared: PreparedFolder, form: Form) -> OnnxModel:
        """From a verified folder, in one of the forms that page. Raises LoadError."""
        weights = prepared.weights
        before = process_control.resident_bytes()
        session = self._session(spec, str(prepared.graph), self._prepared_options(form))
        measured = prepared.profile.forms.get(form)
        own = measured.kept_bytes if measured else max(0, process_control.resident_bytes() - before)
        wanted = prepared.raw if form == "mapped" else None  # packed: what it does not read, it has unmapped
        pages = None
        if weights:
            others = self._pages.setdefault(str(weights), WeakSet())
            pages = FilePages(str(weights), others, wanted)
            others.add(pages)
        model = OnnxModel(session, self._signature(spec, session), form, pages, own)
        model.page_in()
        return model

    def write_prepared(self, spec: ModelSpec, source: Source, folder: Path) -> None:
        """Make `graph.onnx` and `weights.bin` of the published file in a folder. Raises LoadError."""
        options = self._options()
        options.optimized_model_filepath = str(folder / "graph.onnx")
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
        smallest = str(_MIN_EXTERNAL_BYTES)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", smallest)
        self._session(spec, self._read(spec, source), options)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepared(self, spec: ModelSpec, source: Source) -> PreparedFolder | None:
        """The folder of a prepared form, verified when it is first seen and whenever it has changed."""
        if not source.prepared or not self._is_cpu:
            return None
        seen = stamp(Path(source.prepared))
        known = self._folders.get(source.prepared)
        if known is None or known[0] != seen:
            try:
                folder = verify(Path(source.prepared), spec.sha256)
            except FolderError:
                folder = None
            known = self._folders[source.prepared] = seen, folder
        return known[1]

    def _read(self, spec: ModelSpec, source: Source) -> bytes:
        """The whole file, checked. Given as bytes, a model has no place to look for other files from."""
        try:
            data = Path(source.path).read_bytes()
        except OSError as error:
            raise damaged(spec, f"cannot be read from the file store ({error.strerror})") from None
        except MemoryError:
            raise no_memory(spec) from None
        if spec.sha256 in self._checked:
            return data
        if hashlib.sha256(data).hexdigest() != spec.sha256:
            raise damaged(spec, "is stored with a wrong checksum")
        try:
            check_onnx(data)
        except ModelFileError as error:
            raise broken(spec, str(error)) from None
        self._checked.add(spec.sha256)
        return data

    def _session(self, spec: ModelSpec, model: bytes | str, options: ort.SessionOptions) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(model, options, providers=self._providers)
        except Exception as error:
            raise (no_memory(spec) if is_memory(error) else broken(spec, short(error))) from None

    def _signature(self, spec: ModelSpec, session: ort.InferenceSession) -> Signature:
        signature = Signature(_slots(session.get_inputs(), spec), _slots(session.get_outputs(), spec))
        if not signature.inputs or not signature.outputs:
            raise broken(spec, "it has no inputs or no outputs")
        return signature

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

    def _prepared_options(self, form: Form) -> ort.SessionOptions:
        options = self._options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # that has been done
        if form == "mapped":
            options.add_session_config_entry("session.disable_prepacking", "1")
        return options


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
