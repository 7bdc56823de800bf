"""Replicas that are forked from a process which has loaded their code, and versions for which that is not safe."""

import json
import os
import signal
from pathlib import Path

import pytest

from serai.ipc.messages import Failure, Limits, Refusal, Result
from serai_runner.testing import is_alive, python_version, run_host, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

KEY = "acme/demo@1"
COMMON = """
import os, sys, random
def apply(word):
    return globals()[word]()
def pid(): return os.getpid()
def parent(): return os.getppid()
def loaded(): return state
def loop():
    while True: pass
def end(): os._exit(3)
def environment(): return dict(os.environ)
def draw(): return [random.random(), __import__("numpy").random.random()] if "numpy" in sys.modules else random.random()
"""
SHARED = "import os\nstate = [os.getpid(), 0]\ndef load():\n    state[1] = os.getpid()\n" + COMMON


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("docker", marks=pytest.mark.needs_docker)])
def host(request, tmp_path_factory):
    options = ("--sandbox", request.param, "--replicas", "2", "--max-templates", "3", "--idle-s", "0.3")
    with run_host(tmp_path_factory.mktemp("serai"), *options) as host:
        yield host


def define(host, caller, name: str, source: str, **more) -> str:
    key = f"acme/{name}@1"
    code = write_algorithm(host.home / "code" / name, source)
    caller.define(python_version(code, key=key, name=name, **more))
    return key


def ask(caller, key: str, word: str, **more):
    answer = caller.call(key, json.dumps(word).encode(), **more)
    assert isinstance(answer.message, Result), answer
    return json.loads(answer.result)


def num_templates(caller) -> int:
    [line] = [line for line in caller.stats().splitlines() if line.startswith("serai_runner_templates ")]
    return int(float(line.split()[1]))


def test_after_a_kill_the_next_replica_is_forked_and_has_not_loaded_again(host, caller):
    key = define(host, caller, "shared", SHARED)
    first, state = ask(caller, key, "pid"), ask(caller, key, "loaded")
    assert state[0] == state[1] != first, "loaded once, in another process"
    assert isinstance(caller.call(key, b'"loop"', timeout_s=0.2).message, Refusal)
    assert ask(caller, key, "loaded") == state and ask(caller, key, "pid") != first


def test_how_a_forked_replica_ended_is_known(host, caller):
    key = define(host, caller, "ends", SHARED)
    ask(caller, key, "pid")
    refusal = caller.call(key, b'"end"').message
    assert isinstance(refusal, Refusal) and "exit code 3" in refusal.message


def test_a_fork_has_its_own_folder_for_temporary_files_and_the_common_one_is_closed(host, caller):
    source = SHARED + "def make():\n    open(os.environ['TMPDIR'][:4] + '/fixed', 'w')\n"
    key = define(host, caller, "folders", source)
    variables = ask(caller, key, "environment")
    assert variables["TMPDIR"] == variables["HOME"] and variables["TMPDIR"].startswith("/tmp/replicas/")
    failure = caller.call(key, b'"make"').message
    assert isinstance(failure, Failure) and "PermissionError" in failure.stacktrace


def test_forks_draw_different_random_numbers(host, caller):
    key = define(host, caller, "random", "import random\nrandom.seed(1)\n" + SHARED)
    first = ask(caller, key, "draw")
    caller.call(key, b'"loop"', timeout_s=0.2)
    assert ask(caller, key, "draw") != first


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"),
        ("socket", "import socket\nsock = socket.socket()\n"),
        ("file", "file = open(__file__)\n"),
        ("child", "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n"),
        ("fixed-name", "NAME = '/tmp/result.png'\n"),
    ],
)
def test_what_a_fork_would_wrongly_share_makes_every_replica_load_by_itself(host, caller, name, source):
    key = define(host, caller, name, source + SHARED)
    first = ask(caller, key, "loaded")
    assert first[0] == ask(caller, key, "pid"), "it was loaded in this very process"
    caller.call(key, b'"loop"', timeout_s=0.2)
    again = ask(caller, key, "loaded")
    assert again[0] == ask(caller, key, "pid")


def test_a_load_that_opens_something_runs_in_each_fork_and_the_import_does_not(host, caller):
    source = SHARED.replace(
        "def load():\n", "def load():\n    global sock\n    import socket\n    sock = socket.socket()\n"
    )
    key = define(host, caller, "opens", source)
    assert ask(caller, key, "loaded") == [ask(caller, key, "pid")] * 2, "the first one is the template itself"
    for _ in range(2):
        caller.call(key, b'"loop"', timeout_s=0.2)
        state, pid = ask(caller, key, "loaded"), ask(caller, key, "pid")
    assert state[1] == pid != state[0]


def test_loading_that_fails_in_a_template_is_told_with_its_trace(host, caller):
    key = define(host, caller, "broken", "raise ValueError('no such thing')\n")
    failure = caller.call(key, b"1").message
    assert isinstance(failure, Failure) and failure.error_type == "InitializationError"
    assert failure.message == "no such thing" and "src/main.py" in failure.stacktrace


