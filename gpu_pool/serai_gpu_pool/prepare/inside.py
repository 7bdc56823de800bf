"""The work in the box: open the model, write its fast form, see whether that gives the same answers, measure both."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.frameworks import registry
from serai_gpu_pool.frameworks.base import Framework, LoadError, OpenModel, Source
from serai_gpu_pool.prepare.folder import GRAPH, PreparedFolder
from serai_gpu_pool.prepare.graph_check import WEIGHTS, check_prepared_graph
from serai_gpu_pool.prepare.inputs import Guess, TooHungry, find_guess
from serai_gpu_pool.prepare.job import Answer, Failed, Job, Measured
from serai_gpu_pool.prepare.measure import Clock, batch_sizes, measure_batches, measure_opening
from serai_gpu_pool.profile import Form, FormProfile, Profile
from serai_gpu_pool.tensors.signature import Array, Slot

if TYPE_CHECKING:  # importing it loads ONNX Runtime, which other formats do not need
    from serai_gpu_pool.frameworks.onnx import OnnxFramework

#: How far a form's answers may be from those of the plain file, relative to the largest one: sums in another order.
_RELATIVE = 1e-3
#: Below this nobody notices that opening took longer; then the form that runs faster is opened at once.
_AT_ONCE_S = 0.003
#: As long as the other form and a little: noise.
_NEARLY = 1.15
#: Inputs that answers are compared on.
_SEEDS = (0, 1)
#: Plain, mapped, packed.
_FORMS = 3


def prepare_inside(job: Job, opened: Callable[[Answer], None]) -> Answer:
    """The answer. `opened` is called with a poorer one as soon as there is one: runs may never come to an end."""
    try:
        return Measured(_Preparation(job, opened).profile())
    except LoadError as error:
        return Failed.of(error.failure)
    except ModelRunError as error:
        return Failed("broken", f'model "{job.spec.name}": {error}')
    except TooHungry:
        return Failed("memory", f'model "{job.spec.name}" cannot be run, not even with one small input: no memory')


class _Preparation:
    def __init__(self, job: Job, opened: Callable[[Answer], None]) -> None:
        self._job = job
        self._opened = opened
        self._spec: ModelSpec = job.spec
        self._source = Source(job.model)
        self._framework: Framework = registry.make(job.framework, "cpu", job.threads, 0)
        self._guess: Guess | None = None
        self._answers: list[list[Array]] = []

    def profile(self) -> Profile:
        """Raises LoadError where the model cannot be opened at all."""
        model, form = measure_opening(lambda: self._framework.open(self._spec, self._source))
        try:
            signature = model.signature
            profile = Profile(
                self._spec.sha256, self._job.runtime, self._job.threads, model.form, model.form, {model.form: form},
                tuple(map(_tensor, signature.inputs)), tuple(map(_tensor, signature.outputs)),
            )  # fmt: skip
            self._opened(Measured(profile))
            self._guess = find_guess(signature, model.run, self._clock().has_time)
            self._answers = self._run_all(model)
            prepared = self._with_prepared_forms(profile)
            # Where there is another form, the plain one is opened only if that is lost: one figure has to do.
            sizes = batch_sizes(model)[:1] if prepared.has_prepared_form else batch_sizes(model)
            forms = prepared.forms | {model.form: self._with_batches(model, form, sizes)}
            return msgspec.structs.replace(prepared, forms=forms)
        finally:
            model.close()

    def _clock(self) -> Clock:
        """The time that one form may take, of all there is."""
        return Clock(self._job.measure_s / _FORMS)

    def _with_prepared_forms(self, profile: Profile) -> Profile:
        """The same where there is no such form, or it does not give the same answers: then nobody will open it."""
        folder = self._write()
        if folder is None:
            return profile
        forms: dict[Form, FormProfile] = {}
        for name in ("mapped", "packed"):
            measured = self._measured(folder, name)
            if measured is not None:
                forms[name] = measured
        if not forms:
            return profile
        first, best = choose(forms)
        return msgspec.structs.replace(
            profile, forms=profile.forms | forms, first=first, best=best,
            graph_bytes=folder.profile.graph_bytes, weights_bytes=folder.profile.weights_bytes,
        )  # fmt: skip

    def _write(self) -> PreparedFolder | None:
        framework = self._onnx()
        if framework is None or not self._answers:
            return None
        path = Path(self._job.folder)
        try:
            framework.write_prepared(self._spec, self._source, path)
            graph = (path / GRAPH).read_bytes()
            weights_bytes = (path / WEIGHTS).stat().st_size
            raw = check_prepared_graph(graph, weights_bytes)
        except (LoadError, OSError, ModelFileError):
            return None
        empty = Profile(self._spec.sha256, self._job.runtime, self._job.threads, "plain", "plain", {})
        return PreparedFolder(
            path, msgspec.structs.replace(empty, graph_bytes=len(graph), weights_bytes=weights_bytes), tuple(raw)
        )

    def _measured(self, folder: PreparedFolder, name: Form) -> FormProfile | None:
        """Figures of one form; None where it cannot be opened or says something else than the plain file."""
        framework = self._onnx()
        assert framework, "only ONNX has such forms"
        try:
            model, form = measure_opening(lambda: framework.open_prepared(self._spec, folder, name))
        except LoadError:
            return None
        try:
            answers = self._run_all(model)
            if len(answers) != len(self._answers) or not all(map(_agree, self._answers, answers)):
                return None
            return self._with_batches(model, form, batch_sizes(model))
        finally:
            model.close()

    def _onnx(self) -> "OnnxFramework | None":
        """The framework, where it is the one that has other forms than plain."""
        return cast("OnnxFramework", self._framework) if self._job.framework == "onnx" else None

    def _with_batches(self, model: OpenModel, form: FormProfile, sizes: tuple[int, ...]) -> FormProfile:
        if self._guess is None:
            return form
        seconds, activation = measure_batches(model, self._guess, sizes, self._clock())
        return msgspec.structs.replace(form, batch_s=seconds, activation_bytes=activation)

    def _run_all(self, model: OpenModel) -> list[list[Array]]:
        if self._guess is None:
            return []
        names = model.signature.output_names
        try:
            return [model.run(self._guess.inputs(model.signature, 1, seed), names) for seed in _SEEDS]
        except ModelRunError as error:
            if error.keeps_state:
                raise
            return []


def choose(forms: dict[Form, FormProfile]) -> tuple[Form, Form]:
    """Which form to open at once, and which runs fastest, of those that page."""
    mapped, packed = forms.get("mapped"), forms.get("packed")
    if mapped is None or packed is None:
        only: Form = "packed" if mapped is None else "mapped"
        return only, only
    if packed.open_s < _AT_ONCE_S or packed.open_s <= _NEARLY * mapped.open_s:
        return "packed", "packed"
    common = packed.batch_s.keys() & mapped.batch_s.keys()
    if not any(mapped.batch_s[size] > _NEARLY * packed.batch_s[size] for size in common):
        return "mapped", "mapped"
    return "mapped", "packed"


def _tensor(slot: Slot) -> TensorSpec:
    shape = None if slot.shape is None else tuple(-1 if dim is None else dim for dim in slot.shape)
    return TensorSpec(slot.name, slot.dtype, shape)


def _agree(ones: list[Array], others: list[Array]) -> bool:
    return all(map(_same, ones, others))


def _same(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f" or not one.size:
        return np.array_equal(one, other)
    finite = one[np.isfinite(one)]
    scale = float(np.abs(finite).max()) if finite.size else 1.0
    return np.allclose(one, other, rtol=_RELATIVE, atol=_RELATIVE * scale, equal_nan=True)
