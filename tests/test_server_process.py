"""The server's processes: start, drain, death of a worker, death of the master."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from serai_gateway.server.testing import RunningServer, running_server, wait_until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def exists(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sigterm_finishes_what_runs_and_then_exits() -> None:
    with running_server() as server, server.client() as idle, server.client() as busy:
        idle.send(GET)
        assert idle.answer().status == 200
        busy.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        assert server.state()["open"] == 3
        server.process.send_signal(signal.SIGTERM)
        idle.wait_closed()  # the worker drains
        assert server.process.poll() is None
        busy.send(b"world")
        answer = busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"helloworld", "close")
        assert server.process.wait(20) == 0


def test_a_request_that_crosses_the_shutdown_is_still_answered() -> None:
    with running_server() as server, server.client() as idle, server.client() as late:
        for client in (idle, late):
            client.send(GET)
            assert client.answer().status == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in server.log(), "the worker drains")
        late.send(GET)
        answer = late.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        idle.wait_closed()


def test_a_request_beyond_the_grace_is_refused_and_the_server_ends() -> None:
    with running_server("--grace=0.2") as server, server.client() as client:
        client.send(b"GET /hangs HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.state()["open"] == 2
        server.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.error["code"], answer.error["retriable"]) == (503, "stopping", True)
        assert server.process.wait(20) == 0


def test_a_reload_under_load_loses_no_request() -> None:
    with running_server("--workers=2") as server:
        first = {server.state()["pid"] for _ in range(4)}
        stop = threading.Event()
        outcomes: list[int | str] = []
        threads = [threading.Thread(target=keep_asking, args=(server.port, stop, outcomes)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not any(exists(pid) for pid in first), "the old workers are gone")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(outcomes) == {200}


def keep_asking(port: int, stop: threading.Event, outcomes: list[int | str]) -> None:
    """Ask over one connection for as long as the server keeps it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    while not stop.is_set():
        try:
            connection.request("POST", "/", b"x" * 100)
            response = connection.getresponse()
            response.read()
            outcomes.append(response.status)
        except OSError as error:
            outcomes.append(repr(error))
            connection.close()
    connection.close()


def test_a_killed_worker_is_replaced_and_requests_wait_for_it() -> None:
    with running_server() as server:
        first = server.state()["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not exists(first), "the worker is gone")
        assert server.state()["pid"] != first


def test_workers_die_with_a_killed_master_and_the_next_one_serves_what_waited() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        running_server("--workers=2", listener=listener) as server,
    ):
        wait_until(lambda: len(worker_pids(server)) == 2, "both workers run")
        children = worker_pids(server)
        assert server.state()["pid"] in children
        server.kill()
        wait_until(lambda: not any(exists(pid) for pid in children), "the workers are gone")
        with server.client() as waiting:
            waiting.send(GET)
            with running_server(listener=listener) as successor:
                assert waiting.answer().status == 200
                assert successor.stop() == 0


SUPERVISOR = """
import pathlib, socket, sys
from serai_gateway.server.testing import RunningServer

listener = socket.create_server(("127.0.0.1", 0))
server = RunningServer(listener, pathlib.Path(sys.argv[1]))
print(server.process.pid, server.state()["pid"], flush=True)
sys.stdin.read()
"""


def test_the_server_dies_with_whoever_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        supervisor.kill()
    assert len(pids) == 2
    wait_until(lambda: not any(exists(pid) for pid in pids), "master and worker are gone")


def test_a_factory_that_fails_ends_the_server_with_an_error() -> None:
    with running_server("--app=serai_gateway.server.testing:no_such_factory") as server:
        assert server.process.wait(20) != 0
        assert "no_such_factory" in server.log()


def worker_pids(server: RunningServer) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
