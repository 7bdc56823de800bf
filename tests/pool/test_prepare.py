"""Opening, checking, measuring and rewriting a model in a box; and believing nothing of what comes out."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device import sandbox
from serai_gpu_pool.frameworks import registry
from serai_gpu_pool.frameworks.base import Source
from serai_gpu_pool.frameworks.onnx import OnnxFramework
from serai_gpu_pool.prepare import PrepareError, outside, part, prepare, prepared_folder, runtime_tag
from serai_gpu_pool.prepare.folder import GRAPH, FolderError, verify
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.prepare.inside import choose
from serai_gpu_pool.prepare.job import RESULT, Measured
from serai_gpu_pool.profile import FILE_NAME, FormProfile, Profile
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.models import FLOAT, build
from serai_gpu_pool.testing.prepared import layers, prepared, stored

_CLASSIFY = Path(__file__).parents[2] / "algorithms/vision/classify/models/mobilenet_v2.onnx"
#: Enough for any model here, on a machine that does much else.
_TIMEOUT_S = 60.0

in_a_box = pytest.mark.needs_bubblewrap


def do(spec: ModelSpec, home: Path, **options):
    return prepare(spec, home, threads=1, **{"timeout_s": _TIMEOUT_S} | options)


def refusal(spec: ModelSpec, home: Path, **options) -> PrepareError:
    with pytest.raises(PrepareError) as caught:
        do(spec, home, **options)
    assert left_overs(home) == []
    assert str(home) not in str(caught.value)
    return caught.value


def left_overs(home: Path) -> list[str]:
    folder = home / "prepared"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 49 MB, prepared once for all tests that look at the result."""
    folder = tmp_path_factory.mktemp("large")
    spec = stored(folder, layers(2048, 3000, 2048))
    return spec, folder / "home", do(spec, folder / "home")


# ── what comes of it ───────────────────────────────────────────────────────────────────────────────────────────────


@in_a_box
def test_what_was_prepared_ahead_is_copied_if_it_is_whole(large, tmp_path, monkeypatch):
    spec, ahead, made = large
    monkeypatch.setattr(outside, "_run", lambda *_: pytest.fail("it was prepared again"))
    copied = do(spec, tmp_path / "one", ahead=ahead)
    assert copied.profile == made.profile and copied.folder == prepared_folder(
        tmp_path / "one", spec, runtime_tag("onnx")
    )
    for name in (GRAPH, WEIGHTS, FILE_NAME):
        assert (copied.folder / name).read_bytes() == (made.folder / name).read_bytes()
        assert (copied.folder / name).stat().st_ino != (made.folder / name).stat().st_ino
    (copied.folder / GRAPH).chmod(0o644)
    with open(copied.folder / GRAPH, "r+b") as file:
        file.truncate(100)
    monkeypatch.undo()
    assert do(spec, tmp_path / "two", ahead=tmp_path / "one").folder.is_dir(), "a damaged one is made anew"
    assert verify(prepared_folder(tmp_path / "two", spec, runtime_tag("onnx")), spec.sha256)


@in_a_box
def test_a_large_model_gets_a_form_that_pages_and_figures_for_each_form(large):
    spec, home, result = large
    profile = result.profile
    assert result.folder == prepared_folder(home, spec, runtime_tag("onnx"))
    assert sorted(os.listdir(result.folder)) == [GRAPH, FILE_NAME, WEIGHTS]
    assert set(profile.forms) == {"plain", "mapped", "packed"}
    assert profile.first in ("mapped", "packed")  # which, depends on the machine
    assert profile.best in ("mapped", "packed")
    assert profile.inputs == (TensorSpec("x", "float32", (-1, 2048)),)
    assert profile.outputs == (TensorSpec("y", "float32", (-1, 2048)),)
    for name in ("mapped", "packed"):
        form = profile.forms[name]
        assert set(form.batch_s) >= {1, 2, 4, 8} <= set(form.activation_bytes)
        assert all(seconds > 0 for seconds in form.batch_s.values())
        assert spec.num_bytes * 0.99 < form.resident_bytes < spec.num_bytes + (8 << 20)
        assert form.kept_bytes < 4 << 20
        assert form.page_in_s is not None
    # Rearranging one of its two matrices needs memory of its own; mapped pages need none.
    assert profile.forms["mapped"].load_peak_bytes < 8 << 20 < profile.forms["packed"].load_peak_bytes
    assert profile.forms["plain"].load_peak_bytes > spec.num_bytes
    assert profile.forms["plain"].page_in_s is None


