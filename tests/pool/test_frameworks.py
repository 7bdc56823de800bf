"""What every framework must do with its models; and that one net gives the same answers in all formats."""

import functools
import gc
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.formats import pack_saved_model
from serai_gpu_pool.frameworks import registry
from serai_gpu_pool.frameworks.base import Framework, LoadError, OpenModel, Source
from serai_gpu_pool.testing import models, nets
from serai_gpu_pool.testing.formats import needs

FORMATS = ("onnx", "torchscript", "torch_export", "saved_model")
X, Y = TensorSpec("x", "float32", (-1, 4)), TensorSpec("y", "float32", (-1, 4))
#: Large enough that what an interpreter does beside it does not matter.
LARGE_BYTES = 8 << 20


@dataclass
class Bench:
    """One framework, and files of its format."""

    format: str
    framework: Framework
    folder: Path

    def spec(self, data: bytes, inputs=(), outputs=(), **changes) -> tuple[ModelSpec, Source]:
        path = self.folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        declared = inputs if self.format in ("torchscript", "torch_export") else ()
        values = {"sha256": path.name, "path": str(path), "num_bytes": len(data), "owner": "alice"} | changes
        spec = ModelSpec(
            "m", format=self.format, inputs=declared, outputs=outputs if declared else (), **values
        )  # fmt: skip
        return spec, Source(str(path))

    def open(self, data: bytes, inputs=(), outputs=()) -> OpenModel:
        return self.framework.open(*self.spec(data, inputs, outputs))

    def net(self) -> OpenModel:
        return self.open(self.file("net"), nets.INPUTS, nets.OUTPUTS)

    def scaled(self, factor: float = 2.0, num_bytes: int = 4096) -> OpenModel:
        return self.open(self.file("scaled", factor, num_bytes), (X,), (Y,))

    def takes_row(self) -> OpenModel:
        index = TensorSpec("x", "int64", (-1,))
        return self.open(self.file("takes_row"), (index,), (TensorSpec("y", "float32", (-1,)),))

    def file(self, which: str, *args) -> bytes:
        return make_file(self.format, which, *args)


