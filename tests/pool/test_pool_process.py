"""The real pool through its socket: conventions of calls, hostile models, crashes, eviction."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from serai.ipc.messages import Cancel, Command, Commanded, Drain, Failure, Refusal, Result, Unknown, Written
from serai_gpu_pool.device import sandbox
from serai_gpu_pool.scheduling.workers import MAX_LANES
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.process import (
    PATIENCE_S,
    PoolProcess,
    is_alive,
    kill,
    store,
    version_of,
    wait_for,
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with PoolProcess(tmp_path_factory.mktemp("pool"), "--cpu-budget", "256MiB") as running:
        yield running


@pytest.fixture
def own_pool(tmp_path):
    """One that a test may break."""
    with PoolProcess(tmp_path, "--cpu-budget", "64MiB") as running:
        yield running


@pytest.fixture
def client(pool):
    with pool.client() as connected:
        yield connected


def publish(pool, data: bytes, name: str = "m", owner: str = "alice"):
    return version_of(msgspec.structs.replace(store(pool.home, name, data), owner=owner), owner=owner)


def inner_worker(pool) -> int:
    """The process that runs models: in a box, it is not the one that the pool started."""
    outer = pool.worker_pid()
    found: list[int] = []

    def look() -> bool:
        inner = sandbox.inner_pid(outer) if b"bwrap" in Path(f"/proc/{outer}/cmdline").read_bytes() else outer
        found[:] = [inner] if inner is not None else []
        return bool(found)

    wait_for(look)
    return found[0]


def order(client, version, verb) -> None:
    """Have an operator's command carried out."""
    answer, _ = client.ask(Command(999_999, verb, version.key, "", time.monotonic() + PATIENCE_S))
    assert isinstance(answer, Commanded), answer


def good(pool, client) -> bool:
    """A model of someone else still answers."""
    message, payload = client.call(publish(pool, models.add_one()), b"[1,2,3]")
    return isinstance(message, Result) and json.loads(payload) == [2, 3, 4]


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_in_json_out(pool, client):
    version = publish(pool, models.add_one())
    for body, answer in ((b"[1,2,3]", [2, 3, 4]), (b'{"x": [[1,2,3]]}', [[2, 3, 4]])):
        message, payload = client.call(version, body)
        assert isinstance(message, Result) and message.content_type == "json" and message.duration_s > 0
        assert json.loads(payload) == answer


def test_raw_bytes_in_raw_bytes_out(pool, client):
    rows = np.arange(6, dtype=np.float32)
    message, payload = client.call(publish(pool, models.add_one()), rows.tobytes(), "binary")
    assert message.content_type == "binary" and np.frombuffer(payload, np.float32).tolist() == (rows + 1).tolist()


def test_a_large_tensor_goes_there_and_back(pool, client):
    rows = np.arange(3 * 400_000, dtype=np.float32)
    for _ in range(3):
        _, payload = client.call(publish(pool, models.add_one()), rows.tobytes(), "binary")
        assert np.array_equal(np.frombuffer(payload, np.float32), rows + 1)


def test_several_inputs_and_outputs_go_by_name(pool, client):
    _, payload = client.call(publish(pool, models.two_in_two_out()), b'{"a": [5, 6], "b": [1, 2]}')
    assert json.loads(payload) == {"sum": [6, 8], "difference": [4, 4]}


@pytest.mark.parametrize(
    ("element_type", "value"), [(TensorProto.INT64, [[1, -2]]), (TensorProto.BOOL, [[True, False]])]
)
def test_integers_and_booleans_stay_what_they_are(pool, client, element_type, value):
    _, payload = client.call(publish(pool, models.typed(element_type)), json.dumps(value).encode())
    assert json.loads(payload) == value


def test_a_fixed_batch_model_answers_many_callers_one_by_one(pool, client):
    version = publish(pool, models.add_one(rows=1))
    ids = [client.send_call(version, b"[%d,0,0]" % at) for at in range(20)]
    answers = {message.id: payload for message, payload in (client.read() for _ in ids)}
    assert [json.loads(answers[id])[0] for id in ids] == [at + 1 for at in range(20)]


def test_calls_that_come_together_run_together_and_each_gets_its_own_answer(pool, client):
    version = publish(pool, models.scaled(3.0, 1000))
    before = client.figures()
    ids = [client.send_call(version, json.dumps({"x": [at, 0, 0, 0], "at": [0]}).encode()) for at in range(200)]
    answers = {message.id: payload for message, payload in (client.read() for _ in ids)}
    assert [json.loads(answers[id])[0] for id in ids] == [3.0 * at for at in range(200)]
    after = client.figures()
    assert after["serai_pool_items_total"] - before["serai_pool_items_total"] == 200
    assert after["serai_pool_batches_total"] - before["serai_pool_batches_total"] < 150
    assert after["serai_pool_loads_total"] - before["serai_pool_loads_total"] == 1


