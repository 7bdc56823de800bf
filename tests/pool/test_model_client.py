"""`serai.model` inside an algorithm: against a real pool, and with nothing but the standard library."""

import array
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from onnx import TensorProto

import serai
from serai.model import ModelError
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.process import PoolProcess, kill, store, wait_for


@pytest.fixture
def pool(tmp_path, monkeypatch):
    with PoolProcess(tmp_path, "--cpu-budget", "64MiB") as running:
        specs = [
            store(tmp_path, name, data)
            for name, data in (
                ("plus", models.add_one()),
                ("two", models.two_in_two_out()),
                ("flags", models.typed(TensorProto.BOOL)),
                ("whole", models.typed(TensorProto.INT64)),
                ("rows", models.take_row()),
            )
        ]
        with running.client() as client:
            monkeypatch.setenv("SERAI_POOL_SOCKET", str(client.admit(*specs)))
            running.specs = specs  # type: ignore[attr-defined]
        yield running


def test_arrays_go_in_by_name_and_come_out_by_name(pool):
    outputs = serai.model("two").run({"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])})
    assert {name: one.tolist() for name, one in outputs.items()} == {"sum": [[6, 8]], "difference": [[4, 4]]}
    only = serai.model("two").run({"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])}, outputs=["sum"])
    assert list(only) == ["sum"]


def test_one_input_and_output_need_no_names(pool):
    result = serai.model("plus").run1(np.float32([[1, 2, 3]]))
    assert result.tolist() == [[2, 3, 4]] and result.dtype == np.float32
    result += 1  # it is ours to write to
    assert serai.model("plus").run(np.float32([[1, 2, 3]]))["y"].tolist() == [[2, 3, 4]]


def test_other_layouts_and_byte_orders_arrive_as_the_same_numbers(pool):
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    for one in (grid.T, grid.T.astype(">f4"), np.asfortranarray(grid.T), grid[:, ::-1].T[::-1]):
        assert serai.model("plus").run1(one).tolist() == (grid.T + 1).tolist()


def test_booleans_and_integers_stay_what_they_are(pool):
    assert serai.model("flags").run1(np.array([[True, False]])).tolist() == [[True, False]]
    assert serai.model("whole").run1(np.array([[-1, 2**62]])).tolist() == [[-1, 2**62]]


def test_empty_and_large_arrays_go_too(pool):
    assert serai.model("plus").run1(np.zeros((0, 3), np.float32)).shape == (0, 3)
    large = np.arange(3_000_000, dtype=np.float32).reshape(-1, 3)
    assert np.array_equal(serai.model("plus").run1(large), large + 1)


@pytest.mark.parametrize(
    ("name", "value", "kind", "says"),
    [
        ("plus", np.zeros((1, 3)), "InputError", "float64"),
        ("plus", [[1.0, 2.0, 3.0]], "InputError", r'float64: convert it, as np\.asarray\(…, "float32"\)'),
        (
            None,
            np.zeros((1, 3), np.float32),
            "InputError",
            r'has 5 models, so say which: serai\.model\("flags"\); .*two',
        ),
        ("plus", np.zeros((1, 4), np.float32), "InputError", "shape"),
        ("plus", np.array(["a"]), "InputError", "do not take"),
        ("plus", [[1], [1, 2]], "InputError", "regular"),
        ("nothing", np.zeros((1, 3), np.float32), "InputError", "no model"),
        ("rows", np.array([77]), "AlgorithmError", "failed"),
    ],
)
def test_errors_say_what_was_wrong_and_whose_fault_it_is(pool, name, value, kind, says):
    with pytest.raises(ModelError, match=says) as caught:
        serai.model(name).run1(value)
    assert caught.value.error_type == kind and not caught.value.retriable


def test_two_inputs_are_too_many_for_run1(pool):
    with pytest.raises(ModelError, match=r"run1.* is for models with one input; run\(.*\) is for several"):
        serai.model("two").run1(np.float32([[1, 2]]))


def test_many_threads_get_their_own_answers(pool):
    model, wrong = serai.model("plus"), []

    def work(number: int) -> None:
        for step in range(50):
            value = np.full((1, 3), number * 1000 + step, np.float32)
            if model.run1(value).tolist() != (value + 1).tolist():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_child_after_a_fork_has_connections_of_its_own(pool):
    model = serai.model("plus")
    model.run1(np.float32([[1, 2, 3]]))
    child = os.fork()
    if child == 0:
        good = all(model.run1(np.float32([[1, 2, at]])).tolist() == [[2, 3, at + 1]] for at in range(50))
        os._exit(0 if good else 1)
    good = all(model.run1(np.float32([[9, 2, at]])).tolist() == [[10, 3, at + 1]] for at in range(50))
    assert os.waitpid(child, 0)[1] == 0 and good


def test_a_pool_that_comes_back_is_found_again(pool):
    model = serai.model("plus")
    assert model.run1(np.float32([[1, 2, 3]])).tolist() == [[2, 3, 4]]
    pool.kill()
    answers = []
    caller = threading.Thread(target=lambda: answers.append(model.run1(np.float32([[1, 2, 3]])).tolist()))
    caller.start()
    pool.restart()  # from this thread: the kernel ties a child to the thread that started it
    with pool.client() as client:
        client.admit(*pool.specs)
    caller.join()
    assert answers == [[[2, 3, 4]]]


def test_a_killed_worker_costs_an_author_nothing_but_time(pool, monkeypatch):
    with pool.client() as client:
        monkeypatch.setenv("SERAI_POOL_SOCKET", str(client.admit(store(pool.home, "slow", models.loop()))))
        serai.model("slow").run1(np.array([10]))
        answers: list[np.ndarray] = []
        before = client.figures()["serai_pool_items_total"]
        thread = threading.Thread(target=lambda: answers.append(serai.model("slow").run1(np.array([400_000]))))
        thread.start()
        wait_for(lambda: client.figures()["serai_pool_items_total"] > before)
        kill(pool.worker_pid())
        thread.join()
    assert len(answers) == 1 and answers[0].shape == (1,)


def test_a_run_that_ends_its_worker_twice_is_an_error_that_says_it_may_be_retried(pool, monkeypatch):
    with pool.client() as client:
        monkeypatch.setenv("SERAI_POOL_SOCKET", str(client.admit(store(pool.home, "slow", models.loop()))))
        serai.model("slow").run1(np.array([10]))
        caught: list[ModelError] = []

        def run() -> None:
            try:
                serai.model("slow").run1(np.array([1_000_000_000]))
            except ModelError as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        for life in range(2):
            before = client.figures()["serai_pool_items_total"]
            if not life:
                thread.start()
            wait_for(lambda before=before: client.figures()["serai_pool_items_total"] > before)
            kill(pool.worker_pid())
        thread.join()
    assert caught and caught[0].retriable and "crashed" in str(caught[0])


def test_without_a_pool_the_error_says_what_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("SERAI_POOL_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setattr(sys.modules["serai.model"], "_RECONNECT_S", 0.05)
    with pytest.raises(ModelError, match=r"no \[models\] in its manifest") as caught:
        serai.model().run1(np.float32([[1]]))
    assert caught.value.retriable and caught.value.__suppress_context__


def test_outside_of_serai_one_error_says_so_at_once(tmp_path):
    script = "import serai; serai.model('net').run({})"
    environment = {"PYTHONPATH": os.path.dirname(os.path.dirname(serai.__file__))}
    done = subprocess.run([sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr.count("Traceback") == 1
    assert "models only run inside of Serai" in done.stderr and "serai publish --private" in done.stderr


def test_an_author_without_numpy_passes_and_gets_buffers(pool):
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "import array, serai\n"
        "data = memoryview(array.array('f', [1, 2, 3, 4, 5, 6])).cast('B').cast('f', (2, 3))\n"
        "print(serai.model('plus').run1(data).tolist())\n"
        "try:\n    serai.model('plus').run1([[1, 2, 3]])\n"
        "except serai.model.__globals__['ModelError'] as error:\n    print(error.error_type)\n"
        "known = set(sys.stdlib_module_names) | {'serai', '__main__'}\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - known\n"
        "print(sorted(name for name in foreign if sys.modules.get(name) and not name.startswith('_')))\n"
    )
    folder = os.path.dirname(os.path.dirname(serai.__file__))
    environment = {"SERAI_POOL_SOCKET": os.environ["SERAI_POOL_SOCKET"], "PYTHONPATH": folder}
    done = subprocess.run([sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]", "InputError", "[]"], done.stderr


def test_plain_buffers_work_beside_numpy(pool):
    values = memoryview(array.array("f", [1, 2, 3])).cast("B").cast("f", (1, 3))
    assert serai.model("plus").run1(values).tolist() == [[2, 3, 4]]