@in_a_box
def test_the_prepared_form_is_what_workers_open_and_answers_as_the_file_does(large):
    spec, _, result = large
    framework = OnnxFramework("cpu", 1, 0)
    source = Source(spec.path, str(result.folder))
    inputs = {"x": np.random.default_rng(5).standard_normal((4, 2048)).astype(np.float32)}
    opened = framework.open(spec, source)
    assert opened.form == result.profile.first
    plain = framework.open(spec, Source(spec.path))
    (expected,) = plain.run(inputs, ("y",))
    plain.close()
    folder = verify(result.folder, spec.sha256)
    for model in (
        opened,
        framework.open_prepared(spec, folder, "mapped"),
        framework.open_prepared(spec, folder, "packed"),
    ):
        np.testing.assert_allclose(model.run(inputs, ("y",))[0], expected, rtol=1e-3, atol=1e-4)
        model.close()


@in_a_box
def test_what_is_stored_is_read_only_and_nothing_else_is_left(large):
    _, home, result = large
    assert left_overs(home) == [result.folder.name]
    assert {path.stat().st_mode & 0o777 for path in result.folder.iterdir()} == {0o444}
    assert result.folder.stat().st_mode & 0o777 == 0o700


@in_a_box
def test_a_model_is_prepared_once(large):
    spec, home, result = large
    gone = msgspec.structs.replace(spec, path="/nowhere")  # so it cannot be done again
    assert do(gone, home) == result


@in_a_box
def test_a_damaged_result_is_made_again(tmp_path):
    spec = stored(tmp_path, layers(64, 256, 64))
    home = tmp_path / "home"
    folder = do(spec, home).folder
    (folder / WEIGHTS).chmod(0o644)
    (folder / WEIGHTS).write_bytes(b"")
    again = do(spec, home)
    assert again.folder == folder
    assert verify(folder, spec.sha256).profile == again.profile
    assert left_overs(home) == [folder.name]


@in_a_box
def test_two_at_once_agree_on_one_result(tmp_path):
    spec = stored(tmp_path, layers(64, 256, 64))
    home = tmp_path / "home"
    results = []
    both = [threading.Thread(target=lambda: results.append(do(spec, home))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(results) == 2
    assert results[0].folder == results[1].folder
    assert left_overs(home) == [results[0].folder.name]
    verify(results[0].folder, spec.sha256)


@in_a_box
def test_the_first_party_model_gives_the_same_answers_in_every_form(tmp_path):
    spec = stored(tmp_path, _CLASSIFY.read_bytes())
    result = do(spec, tmp_path / "home", timeout_s=24)
    folder = verify(result.folder, spec.sha256)
    assert folder.profile.weights_bytes > spec.num_bytes
    framework = registry.make("onnx", "cpu", 1, 0)
    plain = framework.open(spec, Source(spec.path))
    prepared_one = framework.open(spec, Source(spec.path, str(result.folder)))
    assert prepared_one.form == result.profile.first != "plain"
    slot = plain.signature.inputs[0]
    shape = [dim or 1 for dim in slot.shape or ()]
    inputs = {slot.name: np.random.default_rng(0).integers(0, 255, shape).astype(slot.dtype)}
    names = plain.signature.output_names
    for one, other in zip(plain.run(inputs, names), prepared_one.run(inputs, names), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    plain.close()
    prepared_one.close()


@in_a_box
def test_a_small_model_needs_no_weights_file(tmp_path):
    result = do(stored(tmp_path, models.add_one()), tmp_path / "home")
    assert sorted(os.listdir(result.folder)) == [GRAPH, FILE_NAME]
    assert result.profile.first in ("mapped", "packed")
    assert result.profile.weights_bytes == 0


@in_a_box
def test_without_a_sandbox_it_is_done_all_the_same_where_the_operator_allows_it(tmp_path):
    spec = stored(tmp_path, layers(64, 256, 64))
    result = do(spec, tmp_path / "home", sandboxed=False)
    assert verify(result.folder, spec.sha256).profile.first in ("mapped", "packed")


@in_a_box
def test_formats_that_have_no_faster_form_are_opened_and_measured(tmp_path):
    pytest.importorskip("torch")
    from serai_gpu_pool.testing import nets, torch_models

    spec = stored(tmp_path, torch_models.net_script(), owner="alice")
    spec = msgspec.structs.replace(spec, format="torchscript", inputs=nets.INPUTS, outputs=nets.OUTPUTS)
    result = do(spec, tmp_path / "home", timeout_s=120)
    assert os.listdir(result.folder) == [FILE_NAME]
    assert result.profile.first == result.profile.best
    assert result.profile.inputs == nets.INPUTS
    assert result.profile.forms[result.profile.best].seconds(2)


def _random() -> bytes:
    """x [N, 3] and noise: no two answers are the same."""
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["noise"]), helper.make_node("Add", ["x", "noise"], ["y"])]
    return build(nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 3])])