def test_a_bad_call_in_a_batch_fails_alone(pool, client):
    version = publish(pool, models.take_row())
    ids = [client.send_call(version, b"[%d]" % row) for row in (0, 99, 2, 3, 1)]
    answers = {message.id: (message, payload) for message, payload in (client.read() for _ in ids)}
    kinds = [type(answers[id][0]) for id in ids]
    assert kinds == [Result, Failure, Result, Result, Result]
    assert answers[ids[1]][0].error_type == "AlgorithmError"
    assert json.loads(answers[ids[3]][1]) == [3.0]


@pytest.mark.parametrize(("content_type", "body"), [("text", b"abc"), ("void", b""), ("json", b"{}"), ("binary", b"")])
def test_input_that_does_not_fit_is_an_input_error(pool, client, content_type, body):
    message, _ = client.call(publish(pool, models.add_one()), body, content_type)
    assert isinstance(message, Failure) and message.error_type == "InputError"


def test_a_version_that_was_not_defined_is_unknown(pool):
    with pool.client() as client:
        version = publish(pool, models.add_one())
        client._defined.add(version.key)
        message, _ = client.call(version, b"[1,2,3]")
        assert isinstance(message, Unknown)


def test_an_expired_deadline_is_refused_at_once(pool, client):
    message, _ = client.call(publish(pool, models.add_one()), b"[1,2,3]", timeout_s=-1.0)
    assert isinstance(message, Refusal) and message.code == "deadline" and not message.retriable


def test_a_deadline_that_passes_in_a_run_is_answered_in_time_and_others_go_on(pool, client):
    slow = publish(pool, models.loop(), "slow")
    client.call(slow, b"[10]")
    message, _ = client.call(slow, b"[1000000]", timeout_s=0.3)
    assert isinstance(message, Refusal) and message.code == "deadline"
    assert good(pool, client)


def test_a_cancelled_call_is_never_answered(pool, client):
    version = publish(pool, models.add_one())
    for _ in range(20):
        first = client.send_call(version, b"[1,2,3]")
        client.send(Cancel(first))
    last = client.send_call(version, b"[4,5,6]")
    while True:  # an answer may have been faster than the cancellation
        message, payload = client.read()
        if message.id == last:
            break
    assert json.loads(payload) == [5, 6, 7]


# ── models that are bad ──────────────────────────────────────────────────────────────────────────────────────

