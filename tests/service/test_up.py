"""`serai up`: starting, refusing to start, stopping."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from serai_gateway.testing import Service, until, write_algorithm

_SERAI = str(Path(sys.executable).with_name("serai"))


def up(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_SERAI, "up", *options], capture_output=True, text=True, timeout=60)


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text.strip()


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up("--home", str(tmp_path / "home"), "--port", str(port))
    assert done.returncode == 1
    assert one_line(done.stderr) == f"serai up: port {port} on 127.0.0.1 is in use; choose another with --port"


def test_a_home_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = up("--home", str(tmp_path / "file" / "home"), "--port", "0")
    assert done.returncode == 1
    assert "choose another folder with --home" in one_line(done.stderr)


def test_a_second_up_on_the_same_home_is_one_clear_line(service: Service) -> None:
    done = up("--home", str(service.home), "--port", "0")
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert "in use by another `serai up`" in line
    assert str(service.pid) in line
    assert service.is_ready()


@pytest.mark.parametrize("options", [("--port", "70000"), ("--workers", "0"), ("--nonsense",)])
def test_wrong_options_are_usage_errors(options: tuple[str, ...]) -> None:
    done = up(*options)
    assert done.returncode == 2
    assert "usage: serai up" in done.stderr


def test_a_setting_that_only_a_daemon_finds_wrong_is_one_clear_line_and_not_tried_for_ever(tmp_path: Path) -> None:
    done = up("--home", str(tmp_path / "home"), "--port", "0", "--devices", "toaster")
    assert done.returncode == 1
    assert one_line(done.stderr).startswith('serai up: --devices: there is no "toaster" here; found: ')


def test_the_key_file_is_private_and_the_key_has_the_known_form(service: Service) -> None:
    assert stat.S_IMODE((service.home / "operator.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700
    assert len(service.key) == 28
    assert service.key.startswith("sim")
    assert service.key in service.output


def test_sigterm_finishes_what_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    slow = "import time\ndef apply(input):\n    time.sleep(1.5)\n    return 'finished'\n"
    service = Service(tmp_path / "home").start()
    answers = []
    try:
        service.publish(write_algorithm(tmp_path / "slow", slow))
        assert service.call("operator/slow", b"1").status == 200  # the replica is warm
        caller = threading.Thread(target=lambda: answers.append(service.call("operator/slow", b"1")))
        caller.start()
        until(lambda: _in_flight(service), "the call is running")
        processes = [service.pid, *(child.pid for child in psutil.Process(service.pid).children(recursive=True))]
        assert len(processes) >= 6
    finally:
        code = service.stop(signal.SIGTERM)
    caller.join(10)
    assert code == 0
    assert [(a.status, a.json().get("result")) for a in answers] == [(200, "finished")]
    until(lambda: not [pid for pid in processes if _is_alive(pid)], "every process has ended", 5)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", service.port), 1)


def test_killing_the_supervisor_ends_everything_and_the_next_start_has_it_all(tmp_path: Path) -> None:
    service = Service(tmp_path / "home").start()
    service.publish(write_algorithm(tmp_path / "kept", "def apply(input):\n    return 'kept'\n"))
    assert service.call("operator/kept", b"1").json()["result"] == "kept"
    key = service.key
    processes = [child.pid for child in psutil.Process(service.pid).children(recursive=True)]
    service.stop(signal.SIGKILL)
    until(lambda: not [pid for pid in processes if _is_alive(pid)], "every process has ended", 5)
    with Service(tmp_path / "home", port=service.port) as again:
        assert again.key == key
        assert again.call("operator/kept", b"1").json()["result"] == "kept"


def _in_flight(service: Service) -> bool:
    for line in service.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith("serai_runner_replicas{") and 'state="busy"' in line:
            return float(line.rsplit(" ", 1)[1]) > 0
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
