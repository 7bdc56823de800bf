"""Large inputs and outputs of replicas, through memory that the pool shares with them."""

import importlib
import mmap
import os
import socket

import numpy as np
import pytest

import serai
from serai._wire import RAN, RUN, SHARE, SHARED, FrameReader, send_frame
from serai_gpu_pool.testing import models
from serai_gpu_pool.testing.process import PATIENCE_S, PoolProcess, store

#: The module; `serai.model` is the function of the same name.
client_of_models = importlib.import_module("serai.model")

LARGE = np.arange(3 * 100_000, dtype=np.float32).reshape(-1, 3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    home = tmp_path_factory.mktemp("shared")
    with PoolProcess(home, "--cpu-budget", "64MiB") as running, running.client() as client:
        running.door = str(client.admit(store(home, "plus", models.add_one())))  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def replica(pool):
    """A connection that says what it likes."""
    replica = connected(pool)
    yield replica
    replica.close()


def connected(pool) -> "Replica":
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_S)
    sock.connect(pool.door)
    return Replica(sock)


class Replica:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader(sock)
        self.descriptor = -1  # of what was shared last

    def close(self) -> None:
        self.sock.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def share(self, num_bytes: int) -> mmap.mmap | None:
        send_frame(self.sock, [SHARE, 1, num_bytes])
        answer = self.reader.read_with_descriptor()
        assert answer is not None and answer[0][0] == SHARED
        if answer[2] is None:
            assert answer[0][2] == 0
            return None
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = answer[2]
        return mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)

    def allocated(self) -> int:
        """Bytes that the last shared memory really takes."""
        return os.fstat(self.descriptor).st_blocks * 512

    def is_cut(self) -> bool:
        try:
            return self.reader.read() is None
        except ConnectionError:
            return True


def test_large_arrays_go_in_and_come_out_without_a_socket_between(pool, monkeypatch):
    monkeypatch.setenv("SERAI_POOL_SOCKET", pool.door)
    sent: list[int] = []
    real = client_of_models.send_frame
    monkeypatch.setattr(
        client_of_models,
        "send_frame",
        lambda sock, header, *parts: (sent.append(sum(map(len, parts))), real(sock, header, *parts)),
    )
    result = serai.model("plus").run1(LARGE)
    assert np.array_equal(result, LARGE + 1) and sum(sent) == 0
    again = serai.model("plus").run1(LARGE * 2)
    assert np.array_equal(result, LARGE + 1), "an answer is the caller's own, not memory that the next run uses"
    assert np.array_equal(again, LARGE * 2 + 1)
    small = serai.model("plus").run1(LARGE[:2])
    assert np.array_equal(small, LARGE[:2] + 1) and sum(sent) == LARGE[:2].nbytes


def test_what_no_memory_is_given_for_travels_as_a_frame(pool, monkeypatch):
    monkeypatch.setenv("SERAI_POOL_SOCKET", pool.door)
    monkeypatch.setattr(client_of_models._Connection, "_share", lambda self, num_bytes: None)
    assert np.array_equal(serai.model("plus").run1(LARGE), LARGE + 1)


def test_shared_memory_has_a_fixed_size_and_a_bound(replica):
    region = replica.share(1 << 20)
    assert region is not None and len(region) == 1 << 20
    with pytest.raises((OSError, ValueError, SystemError)):
        region.resize(1)
    for num_bytes in (0, -1, 1 << 40):
        assert replica.share(num_bytes) is None


def test_memory_that_a_replica_has_no_right_to_any_more_is_given_back_although_it_keeps_it(replica):
    first = replica.share(8 << 20)
    assert first is not None
    first[:] = b"x" * len(first)
    assert replica.allocated() == 8 << 20
    kept = os.dup(replica.descriptor)
    try:
        second = replica.share(4096)
        assert second is not None and os.fstat(kept).st_blocks == 0
        second[:] = b"y" * len(second)
        assert replica.allocated() == 4096
    finally:
        os.close(kept)


def test_connections_of_one_version_share_a_bound(pool):
    replicas = [connected(pool) for _ in range(6)]
    try:
        given = [replica.share(64 << 20) is not None for replica in replicas]
        assert given[:3] == [True] * 3 and given[4:] == [False] * 2, "256 MiB for all; others of this version have some"
    finally:
        for replica in replicas:
            replica.close()


def test_inputs_that_change_while_they_are_used_harm_only_their_own_run(replica):
    region = replica.share(LARGE.nbytes)
    assert region is not None
    region[: LARGE.nbytes] = LARGE.tobytes()
    send_frame(replica.sock, [RUN, 7, "plus", [["x", "float32", list(LARGE.shape)]], [], 30.0, LARGE.nbytes])
    region[: LARGE.nbytes] = bytes(LARGE.nbytes)
    answer = replica.reader.read()
    assert answer is not None and answer[0][:2] == [RAN, 7] and answer[0][4] == LARGE.nbytes


@pytest.mark.parametrize("claimed", [1, LARGE.nbytes, -5, 1 << 60])
def test_a_run_in_memory_that_was_not_shared_ends_the_connection(pool, replica, claimed):
    send_frame(replica.sock, [RUN, 7, "plus", [["x", "float32", [1, 3]]], [], 30.0, claimed])
    assert replica.is_cut()


def test_a_run_beyond_the_shared_memory_ends_the_connection(replica):
    assert replica.share(4096) is not None
    send_frame(replica.sock, [RUN, 7, "plus", [["x", "float32", [1, 3]]], [], 30.0, 4097])
    assert replica.is_cut()
