"""ONNX Runtime behind the framework protocol: forms, paging, hostile prepared folders, errors."""

import os
import shutil

import msgspec
import numpy as np
import onnx
import pytest

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.frameworks import onnx_session, registry
from serai_gpu_pool.frameworks.base import LoadError, Source
from serai_gpu_pool.frameworks.paging import PAGE_BYTES
from serai_gpu_pool.prepare.folder import GRAPH
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.profile import FILE_NAME, decode, encode
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.prepared import layers, prepared, stored

_WIDTHS = (256, 512, 128)
_WEIGHT_BYTES = 4 * (256 * 512 + 512 * 128)


@pytest.fixture
def framework():
    return registry.make("onnx", "cpu", 1, 0)


@pytest.fixture
def spec(tmp_path):
    return stored(tmp_path, layers(*_WIDTHS))


@pytest.fixture
def source(tmp_path, spec):
    return Source(spec.path, str(prepared(tmp_path / "prepared", spec)))


@pytest.fixture(scope="module")
def rows():
    return {"x": np.random.default_rng(1).standard_normal((3, _WIDTHS[0])).astype(np.float32)}


def answer(model, inputs):
    (result,) = model.run(inputs, ("y",))
    return result


@pytest.fixture
def expected(framework, spec, rows):
    model = framework.open(spec, Source(spec.path))
    result = answer(model, rows)
    model.close()
    return result


def test_a_file_alone_opens_plain_and_cannot_page(framework, spec, rows):
    model = framework.open(spec, Source(spec.path))
    assert (model.form, model.can_page, model.kept_bytes()) == ("plain", False, 0)
    assert model.resident_bytes() >= spec.num_bytes
    assert str(model.signature.inputs[0]) == f'"x": float32 [?, {_WIDTHS[0]}]'
    model.page_out()
    model.page_in()
    assert answer(model, rows).shape == (3, _WIDTHS[-1])
    assert framework.improve(model, spec, Source(spec.path)) is None
    model.close()


def test_a_prepared_model_opens_mapped_and_improves_to_packed_with_the_same_answers(
    framework, spec, source, rows, expected
):
    mapped = framework.open(spec, source)
    assert (mapped.form, mapped.can_page) == ("mapped", True)
    np.testing.assert_allclose(answer(mapped, rows), expected, rtol=1e-4, atol=1e-5)
    packed = framework.improve(mapped, spec, source)
    assert packed.form == "packed"
    np.testing.assert_allclose(answer(packed, rows), expected, rtol=1e-4, atol=1e-5)
    mapped.close()
    np.testing.assert_allclose(answer(packed, rows), expected, rtol=1e-4, atol=1e-5)
    assert framework.improve(packed, spec, source) is None
    packed.close()


@pytest.mark.parametrize("form", ["mapped", "packed"])
def test_paging_out_leaves_no_weights_and_paging_in_brings_all_of_them(framework, tmp_path, spec, rows, expected, form):
    source = Source(spec.path, str(prepared(tmp_path / "p", spec, first=form, best=form)))
    model = framework.open(spec, source)
    assert model.form == form
    for _ in range(3):
        assert model.resident_bytes() - model.kept_bytes() >= _WEIGHT_BYTES
        model.page_out()
        assert model.resident_bytes() == model.kept_bytes()
        model.page_in()
        np.testing.assert_allclose(answer(model, rows), expected, rtol=1e-4, atol=1e-5)
    model.page_out()
    np.testing.assert_allclose(answer(model, rows), expected, rtol=1e-4, atol=1e-5)  # slower, not wrong
    model.close()


def test_the_mapped_form_does_not_bring_in_what_only_the_packed_one_reads(framework, spec, source):
    model = framework.open(spec, source)
    pages = model._pages
    assert pages.wanted_bytes <= _WEIGHT_BYTES + 32 * PAGE_BYTES < pages.mapped_bytes
    assert pages.wanted_bytes <= model.resident_bytes() - model.kept_bytes()
    model.close()


def test_one_form_keeps_its_pages_when_the_other_loses_its_own(framework, spec, source, rows, expected):
    mapped = framework.open(spec, source)
    packed = framework.improve(mapped, spec, source)
    mapped.page_out()
    assert packed.resident_bytes() >= _WEIGHT_BYTES
    assert mapped.resident_bytes() == mapped.kept_bytes()
    packed.page_out()
    mapped.page_in()
    assert mapped.resident_bytes() >= _WEIGHT_BYTES
    np.testing.assert_allclose(answer(mapped, rows), expected, rtol=1e-4, atol=1e-5)
    mapped.close()
    packed.close()