BAD_MODELS = {
    "string inputs": (models.typed(TensorProto.STRING), "only tensors of numbers"),
    "garbage": (b"garbage", "not an ONNX model"),
    "empty": (b"", "not an ONNX model"),
    "truncated": (models.scaled(1.0, 5000)[:3000], "cannot be loaded"),
    "external data": (models.external("../secret"), "another file"),
    "foreign operator": (models.foreign_operator("com.evil", "Run"), "com.evil"),
    "unknown operator": (models.foreign_operator("", "NoSuchThing"), "cannot be loaded"),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_a_model_that_cannot_be_loaded_fails_with_its_reason_and_is_not_retried_at_once(pool, client, what):
    data, says = BAD_MODELS[what]
    version = publish(pool, data)
    before = client.figures()["serai_pool_load_failures_total"]
    for _ in range(3):
        message, _ = client.call(version, b"[1,2,3]")
        assert isinstance(message, Failure) and message.error_type == "InitializationError"
        assert says in message.message
        assert str(pool.home) not in message.message
    assert client.figures()["serai_pool_load_failures_total"] == before + 1
    assert good(pool, client)


def test_a_flipped_bit_in_the_store_is_noticed(pool, client):
    version = publish(pool, models.scaled(7.0, 2000))
    with open(version.models[0].path, "r+b") as file:
        file.seek(1500)
        byte = file.read(1)
        file.seek(1500)
        file.write(bytes([byte[0] ^ 1]))
    message, _ = client.call(version, b'{"x": [1,1,1,1], "at": [0]}')
    assert isinstance(message, Refusal) and message.code == "unavailable" and "checksum" in message.message


def test_a_tiny_file_that_asks_for_terabytes_breaks_nothing(pool, client):
    assert len(models.huge_constant()) < 300
    message, _ = client.call(publish(pool, models.huge_constant()), b"[1]")
    assert isinstance(message, Failure | Refusal)
    assert good(pool, client)


def test_a_result_that_explodes_is_refused_and_breaks_nothing(pool, client):
    version = publish(pool, models.explosion())
    client.call(version, b"[4]")
    worker = pool.worker_pid()
    for count in (50_000_000, 10_000_000_000, 1 << 50):
        message, _ = client.call(version, b"[%d]" % count)
        kind = message.code if isinstance(message, Refusal) else message.error_type
        assert kind in ("too_large", "OutOfMemoryError", "AlgorithmError")
    assert pool.worker_pid() == worker
    assert good(pool, client)


def test_a_model_larger_than_the_budget_is_refused_with_both_numbers(own_pool):
    with own_pool.client() as client:
        version = publish(own_pool, models.scaled(1.0, 70 << 20))
        message, _ = client.call(version, b"{}")
        assert isinstance(message, Refusal) and message.code == "too_large"
        assert "64 MiB" in message.message


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_unfolds_beyond_the_budget_is_refused_and_gives_everything_back(own_pool):
    """Small enough as a file; three times as large when its constants are put together at load."""
    weights = np.random.default_rng(0).standard_normal(36 << 18).astype(np.float32)
    nodes = [
        helper.make_node("Concat", ["w", "w", "w"], ["all"], axis=0),
        helper.make_node("Gather", ["all", "x"], ["y"]),
    ]
    inputs, outputs = [("x", TensorProto.INT64, ["N"])], [("y", TensorProto.FLOAT, ["N"])]
    version = publish(own_pool, models.build(nodes, inputs, outputs, [("w", weights)]))
    with own_pool.client() as client:
        assert good(own_pool, client)
        message, _ = client.call(version, b"[1]")
        assert isinstance(message, Refusal) and message.code == "too_large" and "64 MiB" in message.message
        assert good(own_pool, client)
        wait_for(lambda: private_bytes(own_pool) < 40 << 20)
        before = client.figures()["serai_pool_loads_total"]
        message, _ = client.call(version, b"[1]")
        assert isinstance(message, Refusal) and message.code == "too_large"
        assert client.figures()["serai_pool_loads_total"] == before, "it is known now, and not tried again"


def private_bytes(pool) -> int:
    """Memory that only the worker has, as the kernel counts it."""
    text = Path(f"/proc/{inner_worker(pool)}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_Dirty:"))


def test_memory_is_back_after_an_eviction_as_seen_from_outside(own_pool):
    version = publish(own_pool, models.scaled(2.0, 24 << 20))
    body = json.dumps({"x": [1, 2, 3, 4], "at": [0]}).encode()
    with own_pool.client() as client:
        assert good(own_pool, client)
        order(client, publish(own_pool, models.add_one()), "unload")
        before = private_bytes(own_pool)
        for _ in range(3):
            message, _ = client.call(version, body)
            assert isinstance(message, Result)
            assert private_bytes(own_pool) >= before + (20 << 20)
            order(client, version, "unload")
            assert private_bytes(own_pool) < before + (4 << 20)