def test_a_memory_limit_holds_for_each_fork(host, caller):
    source = SHARED + "def hog():\n    data = []\n    while True: data.append(bytearray(8 << 20))\n"
    key = define(host, caller, "hog", source, limits=Limits(memory_bytes=128 << 20))
    state = ask(caller, key, "loaded")
    failure = caller.call(key, b'"hog"').message
    assert isinstance(failure, Failure) and failure.error_type == "OutOfMemoryError", failure
    assert ask(caller, key, "loaded") == state, "the template lives on"


def test_no_more_templates_are_kept_than_may_be_and_idle_ones_go_first(host, caller):
    for number in range(6):
        key = define(host, caller, f"many{number}", SHARED)
        ask(caller, key, "pid")
    host.wait_for(lambda: num_templates(caller) <= 3, "old templates have ended")
    assert isinstance(caller.call(key, b'"pid"').message, Result)


def test_a_template_that_nobody_forks_from_ends(tmp_path):
    options = ("--sandbox", "bubblewrap", "--idle-s", "0.1", "--template-idle-s", "0.2", "--spares", "0")
    with run_host(tmp_path / "home", *options) as host:
        caller = host.connect()
        key = define(host, caller, "brief", SHARED)
        ask(caller, key, "pid")
        host.wait_for(lambda: not host.replica_pids(), "nothing runs any more")
        assert ask(caller, key, "pid")


def test_a_template_killed_from_outside_costs_only_what_ran_in_its_forks(tmp_path):
    with run_host(tmp_path / "home", "--sandbox", "bubblewrap", "--replicas", "1", "--spares", "0") as host:
        caller = host.connect()
        key = define(host, caller, "victim", SHARED)
        ask(caller, key, "pid")
        outermost = host.replica_pids()[0]
        os.kill(outermost, signal.SIGKILL)
        host.wait_for(lambda: not is_alive(outermost), "the box is gone")
        answers = [caller.call(key, b'"pid"').message for _ in range(5)]
        crashed = [answer for answer in answers if isinstance(answer, Refusal)]
        assert len(crashed) <= 1 and isinstance(answers[-1], Result), answers


def test_a_thousand_calls_on_a_cold_version_load_its_code_once_per_box(tmp_path):
    marks = "import os\nopen('/proc/self/fd/1', 'a').write('LOADED\\n')\n"
    with run_host(tmp_path / "home", "--sandbox", "bubblewrap", "--replicas", "2") as host:
        caller = host.connect()
        key = define(host, caller, "herd", marks + SHARED)
        ids = [caller.start_call(key, b'"pid"', payer=f"payer{number % 7}") for number in range(1000)]
        answers = [caller.wait(call_id) for call_id in ids]
        assert all(isinstance(answer.message, Result) for answer in answers)
        starts = [line for line in caller.stats().splitlines() if line.startswith("serai_runner_replica_starts_total")]
        assert float(starts[0].split()[1]) <= 2
        logs = "".join(path.read_text() for path in Path(host.home, "logs", "versions").rglob("*.jsonl"))
        assert logs.count("LOADED") <= 1


def test_a_machine_that_is_short_of_memory_keeps_no_idle_templates(tmp_path):
    """As if it were: all of its memory is the reserve."""
    options = ("--sandbox", "bubblewrap", "--idle-s", "0.1", "--memory-reserve-bytes", str(1 << 50), "--spares", "0")
    with run_host(tmp_path / "home", *options) as host:
        caller = host.connect()
        keys = [define(host, caller, f"short{number}", SHARED) for number in range(3)]
        for key in keys:
            ask(caller, key, "pid")
            host.wait_for(lambda: 'state="idle"} 0.0' in caller.stats(), "its replica has ended")
        host.wait_for(lambda: num_templates(caller) == 1, "only the last one's template is left")


def test_a_fork_cannot_read_its_siblings_memory_or_its_key(host, caller):
    source = (
        SHARED
        + """
import errno
def key(): return os.environ["SERAI_API_KEY"]
def spy():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):  # 1 is nobody's code
            for file in ("mem", "environ", "maps"):
                try:
                    with open(f"/proc/{name}/{file}", "rb") as opened:
                        if opened.read(10): found.append(name + "/" + file)
                except OSError as error:
                    pass
    return found
"""
    )
    key = define(host, caller, "siblings", source)
    slow = caller.start_call(key, b'"loop"', timeout_s=20.0)
    waiting = [caller.start_call(key, b'"key"') for _ in range(2)]
    answers = [caller.wait(call_id) for call_id in waiting]
    keys = {answer.payload for answer in answers}
    assert ask(caller, key, "spy") == []
    caller.cancel(slow)
    assert len(keys) == 1 and next(iter(keys)).startswith(b"sim"), answers
