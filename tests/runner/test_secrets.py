"""Secrets in real boxes: who sees them, when a changed one counts, and where they are not written."""

import json
import shutil
import time
from pathlib import Path

import pytest

from serai.ipc.messages import Failure, Limits, Result, VersionSpec
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_runner.sandbox.base import Box, box_variables, make_job
from serai_runner.sandbox.base import Limits as BoxLimits
from serai_runner.testing import Caller, HostProcess, python_version, run_host, write_algorithm

CANARY = "canary-5f1d0c6e-do-not-tell"

SOURCE = """
import os, subprocess, sys, time
AT_IMPORT = os.environ.get("TOKEN")
print("imported with", AT_IMPORT)

def apply(input):
    word, *rest = input
    return globals()[word](*rest)

def get(name): return os.environ.get(name)
def imported(): return AT_IMPORT
def child(): return subprocess.run(["sh", "-c", "echo $TOKEN"], capture_output=True, text=True).stdout.strip()
def pid(): return os.getpid()
def slow(seconds):
    time.sleep(seconds)
    return os.environ.get("TOKEN")
def fail(): raise ValueError("cannot log in with " + os.environ["TOKEN"])
def say():
    print("the token is", os.environ["TOKEN"])
    print("and again", os.environ["TOKEN"], file=sys.stderr)
def crash():
    print("dying with", os.environ["TOKEN"], flush=True)
    os._exit(3)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory, sandbox: tuple[str, ...]):
    with run_host(tmp_path_factory.mktemp("serai"), *sandbox) as host:
        yield host


@pytest.fixture
def spec(host: HostProcess, request) -> VersionSpec:
    """One for each test."""
    name = request.node.name.split("[")[0]
    return python_version(write_algorithm(host.home / "code" / name, SOURCE), key=f"acme/{name}@1")


def run(caller: Caller, spec: VersionSpec, *words: object):
    answer = caller.call(spec.key, json.dumps(words).encode())
    assert isinstance(answer.message, Result), answer
    return None if answer.message.content_type == "void" else answer.result.decode()


def log_of(host: HostProcess) -> str:
    """Everything that the host has written anywhere."""
    files = [path for path in host.home.rglob("*") if path.is_file() and "code" not in path.parts]
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_code_its_children_and_what_it_imports_see_them(caller, spec):
    caller.define(spec, Secrets(1.0, {"TOKEN": CANARY}))
    assert run(caller, spec, "get", "TOKEN") == run(caller, spec, "imported") == run(caller, spec, "child") == CANARY


def test_another_algorithm_does_not(caller, spec, host):
    caller.define(spec, Secrets(1.0, {"TOKEN": CANARY}))
    other = python_version(spec.code, key=f"{spec.key}-other")
    caller.define(other)
    assert run(caller, other, "get", "TOKEN") is None
    assert run(caller, spec, "get", "TOKEN") == CANARY


def test_a_changed_one_counts_from_the_next_call_on(caller, spec):
    for number in range(1, 5):
        caller.define(spec, Secrets(float(number), {"TOKEN": f"value-{number}"}))
        assert run(caller, spec, "get", "TOKEN") == run(caller, spec, "imported") == f"value-{number}"
    caller.define(spec, Secrets(9.0))
    assert run(caller, spec, "get", "TOKEN") is None


def test_what_runs_ends_with_what_it_began_with(caller, spec):
    caller.define(spec, Secrets(1.0, {"TOKEN": "old-value"}))
    assert run(caller, spec, "get", "TOKEN") == "old-value"
    slow = caller.start_call(spec.key, b'["slow", 1.0]')
    time.sleep(0.2)  # it has begun
    caller.define(spec, Secrets(2.0, {"TOKEN": "new-value"}))
    assert run(caller, spec, "get", "TOKEN") == "new-value"
    answer = caller.wait(slow)
    assert isinstance(answer.message, Result) and answer.result == b"old-value"


def test_a_gateway_that_is_behind_changes_nothing(caller, spec, host):
    caller.define(spec, Secrets(2.0, {"TOKEN": "new-value"}))
    assert run(caller, spec, "get", "TOKEN") == "new-value"
    before = run(caller, spec, "pid")
    behind = host.connect()
    behind.define(spec, Secrets(1.0, {"TOKEN": "old-value"}))
    assert run(behind, spec, "get", "TOKEN") == "new-value"
    behind.define(spec, NO_SECRETS)  # who only asks for its log
    behind.define(spec, Secrets(3.0, {"TOKEN": "new-value"}))  # something else about them has changed
    assert run(behind, spec, "get", "TOKEN") == "new-value"
    assert run(caller, spec, "pid") == before


def test_a_wrong_one_that_is_put_right_need_not_wait(caller, spec, host):
    code = write_algorithm(
        host.home / "code" / "needs", "import os\nassert os.environ['TOKEN'] == 'right'\ndef apply(i): return i\n"
    )
    needs = python_version(code, key="acme/needs@1")
    caller.define(needs, Secrets(1.0, {"TOKEN": "wrong"}))
    for _ in range(3):
        assert isinstance(caller.call(needs.key, b"1").message, Failure)
    caller.define(needs, Secrets(2.0, {"TOKEN": "right"}))
    assert isinstance(caller.call(needs.key, b"1").message, Result)


def test_ours_win(caller, spec):
    caller.define(spec, Secrets(1.0, {"PATH": "/nowhere", "SERAI_API_KEY": "x", "HOME": "/x", "MINE": "y"}))
    assert "/nowhere" not in (run(caller, spec, "get", "PATH") or "")
    assert "/x" not in (run(caller, spec, "get", "HOME") or "")
    assert run(caller, spec, "get", "SERAI_API_KEY") != "x"
    assert run(caller, spec, "get", "MINE") == "y"


def test_they_are_hidden_in_errors_and_logs_and_on_no_process_list(caller, spec, host):
    caller.define(spec, Secrets(1.0, {"TOKEN": CANARY}))
    run(caller, spec, "say")
    answer = caller.call(spec.key, b'["fail"]')
    assert isinstance(answer.message, Failure)
    assert answer.message.message == "cannot log in with [secret TOKEN]"
    assert CANARY not in answer.message.stacktrace
    for pid in host.replica_pids():
        assert CANARY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    caller.call(spec.key, b'["crash"]')
    lines = ("imported with", "the token is", "and again", "cannot log in with", "dying with")
    host.wait_for(
        lambda: all(f"{line} [secret TOKEN]" in log_of(host) for line in lines), "the logs hold what was printed"
    )
    assert CANARY not in log_of(host)


def test_many_long_ones_arrive_whole(caller, spec):
    values = {f"LONG_{number}": '"\\\n\té😀' * 800 for number in range(7)}
    caller.define(spec, Secrets(1.0, values))
    for name, value in values.items():
        assert run(caller, spec, "get", name) == value


@pytest.mark.parametrize("language", ["python3", "javascript", "pipe"])
def test_repositories_of_algorithmias_have_them_too(caller, host, language, sandbox):
    if language == "javascript" and shutil.which("node") is None:
        pytest.skip("needs node")
    name = f"theirs_{language}_{sandbox[1]}"
    conf = {"username": "acme", "algoname": "main", "language": "javascript" if language == "javascript" else "python3"}
    source = "import os\ndef apply(i): return os.environ.get('TOKEN')\n"
    code = write_algorithm(host.home / "code" / name, source, **{"algorithmia.conf": json.dumps(conf)})
    if language == "javascript":
        Path(code, "src", "main.js").write_text(
            "exports.apply = (i, done) => done(null, process.env.TOKEN || 'none');\n"
        )
    if language == "pipe":
        pipe = Path(code, "bin", "pipe")
        pipe.parent.mkdir(exist_ok=True)
        pipe.write_text(
            "#!/bin/sh\necho PIPE_INIT_COMPLETE\n"
            'while read line; do printf \'{"result":"%s"}\' "$TOKEN" > /tmp/algoout; done\n'
        )
        pipe.chmod(0o755)
    spec = VersionSpec(f"acme/{name}@1", "acme", "main", "algorithmia", code, limits=Limits(memory_bytes=512 << 20))
    for number in (1, 2):
        caller.define(spec, Secrets(float(number), {"TOKEN": f"{CANARY}-{number}"}))
        answer = caller.call(spec.key, b"1")
        assert isinstance(answer.message, Result), answer
        assert answer.result.decode().strip('"') == f"{CANARY}-{number}"


def test_whatever_is_printed_of_them_says_no_value():
    secrets = Secrets(1.0, {"TOKEN": CANARY})
    box = Box(1, python_version("/code"), BoxLimits(1, 1, 1.0, 1), secrets=secrets, key="sim-key")
    job = make_job(box, box_variables(box))
    for thing in (secrets, box, job, [secrets], {"a": box}):
        assert CANARY not in repr(thing) and CANARY not in str(thing)
    assert "sim-key" not in repr(box) + repr(job)
    assert job.variables["TOKEN"] == CANARY


def test_what_is_hidden():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEA\n-----END KEY-----\n"
    secrets = Secrets(1.0, {"SHORT": "abc", "LONG": "abcdefgh", "LONGER": "abcdefghijkl", "PEM": key})
    assert secrets.hide("abc abcdefgh abcdefghijkl") == "abc [secret LONG] [secret LONGER]"
    assert secrets.hide_bytes(b"x abcdefgh y") == b"x [secret LONG] y"
    assert secrets.hide(f"<{key}>") == "<[secret PEM]>"
    assert secrets.hide("line MIIEvQIBADANBgkqhkiG9w0 alone") == "line [secret PEM] alone"
    assert NO_SECRETS.hide("abcdefgh") == "abcdefgh" and NO_SECRETS.hide_bytes(b"abc") == b"abc"
    assert Secrets.decode(secrets.encode()).values == secrets.values and Secrets.decode(b"") is NO_SECRETS