def _choosy() -> bytes:
    """Index into a table with one row, beyond what anybody would guess."""
    nodes = [helper.make_node("Add", ["x", "far"], ["at"]), helper.make_node("Gather", ["table", "at"], ["y"])]
    weights = [("far", np.int64(1000)), ("table", np.zeros(1, np.float32))]
    return build(nodes, [("x", TensorProto.INT64, ["N"])], [("y", FLOAT, ["N"])], weights)


def _endless() -> bytes:
    """Goes round until x changes, which it does not."""
    model = onnx.load_from_string(models.loop())
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "many"], ["turns"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 60], np.int64), "many"))
    model.graph.node.insert(1, helper.make_node("Squeeze", ["turns"], ["turn"]))
    model.graph.node[2].input[0] = "turn"
    return model.SerializeToString()


@in_a_box
@pytest.mark.parametrize("data", [_random(), _choosy()], ids=["other answers each time", "no input fits"])
def test_a_model_whose_answers_cannot_be_compared_stays_plain(tmp_path, data):
    result = do(stored(tmp_path, data), tmp_path / "home")
    assert os.listdir(result.folder) == [FILE_NAME]
    assert set(result.profile.forms) == {"plain"}
    assert result.profile.first == result.profile.best == "plain"
    with pytest.raises(FolderError, match="no prepared form"):
        verify(result.folder, result.profile.sha256)


@in_a_box
def test_a_model_that_runs_for_ever_has_no_figures_for_runs(tmp_path):
    result = do(stored(tmp_path, _endless()), tmp_path / "home", timeout_s=4)
    assert result.profile.forms["plain"].batch_s == {}
    assert result.profile.inputs == (TensorSpec("x", "int64", (1,)),)


def _until(found, deadline_s: float = 30.0):
    """What `found` returns, as soon as it is something."""
    until = time.monotonic() + deadline_s
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < until, "it has not happened"
        time.sleep(0.01)


@in_a_box
def test_the_box_ends_with_whoever_asked_and_the_next_one_cleans_up(tmp_path):
    spec, home = stored(tmp_path, _endless()), tmp_path / "home"
    code = """
import sys, msgspec
from pathlib import Path
from serai.ipc.messages import ModelSpec
from serai_gpu_pool.prepare import prepare
prepare(msgspec.json.decode(sys.argv[1], type=ModelSpec), Path(sys.argv[2]), threads=1)
"""
    maker = subprocess.Popen([sys.executable, "-c", code, msgspec.json.encode(spec).decode(), str(home)])

    def inside():
        children = Path(f"/proc/{maker.pid}/task/{maker.pid}/children").read_text().split()
        pids = [sandbox.inner_pid(int(child)) for child in children]
        return [pid for pid in pids if pid and b"serai_gpu_pool.prepare" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    watched = os.pidfd_open(_until(inside)[0])
    maker.kill()
    maker.wait()
    assert select.select([watched], [], [], 30)[0], "the box outlives whoever asked"
    os.close(watched)
    assert [name for name in left_overs(home) if name.startswith(".part-")]
    result = do(stored(tmp_path, models.add_one()), home)
    assert left_overs(home) == [result.folder.name]


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────────────────


@in_a_box
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"not a model", "not an ONNX model"),
        (layers(8, 8)[:-40], "too early"),
        (models.external("../other"), "another file"),
        (models.foreign_operator("evil.corp", "Run"), "evil.corp"),
        (models.foreign_operator("", "NoSuchOperator"), "NoSuchOperator"),
        (models.typed(TensorProto.STRING), "string"),
    ],
)
def test_a_file_that_is_no_model_is_its_authors_fault(tmp_path, data, word):
    error = refusal(stored(tmp_path, data, "net"), tmp_path / "home")
    assert error.kind == "broken"
    assert word in str(error)
    assert '"net"' in str(error)


@in_a_box
def test_a_stored_copy_that_is_damaged_is_not_its_authors_fault(tmp_path):
    spec = stored(tmp_path, layers(8, 8))
    Path(spec.path).write_bytes(layers(8, 8, seed=1))
    assert refusal(spec, tmp_path / "home").kind == "damaged"


@in_a_box
def test_a_tiny_file_that_asks_for_terabytes_is_refused_with_the_limit(tmp_path):
    error = refusal(stored(tmp_path, models.huge_constant()), tmp_path / "home", memory_bytes=512 << 20)
    assert error.kind == "refused"
    assert "512 MiB" in str(error)


