"""Model files are checked by a process of their own, which may die, hang or eat memory without taking us along."""

import io
import os
import subprocess
import sys
import zipfile

import pytest

from serai_gateway.build import inspection
from serai_gateway.build.errors import InvalidModel
from serai_gateway.build.inspection import Inspector
from serai_gateway.build.manifest import parse_manifest
from serai_gateway.build.models import store_models
from serai_gateway.build.testing import onnx_fields, tiny_onnx, write_tree
from serai_gateway.files import open_store
from serai_gpu_pool.formats import Tensor


@pytest.fixture
def inspector():
    with Inspector() as inspector:
        yield inspector


def pid(inspector):
    return inspector._process.pid


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny_onnx())
    return path


def busy(folder):
    """Some seconds of work: as many fields as are looked at."""
    path = folder / "busy.onnx"
    path.write_bytes(onnx_fields((1, 8)) + b"\x08\x01" * 4_900_000)
    return path


def test_one_process_reads_all_files_and_ends_with_the_build(inspector, model, tmp_path):
    report = inspector.inspect(model)
    assert (report.format, report.refused, report.num_nodes) == ("onnx", "", 1)
    assert report.inputs == (Tensor("x", "float32", ("N", 3)),)
    first = pid(inspector)
    (tmp_path / "junk").write_bytes(b"junk")
    assert "no model file of a known format" in inspector.inspect(tmp_path / "junk").refused
    assert inspector.inspect(model) == report and pid(inspector) == first
    inspector.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_nothing_of_ours_reads_a_file(model, inspector, monkeypatch):
    def never(*_):
        raise AssertionError("read in this process")

    for name in ("read_onnx", "sniff", "map_model"):
        monkeypatch.setattr(f"serai_gpu_pool.formats.inspector.{name}", never)
    assert inspector.inspect(model).num_nodes == 1


def test_the_process_has_limits_and_no_secrets(model, inspector, monkeypatch):
    monkeypatch.setenv("SERAI_SECRET", "hunter2")
    inspector.inspect(model)
    with open(f"/proc/{pid(inspector)}/environ", "rb") as file:
        names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0") if entry}
    assert names <= {b"ORT_DISABLE_TELEMETRY", b"LANG", b"LC_CTYPE"}
    with open(f"/proc/{pid(inspector)}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[0] for line in file}
    assert int(limits["Max address space"]) == (2 << 30) + model.stat().st_size
    assert 30 <= int(limits["Max cpu time"]) <= 40
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == "0"


def test_a_file_that_takes_too_long_is_given_up(tmp_path, model):
    with Inspector(max_seconds=0.3) as inspector:
        with pytest.raises(InvalidModel, match=r"takes longer than 0\.3 s"):
            inspector.inspect(busy(tmp_path))
        assert inspector._process is None
    with Inspector() as inspector:
        assert inspector.inspect(model).num_nodes == 1


def test_all_files_of_a_build_have_one_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "MAX_BUILD_SECONDS", 0.3)
    with Inspector() as inspector, pytest.raises(InvalidModel, match="publish fewer of them together"):
        inspector.inspect(busy(tmp_path))


def test_a_process_that_dies_is_no_error_of_ours(inspector, model):
    inspector.inspect(model)
    os.kill(pid(inspector), 9)
    with pytest.raises(InvalidModel, match=r"cannot be checked within 2 GiB of memory \(SIGKILL\)"):
        inspector.inspect(model)
    assert inspector.inspect(model).num_nodes == 1  # by the next one


def test_memory_beyond_the_limit_is_explained(model):
    """The process itself says so, and lives on."""
    program = (
        "import os, resource, sys\n"
        "from serai_gpu_pool.formats import inspector\n"
        "def greedy(data): return bytearray(4 << 30)\n"
        "inspector.read_onnx = greedy\n"
        "inspector._limit(0)\n"
        "print(inspector.inspect(os.open(sys.argv[1], os.O_RDONLY)).refused)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(model)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "takes more than 2 GiB of memory: simplify its graph" in said


def test_names_without_end_are_refused(inspector, tmp_path):
    shape = onnx_fields((1, onnx_fields((2, b"N" * (2 << 20)))))
    value = onnx_fields((1, b"x"), (2, onnx_fields((1, onnx_fields((1, 1), (2, shape))))))
    graph = onnx_fields((1, onnx_fields((4, b"Relu"))), (11, value), (12, value))
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_fields((1, 8), (7, graph), (8, onnx_fields((2, 17)))))
    with pytest.raises(InvalidModel, match="take more than 1 MiB to name"):
        inspector.inspect(path)


def test_a_hostile_archive_is_refused_by_the_model_that_it_is(home, tmp_path):
    """41 kB that kept a thread busy for hours: one word of program text whose quote does not end."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (
            ("m/code/__torch__.py", b"'" + b"\\'" * (8 << 19)),
            ("m/data.pkl", b"\x80\x02)."),
            ("m/constants.pkl", b"\x80\x02)."),
            ("m/version", b"3"),
        ):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    tree = write_tree(tmp_path / "tree", {"m.pt": file.getvalue()})
    entry = '[algorithm]\nowner = "a"\nname = "b"\n[models.rx]\nfile = "m.pt"\n'
    with pytest.raises(InvalidModel, match=r"models\.rx: .*a quote in it does not end"):
        store_models(parse_manifest(entry), tree, open_store(home), print)
