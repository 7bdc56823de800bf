"""A real runner host with real sandboxed replicas, seen through its socket."""

import json
import os
import signal
import struct
from pathlib import Path

import pytest

from serai.ipc.messages import Drain, Failure, Limits, Refusal, Result, Unknown
from serai_runner.testing import Answer, HostProcess, is_alive, python_version, run_host, write_algorithm

KEY = "acme/demo@1"

SOURCE = """
import os, sys, time, subprocess

loaded = []

def load():
    loaded.append(os.getpid())

class Mine(Exception):
    error_type = "InputError"

class Unknown(Exception):
    error_type = "NobodyKnowsThis"

def apply(input):
    if not isinstance(input, list):
        return input
    word, *rest = input
    return globals()[word](*rest)

def value(text): return eval(text)
def fail(text): raise ValueError(text)
def fail_as(name): raise globals()[name]("told you")
def out_of_memory(): raise MemoryError
def leave(): sys.exit(3)
def end(code): os._exit(code)
def segfault():
    import ctypes
    ctypes.string_at(0)
def loop():
    while True: pass
def hog():
    data = []
    while True: data.append(bytearray(16 << 20))
def sleep(seconds): time.sleep(seconds); return "slept"
def pid(): return [os.getpid(), len(loaded)]
def say():
    print("from python")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from the descriptor\\n")
    subprocess.run(["echo", "from a child"], check=True)
    return "said"
def shout(num_bytes): sys.stdout.write("x" * num_bytes); return "shouted"
def silence(): os.close(1); os.close(2); sys.stdout = None; return "silent"
def fork():
    child = os.fork()
    if child: os.waitpid(child, 0)
    return "parent" if child else "child"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, sandbox) -> Path:
    return tmp_path_factory.mktemp("serai")


@pytest.fixture(scope="module")
def code(home: Path) -> str:
    return write_algorithm(home / "code" / "demo", SOURCE)


@pytest.fixture(scope="module")
def host(home: Path, code: str, sandbox: tuple[str, ...]):
    with run_host(home, *sandbox, "--max-replicas", "1") as host:
        yield host


@pytest.fixture
def caller(host: HostProcess, code: str):
    caller = host.connect()
    caller.define(python_version(code))
    yield caller
    caller.close()


def run(caller, *words, **more) -> Answer:
    return caller.call(KEY, json.dumps(words).encode(), **more)


def refusal(answer: Answer) -> Refusal:
    assert isinstance(answer.message, Refusal), answer
    return answer.message


def failure(answer: Answer) -> Failure:
    assert isinstance(answer.message, Failure), answer
    return answer.message


@pytest.mark.parametrize(
    ("content_type", "payload", "expected_type", "expected"),
    [
        ("json", b'{"a": [1, 2.5, null, "\\u00e9"]}', "json", '{"a":[1,2.5,null,"é"]}'.encode()),
        ("json", b'"text"', "text", b"text"),
        ("json", b"null", "void", b""),
        ("json", b"7", "json", b"7"),
        ("text", "schön".encode(), "text", "schön".encode()),
        ("binary", bytes(range(256)), "binary", bytes(range(256))),
        ("binary", b"", "binary", b""),
        ("void", b"", "void", b""),
    ],
)
def test_inputs_and_results_of_every_content_type(caller, content_type, payload, expected_type, expected):
    answer = caller.call(KEY, payload, content_type)
    assert isinstance(answer.message, Result)
    assert (answer.message.content_type, answer.result) == (expected_type, expected)
    assert answer.message.duration_s >= 0


def test_a_large_input_comes_back_whole(caller):
    data = os.urandom(9 << 20)
    assert caller.call(KEY, data, "binary").result == data


@pytest.mark.parametrize(
    ("payload", "content_type", "told"),
    [
        (b"{", "json", "input is not JSON"),
        (b"[NaN]", "json", "NaN is not JSON"),
        (b"[" * 100_000, "json", "input is not JSON"),
        (b"\xff", "json", "input is not JSON"),
        (b"\xff", "text", "input is not UTF-8"),
    ],
)
def test_inputs_that_cannot_be_read_are_the_callers_error(caller, payload, content_type, told):
    answer = failure(caller.call(KEY, payload, content_type))
    assert answer.error_type == "ParsingError" and told in answer.message and answer.stacktrace == ""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{'a': [0, 1, 2, float('nan')]}", "result is not JSON: NaN at $.a[3]"),
        ("[float('-inf')]", "result is not JSON: -Infinity at $[0]"),
        ("{'a': {'b': {1, 2}}}", "result is not JSON: set at $.a.b"),
        ("{(1, 2): 3}", "result is not JSON: a key of type tuple at $"),
        ("['\\ud800']", "result is not JSON: text with a lone surrogate at $[0]"),
    ],
)
def test_results_that_are_not_json_name_the_place(caller, value, told):
    answer = failure(run(caller, "value", value))
    assert (answer.error_type, answer.message) == ("AlgorithmError", told)


def test_a_result_that_is_too_large_says_the_limit(caller):
    answer = failure(run(caller, "value", "bytes(11 << 20)"))
    assert answer.error_type == "TooLargeError" and str(10 << 20) in answer.message


def test_an_exception_is_a_failure_with_the_authors_frames_only(caller):
    answer = failure(run(caller, "fail", "no such thing"))
    assert (answer.error_type, answer.message) == ("AlgorithmError", "no such thing")
    assert "/opt/algorithm/src/main.py" in answer.stacktrace and "serai_runner" not in answer.stacktrace


@pytest.mark.parametrize(
    ("words", "error_type"),
    [
        (("fail_as", "Mine"), "InputError"),
        (("fail_as", "Unknown"), "AlgorithmError"),
        (("out_of_memory",), "OutOfMemoryError"),
        (("leave",), "AlgorithmError"),
    ],
)
def test_error_types_are_algorithmias_or_the_general_one(caller, words, error_type):
    assert failure(run(caller, *words)).error_type == error_type


def test_an_error_as_long_as_a_book_is_cut_to_fit(caller):
    answer = failure(run(caller, "fail", "long " * 100_000))
    assert 8000 < len(answer.message) <= 8192


def test_output_of_python_c_and_children_comes_with_the_result_when_asked_for(caller):
    answer = run(caller, "say", wants_stdout=True)
    assert answer.result == b"said"
    lines = answer.stdout.decode().splitlines()
    assert sorted(lines) == ["from a child", "from python", "from the descriptor", "to stderr"]
    assert run(caller, "say").stdout == b""
    assert run(caller, "value", "1", wants_stdout=True).stdout == b""


def test_output_is_cut_with_a_mark_and_never_blocks(caller):
    answer = run(caller, "shout", 5 << 20, wants_stdout=True)
    assert answer.result == b"shouted" and answer.stdout.endswith(b"more than 1 MiB]\n")
    assert (1 << 20) <= len(answer.stdout) <= (1 << 20) + 100


def test_an_author_who_closes_standard_output_is_still_answered(caller):
    first = run(caller, "silence", wants_stdout=True)
    second = run(caller, "value", "[1]", wants_stdout=True)
    assert (first.result, second.result, second.stdout) == (b"silent", b"[1]", b"")
    run(caller, "end", 0)


def test_a_forked_child_does_not_answer_for_its_parent(caller):
    assert [run(caller, "fork").result for _ in range(3)] == [b"parent"] * 3


@pytest.mark.parametrize(
    ("words", "how"),
    [(("end", 7), "exit code 7"), (("segfault",), "signal 11 (SIGSEGV)"), (("end", 0), "exit code 0")],
)
def test_a_replica_that_dies_refuses_its_call_and_the_next_call_works(caller, words, how):
    answer = refusal(run(caller, *words))
    assert answer.code == "crashed" and answer.retriable and how in answer.message
    assert run(caller, "value", "[2]").result == b"[2]"


def test_calls_behind_a_crash_are_run_by_another_replica(caller):
    for _ in range(50):  # short calls: several are sent ahead
        run(caller, "value", "1")
    waiting = [caller.start_call(KEY, b'["sleep", 0.05]')]
    waiting.append(caller.start_call(KEY, b'["end", 5]'))
    waiting += [caller.start_call(KEY, f'["value", "[{n}]"]'.encode()) for n in range(10)]
    answers = [caller.wait(call_id) for call_id in waiting]
    assert answers[0].result == b"slept" and refusal(answers[1]).code == "crashed"
    assert [answer.result for answer in answers[2:]] == [f"[{n}]".encode() for n in range(10)]


def test_an_endless_loop_ends_at_its_deadline_and_its_process_with_it(host, caller):
    before = json.loads(run(caller, "pid").result)
    pid = host.replica_pid()
    answer = refusal(run(caller, "loop", timeout_s=0.3))
    assert answer.code == "deadline" and not answer.retriable
    host.wait_for(lambda: not is_alive(pid), "the old replica is gone")
    assert json.loads(run(caller, "pid").result)[1] == before[1] == 1


def test_a_memory_hog_is_told_its_limit_and_others_live_on(host, caller, code):
    caller.define(python_version(code, key="acme/other@1"))
    other = caller.call("acme/other@1", b'["pid"]').result
    answer = failure(run(caller, "hog"))
    assert answer.error_type == "OutOfMemoryError"
    assert caller.call("acme/other@1", b'["pid"]').result == other


def test_a_replica_killed_from_outside_under_load_loses_only_the_call_in_it(host, caller):
    run(caller, "value", "1")
    calls = [caller.start_call(KEY, b'["sleep", 0.01]') for _ in range(20)]
    caller.wait(calls[0])
    os.kill(host.replica_pid(), signal.SIGKILL)
    answers = [caller.wait(call_id) for call_id in calls[1:]]
    crashed = [answer for answer in answers if isinstance(answer.message, Refusal)]
    assert len(crashed) <= 1 and all(refusal(answer).code == "crashed" for answer in crashed)
    assert all(answer.result == b"slept" for answer in answers if answer not in crashed)


def test_a_cancelled_call_is_not_answered_and_leaves_the_replica_usable(caller):
    slow = caller.start_call(KEY, b'["sleep", 0.2]')
    waiting = caller.start_call(KEY, b'["end", 1]')
    caller.cancel(slow)
    caller.cancel(waiting)
    assert run(caller, "value", "[3]").result == b"[3]"
    assert caller.num_unread() == 0


def test_a_version_that_was_not_defined_is_unknown(host):
    caller = host.connect()
    assert isinstance(caller.call(KEY, b"1").message, Unknown)


def test_code_that_cannot_be_imported_fails_its_calls_with_the_reason(home, caller):
    code = write_algorithm(home / "code" / "broken", "import a_module_that_is_missing\n")
    caller.define(python_version(code, key="acme/broken@1"))
    calls = [caller.start_call("acme/broken@1", b"1") for _ in range(3)]
    for call_id in calls:
        answer = failure(caller.wait(call_id))
        assert answer.error_type == "InitializationError" and "a_module_that_is_missing" in answer.message
        assert "/opt/algorithm/src/main.py" in answer.stacktrace


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import os\nos._exit(4)\n", "exit code 4"),
        ("def apply(:\n", "invalid syntax"),
        ("x = 1\n", "no function apply"),
        ("def apply(i): pass\ndef load(): raise OSError('no weights')\n", "no weights"),
    ],
)
def test_every_way_to_fail_while_loading_is_told(home, caller, source, told):
    name = f"b{abs(hash(source))}"
    caller.define(python_version(write_algorithm(home / "code" / name, source), key=name))
    answer = failure(caller.call(name, b"1"))
    assert answer.error_type == "InitializationError" and told in answer.message


def test_code_that_is_missing_is_our_fault_and_worth_a_retry(caller):
    caller.define(python_version("/nowhere/at/all", key="acme/missing@1"))
    answer = refusal(caller.call("acme/missing@1", b"1"))
    assert answer.code == "unavailable" and answer.retriable and "/nowhere/at/all" in answer.message


def test_a_version_that_is_only_a_model_is_not_for_the_runner(caller):
    caller.define(python_version("", key="acme/model@1", kind="model"))
    assert "model pool" in refusal(caller.call("acme/model@1", b"1")).message


def test_author_modules_named_like_the_standard_library_break_nothing(home, caller):
    source = "import json, struct, traceback\ndef apply(i): return [json.__file__.startswith('/opt'), i]\n"
    evil = "raise RuntimeError('imported')\n"
    names = {f"src__{name}.py": evil for name in ("json", "struct", "socket", "traceback", "asyncio", "serai")}
    code = write_algorithm(home / "code" / "shadow", source, **names, **{"json.py": evil, "serai.py": evil})
    caller.define(python_version(code, key="acme/shadow@1"))
    assert caller.call("acme/shadow@1", b"1").result == b"[false,1]"


def test_async_functions_packages_and_sibling_modules_work(home, caller):
    source = (
        "import asyncio, helper, vendored\nfrom src import helper as same\n"
        "async def load():\n    await asyncio.sleep(0)\n"
        "async def apply(i):\n    await asyncio.sleep(0)\n    return [helper.X, same.X, vendored.Y, i]\n"
    )
    code = write_algorithm(home / "code" / "async", source, **{"src__helper.py": "X = 1\n"})
    packages = home / "environments" / "e1"
    packages.mkdir(parents=True)
    (packages / "vendored.py").write_text("Y = 2\n")
    (packages / "src.py").write_text("raise RuntimeError('a package called src')\n")
    caller.define(python_version(code, key="acme/async@1", environment=str(packages)))
    assert caller.call("acme/async@1", b"3").result == b"[1,1,2,3]"


def test_a_version_with_concurrency_runs_calls_side_by_side(home, caller):
    source = (
        "import threading\nmeet = threading.Barrier(3)\n"
        "def apply(i):\n    meet.wait(10)\n    return [i]\n"
    )  # fmt: skip
    code = write_algorithm(home / "code" / "wide", source)
    caller.define(python_version(code, key="acme/wide@1", limits=Limits(memory_bytes=256 << 20, concurrency=3)))
    calls = [caller.start_call("acme/wide@1", str(n).encode()) for n in range(3)]
    assert [caller.wait(call_id).result for call_id in calls] == [b"[0]", b"[1]", b"[2]"]


def test_figures_are_told_as_prometheus_text(caller):
    run(caller, "value", "1")
    lines = caller.stats().splitlines()
    assert any(line.startswith('serai_runner_calls_total{outcome="succeeded"} ') for line in lines)
    assert any(line.startswith('serai_runner_replicas{state="idle"} ') for line in lines)
    assert any(line.startswith("serai_runner_queue_wait_seconds_count ") for line in lines)


def test_a_gateway_that_sends_nonsense_loses_its_connection_and_nobody_else_does(host, caller):
    for nonsense in (
        b"\x00" * 64,
        struct.pack("<IH", 1 << 31, 10) + b"x" * 100,
        struct.pack("<IH", 10, 8) + b"\xc1" * 8,
    ):
        bad = host.connect()
        bad._sock.sendall(nonsense)
        with pytest.raises((EOFError, ConnectionResetError)):
            bad.wait(1)
    assert run(caller, "value", "[4]").result == b"[4]"


def test_draining_finishes_what_runs_refuses_what_comes_and_leaves_nothing(tmp_path, code, sandbox):
    with run_host(tmp_path / "home", *sandbox) as host:
        caller = host.connect()
        caller.define(python_version(code))
        run(caller, "value", "1")
        running = caller.start_call(KEY, b'["sleep", 0.3]')
        caller.send(Drain())
        late = caller.start_call(KEY, b"1")
        pids = host.replica_pids()
        assert pids and refusal(caller.wait(late)).code == "draining"
        assert caller.wait(running).result == b"slept"
        assert host.terminate() == 0
        assert not any(map(is_alive, pids))


def test_sigterm_drains_with_exit_code_zero(tmp_path, code, sandbox):
    with run_host(tmp_path / "home", *sandbox) as host:
        caller = host.connect()
        caller.define(python_version(code))
        running = caller.start_call(KEY, b'["sleep", 0.2]')
        assert json.loads(run(caller, "pid").result)[1] == 1
        assert host.terminate() == 0
        assert caller.wait(running).result == b"slept"


def test_kill_9_of_the_host_leaves_no_process_behind_without_a_sandbox(tmp_path, code):
    test_kill_9_of_the_host_leaves_no_process_behind(tmp_path, code, ("--sandbox", "none"))


def test_kill_9_of_the_host_leaves_no_process_behind(tmp_path, code, sandbox):
    with run_host(tmp_path / "home", *sandbox) as host:
        caller = host.connect()
        for number in range(3):
            caller.define(python_version(code, key=f"v{number}"))
            assert isinstance(caller.call(f"v{number}", b"1").message, Result)
        caller.start_call("v0", b'["loop"]')
        caller.call("v1", b"2")
        pids = host.replica_pids()
        assert len(pids) >= 3
        host.kill()
        host.wait_for(lambda: not any(map(is_alive, pids)), "every replica has ended")


def test_control_groups_are_removed_with_their_replicas(tmp_path, code, sandbox):
    with run_host(tmp_path / "home", *sandbox) as host:
        caller = host.connect()
        caller.define(python_version(code))
        run(caller, "value", "1")
        host.terminate()

        def leftovers() -> list[Path]:
            return [path for path in Path("/sys/fs/cgroup").glob(f"*/**/serai-{host.pid}*") if path.is_dir()]

        assert leftovers() == []