def test_a_model_without_large_weights_has_a_prepared_form_without_a_weights_file(framework, tmp_path):
    spec = stored(tmp_path, models.add_one())
    folder = prepared(tmp_path / "p", spec)
    (folder / WEIGHTS).unlink(missing_ok=True)
    model = framework.open(spec, Source(spec.path, str(folder)))
    assert model.form == "mapped"
    model.page_out()
    assert answer(model, {"x": np.zeros((2, 3), np.float32)}).tolist() == [[1, 1, 1], [1, 1, 1]]
    model.close()


# ── prepared folders that are not ours ─────────────────────────────────────────────────────────────────────────────


def _change_profile(folder, **changes):
    profile = msgspec.structs.replace(decode((folder / FILE_NAME).read_bytes()), **changes)
    (folder / FILE_NAME).write_bytes(encode(profile))


def _change_graph(folder, change):
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    change(graph)
    (folder / GRAPH).write_bytes(graph.SerializeToString())
    _change_profile(folder, graph_bytes=(folder / GRAPH).stat().st_size)


def _weights_entry(graph, key):
    tensor = next(one for one in graph.graph.initializer if one.external_data)
    return next(one for one in tensor.external_data if one.key.startswith(key))


def _elsewhere(folder):
    def change(graph):
        _weights_entry(graph, "location").value = "../secret.bin"

    shutil.copy(folder / WEIGHTS, folder.parent / "secret.bin")
    _change_graph(folder, change)


def _absolute(folder):
    def change(graph):
        _weights_entry(graph, "location").value = str(folder / WEIGHTS)

    _change_graph(folder, change)


def _beyond(folder):
    def change(graph):
        _weights_entry(graph, "offset").value = str((folder / WEIGHTS).stat().st_size - 16)

    _change_graph(folder, change)


def _packed_beyond(folder):
    def change(graph):
        entry = _weights_entry(graph, "prepacked_0")
        entry.value = f"{entry.value.partition('|')[0]}|0;{1 << 40};0"

    _change_graph(folder, change)


def _negative(folder):
    def change(graph):
        _weights_entry(graph, "offset").value = "-4096"

    _change_graph(folder, change)


def _unknown_entry(folder):
    def change(graph):
        tensor = next(one for one in graph.graph.initializer if one.external_data)
        tensor.external_data.add(key="checksum", value="0")

    _change_graph(folder, change)


def _said_twice(folder):
    def change(graph):
        tensor = next(one for one in graph.graph.initializer if one.external_data)
        tensor.external_data.add(key="location", value=WEIGHTS)

    _change_graph(folder, change)


def _foreign_operator(folder):
    def change(graph):
        graph.graph.node[0].domain = "evil.corp"

    _change_graph(folder, change)


def _short_weights(folder):
    with open(folder / WEIGHTS, "r+b") as file:
        file.truncate(4096)


def _linked(name):
    def change(folder):
        (folder / name).rename(folder.parent / f"real-{name}")
        (folder / name).symlink_to(folder.parent / f"real-{name}")

    return change


def _hard_linked(folder):
    os.link(folder / WEIGHTS, folder.parent / "twin")


def _pipe(folder):
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)


def _written(name, data):
    def change(folder):
        (folder / name).write_bytes(data)

    return change


