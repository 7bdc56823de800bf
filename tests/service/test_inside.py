"""Algorithms that call others, stream, report and print, as callers and authors see it through the whole service."""

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import serai
from serai_gateway.catalogue import Permissions, open_catalogue
from serai_gateway.testing import PATIENCE_S, Service, until, write_algorithm

_CALLS = '[permissions]\ncalls = true\n[limits]\ntimeout = "60s"\n'

_OURS = """
import time
import serai

client = serai.client()          # once, as authors do

def apply(input):
    word, *rest = input
    return globals()[word](*rest)

def other(name, value): return client.algo(name).pipe(value).result
def recurse(left): return left if left == 0 else client.algo("operator/ours").pipe(["recurse", left - 1]).result
def fan_out(number):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(lambda n: client.algo("demo/hello").pipe(str(n)).result, range(number)))
def wait_for(name, seconds): return client.algo(name).pipe(["sleep", seconds]).result
def count(number):
    for n in range(number):
        serai.progress(n / number, f"{n} of {number}")
        print("counted", n)
        yield n
"""

_THEIRS = """
import Algorithmia

client = Algorithmia.client()

def apply(input):
    return client.algo(input["algorithm"]).pipe(input["value"]).result
"""

_SLEEPER = """
import time
def apply(input):
    time.sleep(input[1])
    return "slept"
"""


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("inside")
    with Service(folder / "home", "--sandbox", sandbox) as running:
        running.publish(write_algorithm(folder / "ours", _OURS, extra=_CALLS))
        mute = write_algorithm(folder / "mute", _OURS)
        (mute / "requirements.txt").write_text("serai\n")
        running.publish(mute)
        running.publish(write_algorithm(folder / "sleeper", _SLEEPER))
        theirs = folder / "theirs"
        (theirs / "src").mkdir(parents=True)
        (theirs / "src" / "theirs.py").write_text(_THEIRS)
        (theirs / "requirements.txt").write_text("algorithmia>=2,<3\nsix\n")
        (theirs / "algorithmia.conf").write_text(
            '{"username": "operator", "algoname": "theirs", "language": "python3"}'
        )
        running.publish(theirs)
        yield running


@pytest.fixture
def stranger(service: Service) -> str:
    return _key(service, "stranger")


def _key(service: Service, name: str) -> str:
    catalogue = open_catalogue(Path(service.home))
    key = catalogue.create_key(catalogue.ensure_account(name), "test", Permissions(manage=True)).text
    catalogue.close()
    return key


def _call(service: Service, algorithm: str, *input: object, key: str | None = None):
    return service.call(algorithm, json.dumps(input).encode(), key=key).json()


def _result(service: Service, algorithm: str, *input: object, key: str | None = None) -> object:
    answer = _call(service, algorithm, *input, key=key)
    assert "result" in answer, answer
    return answer["result"]


def test_our_client_calls_another_algorithm_without_a_key(service: Service) -> None:
    assert _result(service, "operator/ours", "other", "demo/hello", "Ada") == "Hello Ada"


def test_algorithmias_client_does_so_in_a_repository_of_theirs(service: Service) -> None:
    body = json.dumps({"algorithm": "demo/hello", "value": "Ada"}).encode()
    for _ in range(3):
        assert service.call("operator/theirs", body).json()["result"] == "Hello Ada"


def test_without_the_permission_the_reason_names_it(service: Service) -> None:
    error = _call(service, "operator/mute", "other", "demo/hello", "Ada")["error"]
    assert "permissions" in error["message"] and "calls" in error["message"], error


def test_calls_go_eight_deep_and_no_further(service: Service) -> None:
    assert _result(service, "operator/ours", "recurse", 8) == 0
    error = _call(service, "operator/ours", "recurse", 9)["error"]
    assert "8" in error["message"], error


def test_several_deep_recursions_at_once_do_not_wait_for_each_other_for_ever(service: Service) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(_call(service, "operator/ours", "recurse", 4))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(answers) == 6 and all(answer.get("result") == 0 for answer in answers), answers  # pyright: ignore


def test_a_call_may_call_many_at_once(service: Service) -> None:
    assert _result(service, "operator/ours", "fan_out", 20) == [f"Hello {n}" for n in range(20)]


def test_a_warm_replica_has_the_rights_of_each_caller_and_no_others(service: Service, stranger: str) -> None:
    owner = _key(service, "hermit")
    folder = service.home.parent / "cave"
    write_algorithm(folder, "def apply(input):\n    return 'private ' + input\n", owner="hermit", name="cave")
    command = [str(Path(sys.executable).with_name("serai")), "publish", str(folder), "--private"]
    environment = {**service.environment(), "SERAI_API_KEY": owner}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=PATIENCE_S)
    for _ in range(3):
        own = _call(service, "operator/ours", "other", "hermit/cave", "x", key=owner)
        assert own.get("result") == "private x", own
        others = _call(service, "operator/ours", "other", "hermit/cave", "x", key=stranger)
        assert "not found" in others["error"]["message"], others