def _slow_to_open(side: int, rounds: int) -> bytes:
    """Has a product of large constants, which is computed when it is opened."""
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["c0"])]
    nodes += [helper.make_node("MatMul", [f"c{at}", "c0"], [f"c{at + 1}"]) for at in range(rounds)]
    nodes += [
        helper.make_node("ReduceSum", [f"c{rounds}"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return build(nodes, [("x", FLOAT, ["N"])], [("y", FLOAT, ["N"])], [("size", np.array([side, side], np.int64))])


@in_a_box
def test_a_file_that_takes_for_ever_to_open_is_refused_with_the_limit(tmp_path):
    error = refusal(stored(tmp_path, _slow_to_open(6000, 50)), tmp_path / "home", timeout_s=3)
    assert error.kind == "refused"
    assert "3 s" in str(error)


@in_a_box
def test_a_file_that_needs_too_much_memory_to_open_is_refused_with_the_limit(tmp_path):
    error = refusal(stored(tmp_path, _slow_to_open(4000, 1)), tmp_path / "home", memory_bytes=16 << 20)
    assert error.kind == "refused"
    assert "16 MiB" in str(error)


def test_a_machine_without_a_sandbox_says_so(tmp_path):
    spec = stored(tmp_path, models.add_one())
    code = """
import json, sys
import msgspec
from pathlib import Path
from serai.ipc.messages import ModelSpec
from serai_gpu_pool.prepare import PrepareError, prepare
try:
    prepare(msgspec.json.decode(sys.argv[1], type=ModelSpec), Path(sys.argv[2]), threads=1)
except PrepareError as error:
    print(json.dumps([error.kind, str(error)]))
"""
    words = [sys.executable, "-c", code, msgspec.json.encode(spec).decode(), str(tmp_path / "home")]
    done = subprocess.run(words, env={"PATH": "/nowhere"}, capture_output=True, check=True)
    kind, message = json.loads(done.stdout)
    assert kind == "unavailable"
    assert "bwrap" in message


# ── what comes out of a box is not believed ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def box(tmp_path):
    """A job and its folder as a box has left it: with files that are as they should be."""
    spec = stored(tmp_path, layers(64, 256, 64))
    folder = prepared(tmp_path / "part", spec)
    profile = verify(folder, spec.sha256).profile
    (folder / FILE_NAME).unlink()
    job = outside._job(spec, folder, profile.runtime, profile.threads, 10, 1 << 30, True)
    _answer(folder, profile)
    return job, folder, profile


def _answer(folder: Path, profile: Profile) -> None:
    (folder / RESULT).write_bytes(msgspec.json.encode(Measured(profile)))


def test_a_result_that_is_as_it_should_be_is_taken(box):
    job, folder, profile = box
    assert outside._take(job, folder) == profile
    assert sorted(os.listdir(folder)) == [GRAPH, FILE_NAME, WEIGHTS]


FORGED = {
    "another model's": lambda profile: {"sha256": "0" * 64},
    "another runtime's": lambda profile: {"runtime": "../../etc"},
    "a form without figures": lambda profile: {"best": "plain"},
    "a graph of another size": lambda profile: {"graph_bytes": 7},
    "a weights file of another size": lambda profile: {"weights_bytes": 1 << 40},
    "a negative size": lambda profile: {"graph_bytes": -1},
    "an endless time": lambda profile: {"forms": profile.forms | {"packed": FormProfile(1e300, 0)}},
    "a negative time": lambda profile: {"forms": profile.forms | {"packed": FormProfile(-1.0, 0)}},
    "a batch of none": lambda profile: {"forms": profile.forms | {"packed": FormProfile(1.0, 0, batch_s={0: 1.0})}},
    "too many bytes": lambda profile: {"forms": profile.forms | {"packed": FormProfile(1.0, 1 << 62)}},
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_profile_is_refused(box, forge):
    job, folder, profile = box
    _answer(folder, msgspec.structs.replace(profile, **forge(profile)))
    with pytest.raises(PrepareError) as caught:
        outside._take(job, folder)
    assert caught.value.kind == "broken"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'{"type": "measured"}', b'{"type": "failed", "kind": "mine", "message": ""}', b"[" * 100_000],
    ids=["nothing", "half", "a list", "no profile", "unknown kind", "nested"],
)
def test_a_result_that_is_none_is_refused(box, raw):
    job, folder, _ = box
    (folder / RESULT).write_bytes(raw)
    with pytest.raises(PrepareError, match="no result"):
        outside._take(job, folder)


def test_a_graph_that_names_another_file_is_refused(box):
    job, folder, profile = box
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    graph.graph.initializer[0].external_data[0].value = "/etc/passwd"
    (folder / GRAPH).write_bytes(graph.SerializeToString())
    _answer(folder, msgspec.structs.replace(profile, graph_bytes=(folder / GRAPH).stat().st_size))
    with pytest.raises(PrepareError, match="elsewhere"):
        outside._take(job, folder)


@pytest.mark.parametrize("name", [RESULT, GRAPH, WEIGHTS])
def test_a_link_in_place_of_a_file_is_refused(box, tmp_path, name):
    job, folder, _ = box
    (folder / name).rename(tmp_path / "real")
    (folder / name).symlink_to(tmp_path / "real")
    with pytest.raises(PrepareError):
        outside._take(job, folder)


def test_a_failure_that_a_box_reports_is_told_within_limits(box):
    job, folder, _ = box
    long = {"type": "failed", "kind": "broken", "message": "x" * 100_000}
    (folder / RESULT).write_bytes(json.dumps(long).encode())
    with pytest.raises(PrepareError) as caught:
        outside._take(job, folder)
    assert len(str(caught.value)) < 3_000


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        (128 + signal.SIGSEGV, "broken", "SIGSEGV"),
        (-signal.SIGABRT, "broken", "SIGABRT"),
        (128 + signal.SIGKILL, "refused", "memory"),
        (128 + signal.SIGXCPU, "refused", "time"),
        (1, "unavailable", "last words"),
    ],
)
def test_a_box_that_ends_badly_says_whose_fault_that_is(box, code, kind, word):
    job, _, _ = box
    error = outside._crashed(job, code, b"first words\nlast words\n")
    assert error.kind == kind
    assert word in str(error)


