"""Calls that ask for nothing but that the code loads: what a build learns of a version without a sample."""

import json
import os
from pathlib import Path

import pytest

from serai.ipc.messages import Call, Failure, Limits, Ready, Refusal, Result, VersionSpec
from serai_runner.scheduling.scheduler import Scheduler
from serai_runner.settings import Settings
from serai_runner.testing import RecordedEffects, python_version, run_host, write_algorithm

LOAD_S = 6
#: Must not be run by anything here.
NEVER = "\ndef apply(input):\n    raise SystemExit('it was run')\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory, sandbox):
    with run_host(tmp_path_factory.mktemp("serai"), *sandbox, "--load-s", str(LOAD_S)) as host:
        yield host


@pytest.fixture
def load(host, caller):
    """What is answered about a version with this source, or these files."""

    def load(name: str, source: str = "", *, kind: str = "python", executable: str = "", **files: str):
        code = write_algorithm(host.home / "code" / name, source, "main", **files)
        if executable:
            os.chmod(Path(code, executable), 0o755)
        spec = python_version(code, name, Limits(memory_bytes=256 << 20), kind=kind)
        caller.define(spec)
        return caller.call(name, b"", "void", only_load=True).message

    return load


def test_code_that_loads_is_said_to_and_not_run(load):
    assert isinstance(load("good", "def load(): pass" + NEVER), Result)
    assert isinstance(load("slow", f"import time; time.sleep({LOAD_S} / 4)" + NEVER), Result), "slow is not wrong"
    assert isinstance(load("decorated", "import functools\napply = functools.partial(print, 1)"), Result)
    assert isinstance(load("more", "def apply(input, more=1, *, named=2): pass"), Result)
    assert isinstance(load("object", "class Apply:\n def __call__(self, input): pass\napply = Apply()"), Result)
    assert isinstance(load("any", "def apply(*args, **kwargs): pass"), Result)


