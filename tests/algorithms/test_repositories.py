"""What every first-party algorithm's folder has, whatever it does."""

import re

import pytest
from local_models import ALGORITHMS, manifest, model_bytes

from serai_gateway.build.manifest import parse_manifest
from serai_gpu_pool.formats import read_onnx

NAMES = sorted(str(path.parent.relative_to(ALGORITHMS)) for path in ALGORITHMS.rglob("algorithm.toml"))


def test_the_first_party_algorithms_are_all_here():
    assert NAMES == ["audio/speech", "demo/hello", "vision/classify", "vision/cutout", "vision/digits"]


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_says_whose_it_is_and_what_runs(name):
    folder = ALGORITHMS / name
    about = manifest(folder)["algorithm"]
    assert f"{about['owner']}/{about['name']}" == name
    assert about["tagline"]
    if "language" in about:
        assert "def apply(input):" in (folder / "src" / f"{about['name']}.py").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_for_no_permission(name):
    assert manifest(ALGORITHMS / name)["permissions"] == {"network": False, "calls": False}


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_shows_a_call_and_its_answer(name):
    readme = (ALGORITHMS / name / "README.md").read_text()
    assert f"/v1/algo/{name}" in readme
    assert "curl" in readme
    for mentioned in re.findall(r"@([\w.]+)", readme):
        assert (ALGORITHMS / name / mentioned).is_file(), mentioned


@pytest.mark.parametrize("name", NAMES)
def test_models_are_pinned_and_their_licence_is_told(name):
    folder = ALGORITHMS / name
    for model in manifest(folder).get("models", {}).values():
        if "file" in model:
            assert (folder / model["file"]).is_file()
        else:
            assert re.fullmatch(r"[\w.-]+==[\w.]+", model["wheel"])
            assert re.fullmatch(r"[0-9a-f]{64}", model["sha256"])
        assert (folder / "NOTICE").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_publishing_takes_the_manifest_as_it_is(name):
    read = parse_manifest((ALGORITHMS / name / "algorithm.toml").read_text())
    assert f"{read.owner}/{read.name}" == name
    assert read.kind == ("model" if name == "vision/digits" else "python")
    assert read.sample is not None and read.sample.input is not None


@pytest.mark.parametrize("name", NAMES)
def test_publishing_takes_the_models_as_they_are(name, tmp_path):
    for model in manifest(ALGORITHMS / name).get("models", {}).values():
        file = tmp_path / "model.onnx"
        file.write_bytes(model_bytes(ALGORITHMS / name, model))
        assert read_onnx(memoryview(file.read_bytes())).num_nodes > 0


def test_calls_are_stacked_where_the_model_allows_it_and_nowhere_else(tmp_path):
    # Stacking the steps of two recordings would make one recording of them.
    for name, may_be_stacked in {"vision/classify": True, "vision/digits": True, "audio/speech": False}.items():
        (model,) = manifest(ALGORITHMS / name)["models"].values()
        file = tmp_path / "model.onnx"
        file.write_bytes(model_bytes(ALGORITHMS / name, model))
        read = read_onnx(memoryview(file.read_bytes()))
        first = [tensor.shape[0] for tensor in (*read.inputs, *read.outputs) if tensor.shape]
        assert all(isinstance(size, str) for size in first) == may_be_stacked, (name, first)