HOSTILE = {
    "another model's": lambda folder: _change_profile(folder, sha256="0" * 64),
    "graph of another size": lambda folder: _change_profile(folder, graph_bytes=1),
    "no form": lambda folder: _change_profile(folder, graph_bytes=0),
    "weights elsewhere": _elsewhere,
    "weights at an absolute path": _absolute,
    "weights beyond the end": _beyond,
    "packed weights beyond the end": _packed_beyond,
    "weights before the start": _negative,
    "unknown entry": _unknown_entry,
    "entry said twice": _said_twice,
    "foreign operator": _foreign_operator,
    "weights too short": _short_weights,
    "graph is a link": _linked(GRAPH),
    "weights are a link": _linked(WEIGHTS),
    "weights have another name": _hard_linked,
    "graph is a pipe": _pipe,
    "graph is garbage": _written(GRAPH, b"\x00" * 100),
    "profile is garbage": _written(FILE_NAME, b"{"),
    "profile is not ours": _written(FILE_NAME, b'{"sha256": 1}'),
    "profile is huge": _written(FILE_NAME, b" " * (2 << 20)),
    "profile is missing": lambda folder: (folder / FILE_NAME).unlink(),
    "weights are missing": lambda folder: (folder / WEIGHTS).unlink(),
    "folder is missing": lambda folder: shutil.rmtree(folder),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_prepared_folder_that_is_not_as_we_make_them_is_not_opened_and_the_file_is(
    framework, tmp_path, spec, source, rows, expected, harm
):
    harm(tmp_path / "prepared")
    model = framework.open(spec, source)
    assert model.form == "plain"
    np.testing.assert_array_equal(answer(model, rows), expected)
    assert framework.improve(model, spec, source) is None
    model.close()


def test_a_folder_that_the_runtime_does_not_open_is_left_for_the_file(
    framework, tmp_path, spec, source, rows, expected
):
    def change(graph):
        graph.graph.node[0].op_type = "NoSuchOperator"

    _change_graph(tmp_path / "prepared", change)
    model = framework.open(spec, source)
    assert model.form == "plain"
    np.testing.assert_array_equal(answer(model, rows), expected)
    model.close()


def test_a_folder_that_has_changed_since_it_was_verified_is_verified_again(framework, tmp_path, spec, source):
    framework.open(spec, source).close()
    _elsewhere(tmp_path / "prepared")
    model = framework.open(spec, source)
    assert model.form == "plain"
    model.close()


# ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _failure(framework, spec: ModelSpec, path=None):
    with pytest.raises(LoadError) as caught:
        framework.open(spec, Source(path or spec.path))
    assert "/" not in caught.value.failure.message.replace("I/O", "")
    return caught.value.failure


def test_a_file_that_is_not_what_was_published_is_damaged(framework, tmp_path, spec):
    with open(spec.path, "r+b") as file:
        file.seek(5000)
        file.write(b"XXXX")
    failure = _failure(framework, spec)
    assert failure.kind == "damaged"
    assert "checksum" in failure.message


def test_a_file_that_is_not_there_is_damaged(framework, tmp_path, spec):
    assert _failure(framework, spec, str(tmp_path / "gone")).kind == "damaged"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no graph"),
        (b"not a model", "not an ONNX model"),
        (layers(8, 8)[:-40], "too early"),
        (models.external("weights.bin"), "another file"),
        (models.external("/etc/passwd"), "another file"),
        (models.foreign_operator("evil.corp", "Run"), "evil.corp"),
        (models.foreign_operator("com.microsoft.nchwc", "Conv"), "com.microsoft.nchwc"),
        (models.foreign_operator("com.microsoft", "EPContext"), "EPContext"),
        (models.typed(onnx.TensorProto.STRING), "string"),
    ],
)
def test_a_file_that_is_no_model_of_ours_is_broken_and_says_why(framework, tmp_path, data, word):
    failure = _failure(framework, stored(tmp_path, data))
    assert failure.kind == "broken"
    assert word in failure.message


def test_a_model_that_asks_for_terabytes_fails_for_memory_and_the_worker_lives(framework, tmp_path):
    spec = stored(tmp_path, models.huge_constant())
    model = framework.open(spec, Source(spec.path))  # the runtime puts off what is too large until it runs
    with pytest.raises(ModelRunError) as caught:
        model.run({"x": np.ones(1, np.float32)}, ("y",))
    assert caught.value.out_of_memory


def test_a_run_that_fails_says_whether_memory_was_what_it_lacked(framework, tmp_path):
    table = stored(tmp_path, models.take_row())
    model = framework.open(table, Source(table.path))
    with pytest.raises(ModelRunError, match="out of") as caught:
        model.run({"x": np.array([9])}, ("y",))
    assert not caught.value.out_of_memory
    explosion = stored(tmp_path, models.explosion())
    model = framework.open(explosion, Source(explosion.path))
    with pytest.raises(ModelRunError) as caught:
        model.run({"x": np.array([1 << 42])}, ("y",))
    assert caught.value.out_of_memory


def test_a_checksum_is_computed_once_for_all_loads_of_a_file(framework, tmp_path, spec):
    framework.open(spec, Source(spec.path)).close()
    moved = tmp_path / "moved"
    shutil.copy(spec.path, moved)
    framework.open(spec, Source(str(moved))).close()
    assert framework._checked == {spec.sha256}


def test_nothing_is_sent_to_anybody():
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_build_without_cuda_says_what_to_install():
    if "CUDAExecutionProvider" in onnx_session.ort.get_available_providers():
        pytest.skip("this build has CUDA")
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        registry.make("onnx", "cuda:0", 1, 1 << 30)


def test_formats_without_their_framework_say_how_to_install_it():
    assert registry.missing("onnx") == ""
    for format in ("torchscript", "saved_model"):
        sentence = registry.missing(format)
        assert sentence == "" or "make frameworks" in sentence
