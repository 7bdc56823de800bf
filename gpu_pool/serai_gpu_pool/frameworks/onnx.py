"""ONNX Runtime: models from their file, or from the prepared form whose weights are pages of a file.

A prepared model opens in two forms. "mapped" reads weights as they were written, so it is open at once; "packed" reads
them rearranged for the fastest run, and takes as long to open as rearranging does. Either can page: see `paging`.
"""

import errno
import hashlib
from pathlib import Path
from weakref import WeakSet

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.device import process_control
from serai_gpu_pool.device.onnx_check import check_onnx
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.frameworks.base import Form, LoadError, OpenModel, Source
from serai_gpu_pool.frameworks.complaints import broken, damaged, is_memory, no_memory, short
from serai_gpu_pool.frameworks.onnx_session import RUNTIME, Session, Sessions, signature_of
from serai_gpu_pool.frameworks.paging import FilePages, forget_pages
from serai_gpu_pool.prepare.folder import GRAPH, FolderError, PreparedFolder, stamp, verify
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.tensors.signature import Array, Signature

#: Smaller weights stay in the graph: for them a mapping each costs more than four pages of copy.
_MIN_EXTERNAL_BYTES = 16 << 10
#: How a plain model's memory is guessed at least and at most: others run while it is measured, and blur it.
_MAX_FACTOR, _MAX_EXTRA_BYTES = 4, 64 << 20
#: Folders that are remembered as verified; beyond, all are forgotten and verified again.
_MAX_KNOWN = 2_000


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
        self,
        session: Session,
        signature: Signature,
        form: Form,
        pages: FilePages | None,
        own_bytes: int,
        weights: Path | None = None,
    ) -> None:
        self._session: Session | None = session
        self.signature = signature
        self.form: Form = form
        self.can_page = form != "plain"
        self._pages = pages
        self._own_bytes = own_bytes  # memory besides the pages
        self._weights = weights

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
            kind = "memory" if error.errno in (errno.ENOMEM, errno.EAGAIN) else "damaged"
            message = f"the model's weights cannot be brought into memory: {error.strerror}"
            raise LoadError(LoadFailure(kind, message)) from None

    def page_out(self) -> None:
        if self._pages is not None:
            self._pages.drop()

    def resident_bytes(self) -> int:
        return self._own_bytes + (self._pages.resident_bytes() if self._pages else 0)

    def kept_bytes(self) -> int:
        return self._own_bytes if self.can_page else 0

    def cached_bytes(self) -> int:
        return self._pages.wanted_bytes if self._pages else 0

    def close(self) -> None:
        self._pages = None  # first: its mappings go with the session
        self._session = None
        if self._weights is not None:
            forget_pages(self._weights)
        else:
            process_control.return_free_memory()


class OnnxFramework:
    name = "onnx"
    runtime = RUNTIME

    def __init__(self, device: str, threads: int, arena_bytes: int) -> None:
        self._sessions = Sessions(device, threads, arena_bytes)
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
        session = self._sessions.plain(spec, data)
        session._model_bytes = None  # it keeps the whole file for a restart with other providers, which we never do
        del data
        process_control.return_free_memory()
        grown = process_control.resident_bytes() - before
        own = max(spec.num_bytes, min(grown, _MAX_FACTOR * spec.num_bytes + _MAX_EXTRA_BYTES))
        return OnnxModel(session, signature_of(spec, session), "plain", None, own)

    def open_prepared(self, spec: ModelSpec, prepared: PreparedFolder, form: Form) -> OnnxModel:
        """From a verified folder, in one of the forms that page. Raises LoadError."""
        weights = prepared.weights
        before = process_control.resident_bytes()
        session = self._sessions.prepared(spec, prepared.graph, form)
        measured = prepared.profile.forms.get(form)
        own = measured.kept_bytes if measured else max(0, process_control.resident_bytes() - before)
        wanted = prepared.raw if form == "mapped" else None  # packed: what it does not read, it has unmapped
        pages = None
        if weights:
            others = self._pages.setdefault(str(weights), WeakSet())
            pages = FilePages(str(weights), others, wanted)
            others.add(pages)
        model = OnnxModel(session, signature_of(spec, session), form, pages, own, weights)
        model.page_in()
        return model

    def write_prepared(self, spec: ModelSpec, source: Source, folder: Path) -> None:
        """Make `graph.onnx` and `weights.bin` of the published file in a folder. Raises LoadError."""
        self._sessions.write(spec, self._read(spec, source), folder / GRAPH, WEIGHTS, _MIN_EXTERNAL_BYTES)

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
            if len(self._folders) >= _MAX_KNOWN:
                self._folders.clear()
                self._pages = {name: pages for name, pages in self._pages.items() if pages}
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