def _onnx(which: str, *args) -> bytes:
    if which == "scaled":
        factor, num_bytes = args
        ballast = np.random.default_rng(0).standard_normal((num_bytes // 16, 4)).astype(np.float32)
        nodes = [
            helper.make_node("ReduceSum", ["ballast", "axis"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Mul", ["x", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["y"]),
        ]
        numbers = [("axis", np.array([0])), ("zero", np.float32(0)), ("factor", np.float32(factor))]
        shape = ["N", 4]
        return models.build(
            nodes, [("x", models.FLOAT, shape)], [("y", models.FLOAT, shape)], [("ballast", ballast), *numbers]
        )
    return {"net": nets.onnx_net, "takes_row": models.take_row}[which]()


def _torchscript(which: str, *args) -> bytes:
    from serai_gpu_pool.testing import torch_models as made

    modules = {"net": made.Net, "scaled": made.Scaled, "takes_row": made.TakesRow}
    return made.script(modules[which](*args))


def _torch_export(which: str, *args) -> bytes:
    from serai_gpu_pool.testing import torch_models as made

    if which == "net":
        return made.net_export()
    if which == "scaled":
        return made.export(made.Scaled(*args), np.zeros((2, 4), np.float32))
    return made.export(made.TakesRow(), np.zeros(2, np.int64))


def _saved_model(which: str, *args) -> bytes:
    from serai_gpu_pool.testing import tf_models as made

    modules = {"net": made.Net, "scaled": made.Scaled, "takes_row": made.TakesRow}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        pack_saved_model(made.save(modules[which](*args), Path(folder, "model")), file)
        file.seek(0)
        return file.read()


@functools.cache
def make_file(format: str, which: str, *args) -> bytes:
    return _MAKERS[format](which, *args)


_MAKERS: dict[str, Callable[..., bytes]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "torch_export": _torch_export,
    "saved_model": _saved_model,
}


@pytest.fixture(scope="module")
def frameworks() -> dict[str, Framework]:
    return {}


@pytest.fixture(params=FORMATS)
def bench(request, frameworks, tmp_path) -> Iterator[Bench]:
    yield make_bench(request.param, frameworks, tmp_path)
    gc.collect()


def make_bench(format: str, frameworks: dict[str, Framework], folder: Path) -> Bench:
    needs(format)
    name = registry.FRAMEWORK_OF[format]
    if name not in frameworks:
        frameworks[name] = registry.make(name, "cpu", 1, 0)
    return Bench(format, frameworks[name], folder)


def test_the_same_net_gives_the_same_answers_in_every_format(frameworks, tmp_path):
    x = nets.example(5)
    answers = {}
    for format in FORMATS:
        model = make_bench(format, frameworks, tmp_path).net()
        answers[format] = model.run({"input": x}, ("output",))[0]
        model.close()
    for format, answer in answers.items():
        assert answer.shape == (5, 10) and answer.dtype == np.float32
        np.testing.assert_allclose(answer, answers["onnx"], rtol=1e-4, atol=1e-6, err_msg=format)
    assert np.allclose(answers["onnx"].sum(axis=1), 1.0) and np.ptp(answers["onnx"]) > 0.1


def test_a_framework_says_what_it_is(bench):
    assert bench.framework.name == registry.FRAMEWORK_OF[bench.format]
    assert bench.framework.runtime.split()[1][0].isdigit()


def test_a_model_says_what_goes_in_and_out(bench):
    model = bench.net()
    (inside,), (outside,) = model.signature.inputs, model.signature.outputs
    assert (inside.name, inside.dtype, inside.shape) == ("input", "float32", (None, 1, 8, 8))
    assert (outside.name, outside.dtype, outside.shape) == ("output", "float32", (None, 10))
    assert model.signature.has_free_rows
    model.close()


def test_rows_of_a_batch_are_the_rows_alone(bench):
    model, x = bench.net(), nets.example(4)
    together = model.run({"input": x}, ("output",))[0]
    for at in range(4):
        np.testing.assert_allclose(
            model.run({"input": x[at : at + 1]}, ("output",))[0], together[at : at + 1], rtol=1e-4
        )
    model.close()


def test_input_that_may_not_be_written_is_taken_as_it_is(bench):
    model = bench.scaled(2.0)
    x = np.ones((2, 4), np.float32)
    x.setflags(write=False)
    assert np.array_equal(model.run({"x": x}, ("y",))[0], np.full((2, 4), 2.0))
    model.close()


def test_an_empty_batch_has_an_empty_answer(bench):
    model = bench.scaled(2.0)
    assert model.run({"x": np.zeros((0, 4), np.float32)}, ("y",))[0].shape == (0, 4)
    model.close()


def test_a_bad_input_fails_with_one_line_and_the_next_call_succeeds(bench):
    model = bench.takes_row()
    with pytest.raises(ModelRunError) as error:
        model.run({"x": np.array([1, 99])}, ("y",))
    text = str(error.value)
    assert text.startswith("the model failed: ") and "\n" not in text and len(text) < 400
    assert str(bench.folder) not in text and not error.value.out_of_memory
    assert model.run({"x": np.array([2, 1])}, ("y",))[0].tolist() == [2.0, 1.0]
    model.close()


def test_weights_count_as_resident_and_are_gone_after_close(bench):
    small, large = bench.scaled(2.0, 4096), bench.scaled(3.0, LARGE_BYTES)
    if bench.format != "onnx":  # its optimiser folds these weights into one row
        assert large.resident_bytes() - small.resident_bytes() > LARGE_BYTES * 0.9
    small.close()
    large.close()


def test_a_model_that_can_page_leaves_memory_and_comes_back_the_same(bench):
    model = bench.scaled(3.0, LARGE_BYTES)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    before = model.run({"x": x}, ("y",))[0]
    if model.can_page:
        resident = model.resident_bytes()
        for _ in range(3):
            model.page_out()
            assert resident - model.resident_bytes() > LARGE_BYTES * 0.9
            model.page_in()
            assert abs(model.resident_bytes() - resident) < LARGE_BYTES * 0.1
            assert np.array_equal(model.run({"x": x}, ("y",))[0], before)
    else:
        assert model.kept_bytes() == 0
    model.close()


def test_an_answer_outlives_its_model(bench):
    model = bench.scaled(3.0)
    (answer,) = model.run({"x": np.ones((1, 4), np.float32)}, ("y",))
    model.close()
    gc.collect()
    assert answer.tolist() == [[3.0] * 4]


def test_another_file_than_was_published_is_damaged(bench):
    data = bench.file("net")
    spec, source = bench.spec(data, nets.INPUTS, nets.OUTPUTS, sha256="0" * 64)
    with pytest.raises(LoadError, match="checksum") as error:
        bench.framework.open(spec, source)
    assert error.value.failure.kind == "damaged" and str(bench.folder) not in str(error.value)


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_off_is_the_authors_fault(bench, cut):
    data = bench.file("net")
    with pytest.raises(LoadError) as error:
        bench.open(data[: int(len(data) * cut)] or b"\0", nets.INPUTS, nets.OUTPUTS)
    assert error.value.failure.kind == "broken" and "\n" not in str(error.value)
    assert str(bench.folder) not in str(error.value)


def sealed_zip() -> bytes:
    """What TorchScript begins like."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/constants.pkl", b"\x80\x02).")
    return file.getvalue()


def test_a_file_of_another_format_is_refused(bench):
    other = nets.onnx_net() if bench.format != "onnx" else sealed_zip()
    with pytest.raises(LoadError) as error:
        bench.open(other, nets.INPUTS, nets.OUTPUTS)
    assert error.value.failure.kind == "broken"