def test_a_child_has_no_more_time_than_its_parent(service: Service) -> None:
    answer = service.call("operator/ours?timeout=1", b'["wait_for", "operator/sleeper", 30]')
    assert answer.status == 504
    until(lambda: not _sleeping(service), "the child has been stopped", 10)


def test_a_caller_who_leaves_stops_the_children_too(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Simple {service.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/algo/operator/ours", b'["wait_for", "operator/sleeper", 300]', headers)
    until(lambda: _sleeping(service), "the child runs")
    connection.close()
    until(lambda: not _sleeping(service), "the child has been stopped", 15)


def _sleeping(service: Service) -> bool:
    """Whether a call of the sleeper runs."""
    from serai_runner.testing import Caller

    caller = Caller(service.home / "run" / "runner.sock")
    try:
        busy = 'serai_runner_replicas{state="busy"} '
        return any(float(line.split()[1]) > 0 for line in caller.stats().splitlines() if line.startswith(busy))
    finally:
        caller.close()


def test_items_and_progress_reach_a_client_who_streams(service: Service) -> None:
    seen: list[serai.Progress] = []
    with serai.client(service.key, service.address) as client:
        stream = client.algo("operator/ours").stream(["count", 5], on_progress=seen.append)
        assert list(stream) == [0, 1, 2, 3, 4]
        assert seen[0].text == "0 of 5"
        assert client.algo("operator/ours").pipe(["count", 3]).result == [0, 1, 2]


def test_what_is_printed_is_for_the_owner(service: Service, stranger: str) -> None:
    body = b'["count", 2]'
    mine = service.call("operator/ours?stdout=true", body).json()["metadata"]
    assert mine["stdout"] == "counted 0\ncounted 1\n"
    theirs = service.call("operator/ours?stdout=true", body, key=stranger).json()["metadata"]
    assert "counted" not in theirs.get("stdout", "")


def test_an_author_follows_the_log_of_a_version(service: Service) -> None:
    command = [str(Path(sys.executable).with_name("serai")), "logs", "operator/ours", "-f", "-n", "0", "--json"]
    process = subprocess.Popen(command, env=service.environment(), stdout=subprocess.PIPE, text=True)
    lines: list[dict] = []
    assert process.stdout is not None

    def read() -> None:
        for line in process.stdout or ():
            lines.append(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:

        def said() -> bool:
            _call(service, "operator/ours", "count", 1)
            return any("counted 0" in line.get("text", "") for line in lines)

        until(said, "the line is there")
        _call(service, "operator/ours", "nothing of that name")
        until(lambda: any(line["event"] == "error" for line in lines), f"so is the exception: {lines}")
        [error, *_] = [line for line in lines if line["event"] == "error"]
        assert error["type"] == "AlgorithmError" and "KeyError" in error["stacktrace"]
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        process.stdout.close()


def test_a_strangers_key_cannot_read_the_log(service: Service, stranger: str) -> None:
    headers = {"Authorization": f"Simple {stranger}"}
    assert service.request("GET", "/v1/algorithms/operator/ours/logs", headers=headers).status == 404


def test_a_version_that_is_to_stay_warm_has_its_replica_before_anybody_calls(service: Service) -> None:
    folder = service.home.parent / "warm"
    service.publish(write_algorithm(folder, "def apply(i):\n    return i\n", extra="[scaling]\nmin = 1\n"))
    headers = {"Authorization": f"Simple {service.key}"}

    def log() -> str:
        return service.request("GET", "/v1/algorithms/operator/warm/logs", headers=headers).body.decode()

    until(lambda: '"ready"' in log(), "it is ready without a call")


def test_the_host_killed_in_mid_call_comes_back_and_leaves_nothing(service: Service) -> None:
    host = service.daemon_pid("runner")
    answers: list[int] = []
    slow = threading.Thread(
        target=lambda: answers.append(service.call("operator/ours", b'["wait_for", "operator/sleeper", 300]').status)
    )
    slow.start()
    until(lambda: _sleeping(service), "the call and its child run")
    below = psutil.Process(host).children(recursive=True)
    os.kill(host, 9)
    slow.join(PATIENCE_S)
    assert answers and answers[0] in (502, 503), answers
    until(lambda: service.daemon_pid("runner") != host and service.is_ready(), "the host is back")
    until(lambda: not any(process.is_running() and process.status() != "zombie" for process in below), "no orphans")
    assert _result(service, "operator/ours", "other", "demo/hello", "again") == "Hello again"
    until(lambda: not _containers_of(host), "no containers of the dead host are left")


def _containers_of(host: int) -> list[int]:
    from serai_runner.testing import containers_of

    return containers_of(host)