def test_eviction_under_load_gives_right_answers(own_pool):
    versions = [publish(own_pool, models.scaled(float(at + 1), 8 << 20), f"m{at}") for at in range(8)]
    wrong: list = []

    def call(turn: int) -> None:
        with own_pool.client() as client:
            for step in range(12):
                at = (turn * 5 + step * 3) % len(versions)
                body = json.dumps({"x": [step, 1, 2, 3], "at": [0]}).encode()
                message, payload = client.call(versions[at], body, timeout_s=60)
                want = [float((at + 1) * value) for value in (step, 1, 2, 3)]
                if not isinstance(message, Result) or json.loads(payload) != want:
                    wrong.append((message, payload))

    threads = [threading.Thread(target=call, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 2)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    with own_pool.client() as client:
        figures = client.figures()
    assert figures['serai_pool_evictions_total{reason="room"}'] > 0
    memory = {
        tier: figures[f'serai_pool_memory_bytes{{device="cpu",tier="{tier}"}}']
        for tier in ("free", "reserved", "resident")
    }
    assert sum(memory.values()) == 64 << 20 and memory["free"] >= 0


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_worker_costs_no_call(own_pool):
    slow, quick = publish(own_pool, models.loop(), "slow"), publish(own_pool, models.add_one(), "quick")
    with own_pool.client() as client, own_pool.client() as other:
        client.call(slow, b"[10]")
        worker = own_pool.worker_pid()
        ids = [client.send_call(slow, b"[400000]")]
        wait_for(lambda: other.figures()["serai_pool_items_total"] == 2)
        ids += [client.send_call(quick, b"[%d,0,0]" % at) for at in range(20)]
        kill(worker)
        answers = {message.id: message for message, _ in (client.read() for _ in ids)}
        assert all(isinstance(answers[id], Result) for id in ids), answers
        assert own_pool.worker_pid() != worker
        assert other.figures()["serai_pool_retried_total"] >= 1


def test_a_call_that_ends_its_worker_twice_is_refused_and_its_neighbours_are_answered(own_pool):
    poisoned, quick = publish(own_pool, models.loop(), "slow"), publish(own_pool, models.add_one(), "quick")
    with own_pool.client() as client, own_pool.client() as other:
        assert isinstance(client.call(poisoned, b"[10]")[0], Result)
        bad = client.send_call(poisoned, b"[1000000000]", timeout_s=PATIENCE_S)
        mates = [client.send_call(poisoned, b"[%d]" % at) for at in range(3)]
        mates += [client.send_call(quick, b"[1,2,3]") for _ in range(3)]
        answers: dict[int, object] = {}
        for _ in range(2):
            at = other.figures()["serai_pool_worker_losses_total"]
            wait_for(lambda: client_is_running(other))
            kill(own_pool.worker_pid())
            wait_for(lambda at=at: other.figures()["serai_pool_worker_losses_total"] > at)
        while len(answers) < 1 + len(mates):
            message, _ = client.read()
            answers[message.id] = message
        assert isinstance(answers[bad], Refusal) and answers[bad].code == "crashed" and answers[bad].retriable
        assert all(isinstance(answers[id], Result) for id in mates)


def client_is_running(client) -> bool:
    """Is a batch running that has been so for a while, so that it is the endless one?"""
    return client.figures()["serai_pool_late_batches_total"] > client.figures()["serai_pool_worker_losses_total"]


def test_an_endless_run_delays_nobody_else(own_pool):
    endless = publish(own_pool, models.loop(), "endless", owner="mallory")
    others = [publish(own_pool, models.scaled(float(at + 1), 1000), f"m{at}") for at in range(4)]
    with own_pool.client() as client, own_pool.client() as other:
        client.call(endless, b"[10]")
        worker = own_pool.worker_pid()
        hung = client.send_call(endless, b"[1000000000]", timeout_s=PATIENCE_S)
        for step in range(20):
            at = step % len(others)
            body = json.dumps({"x": [step, 0, 0, 0], "at": [0]}).encode()
            message, payload = other.call(others[at], body, timeout_s=5.0)
            assert isinstance(message, Result) and json.loads(payload)[0] == step * (at + 1)
        assert own_pool.worker_pid() == worker, "it was not ended for that"
        client.send(Cancel(hung))


def test_a_killed_pool_takes_its_worker_with_it_and_serves_again_after_a_start(own_pool):
    with own_pool.client() as client:
        assert good(own_pool, client)
        worker = own_pool.worker_pid()
        own_pool.kill()
        wait_for(lambda: not is_alive(worker))
        with pytest.raises(EOFError):
            client.read()
    own_pool.restart()
    with own_pool.client() as client:
        assert good(own_pool, client)


@pytest.mark.parametrize("how", ["signal", "message"])
def test_a_draining_pool_finishes_what_runs_refuses_what_comes_and_leaves(own_pool, how):
    slow = publish(own_pool, models.loop(), "slow")
    with own_pool.client() as client, own_pool.client() as other:
        client.call(slow, b"[10]")
        worker = own_pool.worker_pid()
        running = client.send_call(slow, b"[400000]")
        wait_for(lambda: other.figures()["serai_pool_items_total"] == 2)
        if how == "signal":
            own_pool.process.send_signal(signal.SIGTERM)
            wait_for(lambda: b'"drain"' in (own_pool.home / "pool.log").read_bytes())
        else:
            other.send(Drain())
        message, _ = other.call(slow, b"[10]")
        assert isinstance(message, Refusal) and message.code == "draining"
        message, _ = client.read()
        assert isinstance(message, Result) and message.id == running
        assert own_pool.process.wait(PATIENCE_S) == 0
    assert not is_alive(worker)


def test_a_worker_that_hangs_is_killed_and_its_model_locked_out_in_the_end(tmp_path):
    """The watchdog at its real length would take minutes: the same process with shorter limits."""
    script = tmp_path / "impatient.py"
    script.write_text(
        "import dataclasses, serai_gpu_pool.__main__ as main\n"
        "from serai_gpu_pool.settings import Limits\n"
        "read = main._settings\n"
        "main._settings = lambda args: dataclasses.replace(read(args), limits=Limits(run_timeout_s=0.2))\n"
        "main.main()\n"
    )
    with PoolProcess(tmp_path, program=str(script)) as pool, pool.client() as client:
        slow = publish(pool, models.loop(), "slow")
        for _ in range(3):
            message, _ = client.call(slow, b"[1000000000]")
            assert isinstance(message, Refusal) and message.code == "deadline" and not message.retriable
        message, _ = client.call(slow, b"[10]")
        assert isinstance(message, Refusal) and message.code == "unavailable" and "locked out" in message.message
        assert message.retry_after_s > 500
        assert good(pool, client)


def test_a_worker_has_no_secret_no_file_of_ours_and_no_other_door(tmp_path, monkeypatch):
    monkeypatch.setenv("SERAI_SECRET", "of the pool")
    with PoolProcess(tmp_path, "--cpu-budget", "64MiB") as pool:
        with pool.client() as client:
            assert good(pool, client)
        worker = Path(f"/proc/{inner_worker(pool)}")
        names = {entry.split("=")[0] for entry in (worker / "environ").read_text().split("\0") if entry}
        assert {name for name in names if "SERAI" in name or "SECRET" in name} == set()
        assert os.listdir(worker / "cwd") in ([], ["models"])
        open_files = sorted(os.readlink(fd) for fd in (worker / "fd").iterdir())
        sockets = {name for name in open_files if name.startswith("socket:")}
        assert len(sockets) == 2 + MAX_LANES, open_files  # for loads, for each lane, and for complaints
        assert not any(name.startswith(str(pool.home)) and "pool.log" not in name for name in open_files), open_files


def test_an_idle_pool_does_nothing(own_pool):
    with own_pool.client() as client:
        assert good(own_pool, client)
        worker = inner_worker(own_pool)

    def switches() -> int:
        """How often pool and worker gave up the processor by themselves: each wake-up ends in one."""
        total = 0
        for pid in (own_pool.process.pid, worker):
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/status").read_text()
                total += int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        return total

    wait_for(lambda: switches() == (time.sleep(0.2), switches())[1])
    before = switches()
    time.sleep(1.0)
    assert switches() - before <= 2


# ── descriptions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_whose_calls_have_long_names_for_their_tensors_is_run_and_answered(pool, client):
    """One call may describe its tensors in 48 kB, and 64 calls run together."""
    names = [f"input_{at:02}_{'n' * 200}" for at in range(40)]
    nodes = [helper.make_node("Sum", names, ["y"])]
    floats = [(name, TensorProto.FLOAT, ["N"]) for name in names]
    version = publish(pool, models.build(nodes, floats, [("y", TensorProto.FLOAT, ["N"])]))
    inputs = tuple(Written(name, "float32", (1,)) for name in names)
    body = np.ones(len(names), np.float32).tobytes()
    ids = [client.send_infer(version, inputs, body) for _ in range(128)]
    answers = dict(client.read_infer() for _ in ids)
    assert set(answers) == set(ids) and all(value == [40.0] for value in answers.values())


def test_a_call_with_too_many_names_is_refused_and_others_do_not_notice(pool, client):
    inputs = tuple(Written(f"{at:03}{'n' * 240}", "float32", (1,)) for at in range(170))
    version = publish(pool, models.add_one())
    ids = [client.send_infer(version, inputs, bytes(4 * len(inputs))) for _ in range(64)]
    for _ in ids:
        message, _ = client.read()
        assert isinstance(message, Failure) and len(message.message) < 8000
    assert good(pool, client)


def test_a_result_with_more_names_than_an_answer_holds_is_refused_and_the_model_lives(pool, client):
    name = "y" * 70_000
    node = helper.make_node("Add", ["x", "one"], [name])
    shape = ["N", 3]
    one = [("one", np.float32(1))]
    version = publish(
        pool, models.build([node], [("x", TensorProto.FLOAT, shape)], [(name, TensorProto.FLOAT, shape)], one)
    )
    worker = pool.worker_pid()
    client.send_infer(version, (Written("x", "float32", (1, 3)),), bytes(12))
    message, _ = client.read()
    assert isinstance(message, Failure) and "over the limit of 65,535" in message.message
    assert client.call(version, b"[1,2,3]")[1] == b"[2.0,3.0,4.0]"
    assert pool.worker_pid() == worker