@pytest.mark.parametrize(
    ("name", "source", "message", "trace"),
    [
        ("raises", "import nosuchpackage" + NEVER, "No module named 'nosuchpackage'", "import nosuchpackage"),
        ("exits", "import sys; sys.exit('no GPU here')" + NEVER, "no GPU here", "sys.exit"),
        ("load-fails", "def load(): raise OSError('no weights')" + NEVER, "no weights", "in load"),
        ("crashes", "import ctypes; ctypes.string_at(0)" + NEVER, "SIGSEGV", ""),
        ("syntax", "def apply(input: return 1", "main.py", "SyntaxError"),
        ("nothing", "value = 1", "has no function apply(input)", ""),
        ("no-function", "apply = 1", "has no function apply(input)", ""),
        ("no-input", "def apply(): pass", "apply is called with one argument", ""),
        ("two-inputs", "def apply(a, b): pass", "apply is called with one argument", ""),
        ("named-input", "def apply(input, *, named): pass", "apply is called with one argument", ""),
        ("hog", "data = bytearray(1 << 30)" + NEVER, "memory", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_stack_trace(load, name, source, message, trace):
    answer = load(name, source)
    assert isinstance(answer, Failure) and answer.error_type == "InitializationError", answer
    assert message in answer.message + answer.stacktrace and trace in answer.stacktrace


def test_an_import_that_hangs_ends_with_the_time_for_loading(load):
    answer = load("hangs", "import threading; threading.Event().wait()" + NEVER)
    assert isinstance(answer, Failure) and f"did not finish loading within {LOAD_S} s" in answer.message


def test_a_replica_that_is_there_already_is_enough(load, caller):
    assert isinstance(load("twice", NEVER), Result) and isinstance(load("twice", NEVER), Result)


def conf(language: str) -> str:
    return json.dumps({"username": "acme", "algoname": "main", "language": language})


@pytest.mark.parametrize(
    ("name", "language", "files", "message"),
    [
        ("pipe-python", "python3", {"src__main.py": "def apply(): pass"}, "apply is called with one argument"),
        ("pipe-nothing", "python3", {"src__main.py": "x = 1"}, "no function apply(input)"),
        ("pipe-raises", "python3", {"src__main.py": "import nosuchpackage"}, "No module named 'nosuchpackage'"),
        ("node-raises", "javascript", {"src__main.js": "throw new Error('no such thing')"}, "no such thing"),
        ("node-nothing", "javascript", {"src__main.js": "exports.other = 1"}, "exports no function apply"),
        ("own-exits", "rust", {"bin__pipe": "#!/bin/sh\necho out of luck >&2\nexit 3\n"}, "out of luck"),
        ("own-early", "rust", {"bin__pipe": "#!/bin/sh\necho 1 > /tmp/algoout\nsleep 60\n"}, "before it was ready"),
    ],
)
def test_algorithmias_kinds_are_loaded_too(load, name, language, files, message):
    executable = "bin/pipe" if "bin__pipe" in files else ""
    files = {"algorithmia.conf": conf(language), **files}
    answer = load(name, files.pop("src__main.py", ""), kind="algorithmia", executable=executable, **files)
    assert isinstance(answer, Failure) and message in answer.message + answer.stacktrace, answer


def test_those_that_are_right_load(load):
    never_js = {"src__main.js": "exports.apply = () => process.exit(3);"}
    source = "def apply(input):\n    raise SystemExit(3)"
    assert isinstance(load("py-good", source, kind="algorithmia", **{"algorithmia.conf": conf("python3")}), Result)
    files = {"algorithmia.conf": conf("javascript"), **never_js}
    assert isinstance(load("js-good", kind="algorithmia", **files), Result)


ADK = """
from Algorithmia import ADK
def load(state):
    state["ready"] = True
    return state
def apply(input, state):
    return "answered"
algorithm = ADK(apply, load)
algorithm.init("Algorithmia")
"""


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("right", ("", ""), ""),
        ("wrong", ('state["ready"] = True', "raise OSError('no weights')"), "no weights"),
        ("arity", ("def apply(input, state)", "def apply(input, state, more)"), "missing a required argument"),
    ],
)
def test_an_adk_that_would_fail_every_call_is_found_out(host, caller, name, change, message, adk_environment):
    source = ADK.replace(*change) if change[0] else ADK
    code = write_algorithm(host.home / "code" / f"adk-{name}", source, **{"algorithmia.conf": conf("python3")})
    key = f"adk-{name}"
    caller.define(VersionSpec(key, "acme", "main", "algorithmia", code, adk_environment))
    answer = caller.call(key, b"", "void", only_load=True).message
    if not message:
        assert isinstance(answer, Result), answer
        return
    assert isinstance(answer, Failure) and answer.error_type == "LoadingError", answer
    assert message in answer.message and "Traceback" in answer.stacktrace + "Traceback" * (name == "arity")
    called = caller.call(key, b"1").message
    assert isinstance(called, Failure), "and calls are answered as Algorithmia answers them"


@pytest.fixture(scope="module")
def adk_environment(tmp_path_factory) -> str:
    import shutil
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("environment")
    folder.chmod(0o755)  # a container's user is another
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv to install algorithmia-adk")
    words = ["pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder)]
    done = subprocess.run([uv, *words, "algorithmia-adk", "algorithmia"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"algorithmia-adk cannot be installed here: {done.stderr[-200:]}")
    return str(folder)


class TestTheScheduler:
    """Without processes."""

    @pytest.fixture
    def effects(self):
        return RecordedEffects()

    @pytest.fixture
    def scheduler(self, effects):
        return Scheduler(effects, Settings(Path("/home"), replicas=1, max_processes=2, load_s=3.0))

    def ask(self, scheduler, version, number=1, deadline=10.0):
        call = Call(number, version.spec.key, "void", deadline, f"req-{number}", "a", only_load=True)
        return scheduler.on_call(None, call, b"", version, 0.0)

    def test_it_is_answered_when_a_replica_is_ready_and_sent_to_none(self, scheduler, effects):
        version = scheduler.define(python_version("/code"))
        calls = [self.ask(scheduler, version, number) for number in (1, 2)]
        assert not calls[0].ended and len(effects.started) == 1
        scheduler.on_ready(effects.started[0], Ready(), 1.0)
        assert all(call.ended for call in calls) and not effects.sent
        assert [type(message) for _, message, _ in effects.replies] == [Result, Result]
        assert effects.started[0].in_flight == {} and scheduler.num_open == 0
        assert self.ask(scheduler, version, 3).ended, "there is one already"

    def test_its_replica_ends_when_idle_like_any_other(self, scheduler, effects):
        version = scheduler.define(python_version("/code"))
        self.ask(scheduler, version)
        scheduler.on_ready(effects.started[0], Ready(), 1.0)
        scheduler.on_tick(1.0 + Settings(Path("/home")).idle_s + 1.0)
        assert effects.killed == effects.started

    def test_a_complaint_fails_it_and_lets_calls_through(self, scheduler, effects):
        version = scheduler.define(python_version("/code"))
        self.ask(scheduler, version)
        scheduler.on_ready(effects.started[0], Ready(complaint="no weights", stacktrace="trace"), 1.0)
        message = effects.replies[0][1]
        assert (message.error_type, message.message, message.stacktrace) == ("LoadingError", "no weights", "trace")
        scheduler.on_call(None, Call(2, "v", "void", 10.0, "req-2", "a"), b"", version, 1.0)
        assert len(effects.sent) == 1

    def test_its_deadline_counts(self, scheduler, effects):
        version = scheduler.define(python_version("/code"))
        self.ask(scheduler, version, deadline=2.0)
        scheduler.on_tick(2.0)
        message = effects.replies[0][1]
        assert isinstance(message, Refusal) and message.code == "deadline" and "still starting" in message.message
