"""What measures has to be right itself: loads count what they should, and an error is never a fast answer."""

import itertools
import os
import time

import numpy as np
import pytest
import uvloop
from benchmarks import c4, http_load, pool_client, processes, servers
from benchmarks.models import Mlp, is_close_to
from benchmarks.w4 import sum_of_metric

from serai_gpu_pool.testing.process import PoolProcess

_MODEL = Mlp((4, 8, 3), 1)


@pytest.fixture(scope="module")
def echo():
    with servers.uvicorn("benchmarks.limits:bare_echo") as server:
        yield server


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with PoolProcess(tmp_path_factory.mktemp("home"), "--cpu-budget", "64MiB") as pool:
        yield pool


def _version(folder):
    (folder / "m.onnx").write_bytes(_MODEL.build().SerializeToString())
    return pool_client.version_of(folder / "m.onnx", "m")


def test_a_closed_loop_counts_every_answer_once(echo):
    seen = []
    request = http_load.post(echo.url, b"abc", {"Content-Type": "text/plain"}, lambda body: seen.append(body) is None)
    load = http_load.closed_loop(echo.url, itertools.repeat(request), connections=3, seconds=0.2)
    assert len(load.latencies_s) == len(seen) >= 3
    assert set(seen) == {b"abc"}
    assert load.latencies_s == sorted(load.latencies_s)
    assert load.per_second == pytest.approx(len(seen) / load.seconds)


def test_a_wrong_answer_is_an_error_and_not_a_result(echo):
    request = http_load.post(echo.url, b"abc", {"Content-Type": "text/plain"}, lambda body: body != b"abc")
    with pytest.raises(RuntimeError, match="wrong answer"):
        http_load.closed_loop(echo.url, itertools.repeat(request), connections=1, seconds=0.05)


def test_a_status_other_than_200_is_an_error(echo):
    request = http_load.Request(b"BAD\r\n\r\n", lambda body: True)
    with pytest.raises(RuntimeError, match=r"400|connection lost"):
        uvloop.run(http_load.ask(echo.url, request))


def test_an_open_loop_sends_each_call_when_it_is_due_and_accounts_for_all(tmp_path, pool):
    version = _version(tmp_path)

    async def run():
        client = await pool_client.connect(pool.socket)
        client.define(version)
        body = np.ones(4, np.float32).tobytes()
        await client.ask(version.key, body)
        due = [0.01 * number for number in range(30)]
        ends = await pool_client.open_loop(client, ((at, version.key) for at in due), body, slo_s=20)
        client.close()
        return ends

    ends = uvloop.run(run())
    assert ends.sent == ends.num_ended == len(ends.good_s) == 30
    assert ends.seconds >= 0.29


def test_a_call_whose_time_is_over_counts_as_refused(tmp_path, pool):
    version = _version(tmp_path)

    async def run():
        client = await pool_client.connect(pool.socket)
        client.define(version)
        ends = await pool_client.open_loop(client, [(0, version.key)], bytes(16), slo_s=-1)
        client.close()
        return ends

    ends = uvloop.run(run())
    assert ends.refused == {"deadline": 1}
    assert not ends.good_s


def test_an_end_that_nobody_expects_stops_the_measurement(tmp_path, pool):
    version = _version(tmp_path)

    async def run(body):
        client = await pool_client.connect(pool.socket)
        client.define(version)
        try:
            await pool_client.closed_loop(client, version.key, body, depth=2, seconds=0.1)
        finally:
            client.close()

    with pytest.raises(RuntimeError, match="ended with"):
        uvloop.run(run(b"not a row"))


def test_an_idle_owner_answers_a_ping(pool):
    async def run():
        client = await pool_client.connect(pool.socket)
        took_s = await client.ping()
        client.close()
        return took_s

    assert 0 < uvloop.run(run()) < 10


def test_models_answer_as_their_weights_say():
    x = np.ones((2, 4), np.float32)
    first, second = _MODEL.weights()
    np.testing.assert_allclose(_MODEL.answer(x), np.maximum(x @ first, 0) @ second)
    assert _MODEL.weight_bytes == 4 * (4 * 8 + 8 * 3)
    right = is_close_to(_MODEL.answer(x))
    assert right(_MODEL.answer(x).tobytes())
    assert not right((_MODEL.answer(x) + 1).tobytes())
    assert not right(b"")


def test_capacity_is_of_batches_that_fit_twice_into_the_slo():
    most, slo_s = c4.capacity({1: 0.002, 8: 0.004, 64: 0.016})
    assert slo_s == pytest.approx(0.015)
    assert most == pytest.approx(8 / 0.004)


def test_poisson_arrivals_come_at_the_rate_that_was_asked_for():
    due = [at for at, _ in c4.poisson(200, 50, "v", 1)]
    assert due == sorted(due)
    assert due[0] > 0 and due[-1] <= 50
    assert len(due) == pytest.approx(200 * 50, rel=0.05)


def test_a_metric_is_summed_over_its_labels():
    text = '# TYPE a_total counter\na_total{model="x"} 2.0\na_total{model="y"} 3.0\na_totals 9.0\n'
    assert sum_of_metric(text, "a_total") == 5


def test_processor_time_and_memory_of_a_process_are_seen_from_outside():
    own = [os.getpid()]
    before = processes.cpu_seconds(own)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert processes.cpu_seconds(own) > before
    held = bytearray(b"x" * (32 << 20))
    with processes.watched(lambda: {"own": own}) as use:
        pass
    assert use.peak_bytes["own"] >= len(held)
    assert processes.memory_bytes([2**22 + 1]) == 0
