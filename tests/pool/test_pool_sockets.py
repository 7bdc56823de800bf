"""Who may say what on the pool's sockets, and what becomes of those who say something else."""

import contextlib
import os
import pickle
import socket
import stat
import struct

import msgspec
import numpy as np
import pytest
from onnx import helper

from serai.ipc.frames import pack_frame
from serai.ipc.messages import (
    Admit,
    Admitted,
    Call,
    Drain,
    Failure,
    Ran,
    Ready,
    Refusal,
    Result,
    Run,
    Stats,
    Tensor,
    Withdraw,
    encode,
)
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.process import Client, PoolProcess, store, version_of, wait_for

ROW = np.array([[1, 2, 3]], np.float32).tobytes()
SHAPE = (Tensor("x", "float32", (1, 3)),)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with PoolProcess(tmp_path_factory.mktemp("pool"), "--cpu-budget", "64MiB") as running:
        yield running


@pytest.fixture
def admitted(pool):
    """The socket of a version with the model `m`."""
    with pool.client() as client:
        yield client.admit(store(pool.home, "m", models.add_one()))


def still_serves(pool) -> bool:
    with pool.client() as client:
        message, _ = client.call(version_of(store(pool.home, "m", models.add_one())), b"[1,2,3]")
        return isinstance(message, Result)


def is_cut(client: Client) -> bool:
    try:
        while True:
            client.read()
    except (EOFError, ConnectionError):
        return True


