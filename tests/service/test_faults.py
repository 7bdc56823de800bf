"""kill -9 of each daemon and of a replica, under load: what the security reference promises (F1, F11, F14, F15).

Clients call without pause while something dies. Every call has one end; what was answered is right; what failed
says that it may be retried; and the service is back by itself.
"""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serai_gateway.testing import Service, until, write_algorithm

_ECHO = "def apply(input):\n    return {'echo': input}\n"


class Load:
    """Threads that call without pause and keep every outcome."""

    def __init__(self, service: Service, algorithm: str, num_threads: int = 8) -> None:
        self._service = service
        self._algorithm = algorithm
        self._stop = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(num_threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            payload = f"{number}-{count}"
            self.outcomes[self._call_once(payload)] += 1

    def _call_once(self, payload: str) -> str:
        try:
            answer = self._service.call(self._algorithm, json.dumps(payload).encode())
        except (OSError, http.client.HTTPException):
            return "dropped"  # the connection died: the caller does not know
        if answer.status == 200:
            if answer.json().get("result") != {"echo": payload}:
                self.wrong.append(f"{payload}: {answer.body[:200]!r}")
            return "ok"
        error = answer.json()["error"]
        if not error["retriable"]:
            self.wrong.append(f"not retriable: {error}")
        return str(answer.status)

    def until_ok(self, more: int, within_s: float = 30.0) -> None:
        wanted = self.outcomes["ok"] + more
        until(lambda: self.outcomes["ok"] >= wanted, f"{more} more calls succeed: {self.outcomes}", within_s)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Serai of its own: others' tests are not disturbed."""
    folder: Path = tmp_path_factory.mktemp("faults")
    with Service(folder / "home", "--sandbox", "bubblewrap", "--spares", "0") as service:
        service.publish(write_algorithm(folder / "echo", _ECHO))
        yield service


def _one_replica_of(service: Service) -> psutil.Process:
    def leaves() -> list[psutil.Process]:
        children = psutil.Process(service.daemon_pid("runner")).children(recursive=True)
        return [child for child in children if not child.children()]

    return until(leaves, "there is a replica")[-1]


def _is_well(service: Service, load: Load) -> None:
    load.until_ok(200)
    assert service.is_ready()
    assert not load.wrong


@pytest.mark.parametrize("daemon", ["runner", "pool", "gateway"])
def test_a_daemon_killed_under_load_is_back_and_nothing_is_wrong(faulty: Service, daemon: str) -> None:
    with Load(faulty, "operator/echo") as load:
        load.until_ok(100)
        for _ in range(2):
            pid = faulty.daemon_pid(daemon)
            below = [child.pid for child in psutil.Process(pid).children(recursive=True)]
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: faulty.daemon_pid(daemon) != pid, f"the {daemon} is started again", 10)
            until(lambda below=below: not any(psutil.pid_exists(p) for p in below), "what was below it has ended", 10)
            load.until_ok(100)
        _is_well(faulty, load)
    assert set(load.outcomes) <= {"ok", "502", "503", "dropped"}
    if daemon == "pool":
        assert set(load.outcomes) == {"ok"}, "calls that need no model did not notice"
    if daemon == "runner":
        assert "dropped" not in load.outcomes, "the gateway answers for a dead runner host"


def test_a_replica_killed_under_load_costs_at_most_the_calls_in_it(faulty: Service) -> None:
    with Load(faulty, "operator/echo") as load:
        load.until_ok(100)
        for _ in range(3):
            _one_replica_of(faulty).kill()
            load.until_ok(100)
        _is_well(faulty, load)
    assert set(load.outcomes) <= {"ok", "502"}
    assert load.outcomes["502"] <= 6, "one call ran in each replica; the others were not begun"


def test_a_gateway_worker_killed_under_load_is_replaced(faulty: Service) -> None:
    with Load(faulty, "operator/echo") as load:
        load.until_ok(100)
        worker = psutil.Process(faulty.daemon_pid("gateway")).children()[0]
        worker.kill()
        _is_well(faulty, load)
    assert set(load.outcomes) <= {"ok", "dropped"}


def test_a_pool_killed_under_model_load_is_back(faulty: Service) -> None:
    digit = json.dumps([[0.0] * 28] * 28).encode()

    def call() -> int:
        try:
            return faulty.call("vision/digits", digit).status
        except (OSError, http.client.HTTPException):
            return 0

    assert call() == 200
    workers = psutil.Process(faulty.daemon_pid("pool")).children(recursive=True)
    os.kill(faulty.daemon_pid("pool"), signal.SIGKILL)
    until(lambda: call() == 200, "the model answers again", 15)
    until(lambda: not any(worker.is_running() for worker in workers), "the old workers have ended", 10)
    worker = psutil.Process(faulty.daemon_pid("pool")).children(recursive=True)[0]
    worker.kill()
    until(lambda: call() == 200, "the model answers again", 15)


def test_everything_killed_at_once_is_back(faulty: Service) -> None:
    for daemon in ("runner", "pool", "gateway"):
        os.kill(faulty.daemon_pid(daemon), signal.SIGKILL)

    def works() -> bool:
        try:
            return faulty.call("operator/echo", b"1").status == 200
        except (OSError, http.client.HTTPException):
            return False

    until(works, "calls work again", 30)