# ── folders in the making ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_dead_have_left_is_swept_and_what_the_living_make_is_not(tmp_path):
    code = "import sys; from pathlib import Path; from serai_gpu_pool.prepare import part; import os\n"
    code += "with part.new_part(Path(sys.argv[1])) as made:\n    (made / 'file').touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with part.new_part(tmp_path) as mine:
        part.sweep(tmp_path)
        assert mine.is_dir()
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_does_not_replace_another(tmp_path):
    place = tmp_path / "place"
    for number in range(2):
        with part.new_part(tmp_path) as made:
            (made / "file").write_text(str(number))
            assert part.complete(made, place) is (number == 0)
    assert (place / "file").read_text() == "0"
    part.discard(place)
    part.discard(place)  # somebody else was faster
    assert list(tmp_path.iterdir()) == []


# ── which form ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _form(open_s: float, batch_1_s: float = 1.0) -> FormProfile:
    return FormProfile(open_s, 0, batch_s={1: batch_1_s})


def test_the_form_to_open_first_is_the_one_that_answers_soonest_and_the_best_runs_fastest():
    assert choose({"mapped": _form(0.0005, 2.0), "packed": _form(0.020)}) == ("mapped", "packed")
    assert choose({"mapped": _form(0.0005, 2.0), "packed": _form(0.002)}) == ("packed", "packed")
    assert choose({"mapped": _form(0.040), "packed": _form(0.041)}) == ("packed", "packed")
    assert choose({"mapped": _form(0.005, 1.0), "packed": _form(0.010)}) == ("mapped", "mapped")
    assert choose({"packed": _form(1.0)}) == ("packed", "packed")
    assert choose({"mapped": _form(1.0)}) == ("mapped", "mapped")


def test_a_prepared_folder_is_named_by_content_runtime_and_where_code_may_run_owner(tmp_path):
    onnx_spec = ModelSpec("m", "a" * 64, "", "onnx", 1, "alice")
    script = msgspec.structs.replace(onnx_spec, format="torchscript")
    others = [msgspec.structs.replace(spec, owner="bob") for spec in (onnx_spec, script)]
    assert prepared_folder(tmp_path, onnx_spec, "r1") == prepared_folder(tmp_path, others[0], "r1")
    assert prepared_folder(tmp_path, script, "r1") != prepared_folder(tmp_path, others[1], "r1")
    assert prepared_folder(tmp_path, onnx_spec, "r1") != prepared_folder(tmp_path, onnx_spec, "r2")
    assert prepared_folder(tmp_path, onnx_spec, "r1").name.startswith("a" * 64)


def test_the_gateway_may_import_this_without_numpy():
    code = "import sys; sys.modules['numpy'] = sys.modules['onnxruntime'] = None; import serai_gpu_pool.prepare"
    subprocess.run([sys.executable, "-c", code], check=True)