def test_sockets_and_their_folders_are_for_us_alone(pool, admitted):
    assert stat.S_IMODE(os.stat(pool.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(admitted.parent.parent).st_mode) == 0o700, "nobody else comes to a version's socket"
    assert stat.S_IMODE(os.stat(admitted.parent).st_mode) == 0o755  # where it is mounted, it is for who is in there
    assert stat.S_IMODE(os.stat(admitted).st_mode) == 0o666


def test_a_replica_runs_the_models_of_its_version(admitted):
    with Client(admitted) as replica:
        for name in ("m", ""):
            message, payload = replica.ask(Run(1, name, SHAPE), ROW)
            assert isinstance(message, Ran) and message.id == 1 and message.duration_s > 0
            assert message.outputs == (Tensor("y", "float32", (1, 3)),)
            assert np.frombuffer(payload, np.float32).tolist() == [2, 3, 4]


def test_a_replica_cannot_run_or_see_a_model_of_anybody_else(pool, admitted):
    with pool.client() as client:
        client.admit(store(pool.home, "secret", models.two_in_two_out()))
    with Client(admitted) as replica:
        message, _ = replica.ask(Run(1, "secret", SHAPE), ROW)
        unknown, _ = replica.ask(Run(1, "nothing", SHAPE), ROW)
        assert isinstance(message, Failure) and message.error_type == "InputError"
        assert message.message.replace("secret", "nothing") == unknown.message


@pytest.mark.parametrize(
    "message",
    [
        Stats(1),
        Drain(),
        Withdraw("alice/m@1"),
        Admit("v", "o", ()),
        Ready(),
        Call(1, "alice/m@1", "json", 1e18, "req", "alice"),
        Ran(1, (), 0.0),
        Refusal(1, "busy", ""),
    ],
)
def test_a_replica_that_says_anything_but_run_is_cut_off(pool, admitted, message):
    with Client(admitted) as replica:
        replica.send(message)
        assert is_cut(replica)
    assert still_serves(pool)


BAD_BYTES = {
    "pickle": pack_frame(pickle.dumps({"run": print})),
    "json": b'{"jsonrpc": "2.0"}' * 100,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length 4 GiB": struct.pack("<IH", 0xFFFFFFFF, 10),
    "header past the frame": struct.pack("<IH", 3, 900),
    "empty header": pack_frame(b""),
    "deep header": pack_frame(b"\x91" * 60_000),
    "unknown tag": pack_frame(msgspec.msgpack.encode([99, 1])),
    "wrong types": pack_frame(msgspec.msgpack.encode([13, "one", 2, 3])),
    "too few fields": pack_frame(msgspec.msgpack.encode([13])),
    "huge id": pack_frame(msgspec.msgpack.encode([13, 2**64 - 1, 5])),
    "negative size": pack_frame(msgspec.msgpack.encode([13, 1, "m", [["x", "float32", "no"]], [], 1.0])),
}


@pytest.mark.parametrize("what", BAD_BYTES)
@pytest.mark.parametrize("door", ["gateway", "replica"])
def test_bytes_that_are_no_message_end_the_connection_and_nothing_else(pool, admitted, what, door):
    with pool.client() as client:
        before = client.figures()["serai_pool_protocol_errors_total"]
    with Client(admitted if door == "replica" else pool.socket) as peer:
        peer.send_raw(BAD_BYTES[what])
        assert is_cut(peer)
    with pool.client() as client:
        assert client.figures()["serai_pool_protocol_errors_total"] == before + 1
    assert still_serves(pool)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_timeout_that_makes_no_sense_is_an_input_error(admitted, timeout):
    with Client(admitted) as replica:
        message, _ = replica.ask(Run(1, "m", SHAPE, timeout_s=timeout), ROW)
        assert isinstance(message, Failure) and message.error_type == "InputError"


def test_an_id_that_is_in_use_ends_the_connection(pool, admitted):
    with pool.client() as client:
        slow = client.admit(store(pool.home, "slow", models.loop()))
    with Client(slow) as replica:
        turns = np.array([300_000], np.int64).tobytes()
        run = Run(7, "slow", (Tensor("x", "int64", (1,)),))
        replica.send(run, turns)
        replica.send(run, turns)
        assert is_cut(replica)
    assert still_serves(pool)


def test_two_connections_may_use_the_same_ids(admitted):
    with Client(admitted) as one, Client(admitted) as other:
        for client, value in ((one, 1), (other, 5)):
            client.send(Run(1, "m", SHAPE), np.full((1, 3), value, np.float32).tobytes())
        for client, value in ((other, 5), (one, 1)):
            _, payload = client.read()
            assert np.frombuffer(payload, np.float32).tolist() == [value + 1] * 3


def test_a_half_sent_frame_and_a_gone_peer_cost_nothing(pool, admitted):
    for cut in (1, 5, 40, 200_000):
        with Client(admitted) as replica:
            replica.send_raw(pack_frame(encode(Run(1, "m", SHAPE)), b"x" * 300_000)[:cut])
    assert still_serves(pool)


def test_too_many_connections_of_one_version_are_cut(pool, admitted):
    clients = [Client(admitted) for _ in range(70)]
    try:
        answers = 0
        for client in clients:
            try:
                answers += isinstance(client.ask(Run(1, "m", SHAPE), ROW)[0], Ran)
            except (EOFError, ConnectionError):
                continue
        assert answers == 64
    finally:
        for client in clients:
            client.__exit__()
    assert still_serves(pool)


def test_admitting_again_keeps_the_folder_and_withdrawing_closes_the_door(pool):
    spec = store(pool.home, "w", models.add_one())
    version = version_of(spec)
    with pool.client() as client:
        path = client.admit(spec)
        assert client.admit(spec) == path
        with Client(path) as replica:
            assert isinstance(replica.ask(Run(1, "w", SHAPE), ROW)[0], Ran)
            client.send(Withdraw(version.key))
            assert is_cut(replica)
        wait_for(lambda: not path.exists())
        with pytest.raises(OSError):
            Client(path)
        assert client.admit(spec) == path
        with Client(path) as replica:
            assert isinstance(replica.ask(Run(1, "w", SHAPE), ROW)[0], Ran)


def test_a_version_can_be_admitted_with_other_models(pool):
    first, second = (store(pool.home, name, models.add_one()) for name in ("first", "second"))
    with pool.client() as client:
        for spec in (first, second):
            answer, _ = client.ask(Admit("alice/changing@1", "alice", (spec,)))
            assert isinstance(answer, Admitted)
            with Client(f"{answer.directory}/pool.sock") as replica:
                assert isinstance(replica.ask(Run(1, spec.name, SHAPE), ROW)[0], Ran)


def test_a_folder_with_too_long_a_path_is_refused_and_not_fatal(tmp_path):
    home = tmp_path / ("x" * (107 - len(str(tmp_path)) - len("//run/pool.sock") - 12))
    home.mkdir()
    with PoolProcess(home) as pool, pool.client() as client:
        spec = store(home, "m", models.add_one())
        answer, _ = client.ask(Admit("alice/m@1", "alice", (spec,)))
        assert isinstance(answer, Admitted) and answer.directory == ""
        assert still_serves(pool)


def test_a_peer_that_never_reads_does_not_stop_the_others(pool):
    with pool.client() as deaf:
        deaf._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        version = version_of(store(pool.home, "m", models.add_one()))
        rows = np.zeros(3 * 50_000, np.float32).tobytes()
        deaf._sock.settimeout(0.5)
        with pytest.raises(TimeoutError):  # the pool stops reading from it: that is all that happens
            for _ in range(2000):
                deaf.send_call(version, rows, "binary")
        assert still_serves(pool)


def wide(num_bytes: int) -> bytes:
    """A model that answers one number with so many bytes."""
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    shape = ("shape", np.array([1, num_bytes // 4], np.int64))
    return models.build([node], [("x", models.FLOAT, [1, 1])], [("y", models.FLOAT, [1, "N"])], [shape])


ONE = (Tensor("x", "float32", (1, 1)),)


def test_answers_that_the_replicas_of_a_version_do_not_read_are_bounded_together(pool):
    with pool.client() as client, contextlib.ExitStack() as deaf:
        path = client.admit(store(pool.home, "wide", wide(48 << 20)))
        before = client.figures()["serai_pool_protocol_errors_total"]
        for _ in range(8):
            deaf.enter_context(Client(path)).send(Run(1, "wide", ONE), bytes(4))
        wait_for(lambda: client.figures()["serai_pool_protocol_errors_total"] > before)
        assert still_serves(pool)


def test_inputs_of_one_version_leave_room_for_those_of_others(tmp_path):
    number = (Tensor("x", "int64", (1,)),)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(PoolProcess(tmp_path, "--cpu-budget", "64MiB"))
        client = stack.enter_context(pool.client())
        replica = stack.enter_context(Client(client.admit(store(tmp_path, "loop", models.loop()))))
        replica.send(Run(1, "loop", number), np.array([1 << 60]).tobytes())
        for id in range(2, 8):  # they wait for the first one
            replica.send(Run(id, "loop", number), memoryview(bytes(60 << 20)))
        message, _ = replica.read()
        assert isinstance(message, Refusal) and (message.code, message.retriable) == ("busy", True)
        assert "this version" in message.message
        assert still_serves(pool)


def test_a_large_answer_does_not_hold_up_a_small_one_to_another_caller(pool):
    large = version_of(store(pool.home, "wide", wide(32 << 20)))
    small = version_of(store(pool.home, "m", models.add_one()))
    with pool.client() as gateway, pool.client() as other:
        done = 'serai_pool_outcomes_total{outcome="ok"}'
        other.call(small, b"[1,2,3]")
        before = other.figures()[done]
        expected = [gateway.send_call(large, bytes(4), "binary") for _ in range(6)]
        last = gateway.send_call(small, b"[1,2,3]")
        wait_for(lambda: other.figures()[done] == before + 7)
        order = [gateway.read()[0].id for _ in range(7)]
        assert sorted(order) == [*expected, last]
        assert order.index(last) < 3, "it went before the large ones that had not been begun"
