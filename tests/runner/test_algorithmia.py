"""Repositories of Algorithmia's time, through the real pipe protocol in a real sandbox."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from serai.ipc.messages import Failure, Limits, Refusal, Result, VersionSpec
from serai_runner.inside import pipe
from serai_runner.inside.values import ResultRefused
from serai_runner.testing import run_host, write_algorithm

CONF = '{"username": "acme", "algoname": "NAME", "language": "LANGUAGE"}'

PLAIN = """
import os
print("loading")

class Wrong(Exception):
    error_type = "InputError"

class Odd(Exception):
    error_type = 42

def apply(input):
    print("called with", type(input).__name__)
    if isinstance(input, bytes):
        return input[::-1]
    if input == "wrong": raise Wrong("bad input")
    if input == "odd": raise Odd("odd input")
    if input == "exit": os._exit(7)
    if input == "noise": print("x" * 300_000)
    if isinstance(input, str):
        return "hello " + input
    return {"got": input}
"""

ADK = """
from Algorithmia import ADK

def load(state):
    state["greeting"] = "hello"
    return state

def apply(input, state):
    if input == "wrong":
        raise ValueError("wrong input")
    if isinstance(input, bytes):
        return b"<" + input + b">"
    return "{} {}".format(state["greeting"], input)

algorithm = ADK(apply, load)
algorithm.init("Algorithmia")
"""

HANDLER = """
import Algorithmia

def load():
    print("loaded")

def apply(input):
    return {"handled": input}

Algorithmia.handler(apply, load).serve()
"""

JAVASCRIPT = """
exports.apply = function (input, done) {
  console.log('called');
  if (input === 'wrong') { const e = new Error('nope'); e.error_type = 'InputError'; return done(e); }
  if (input === 'throw') throw new Error('thrown');
  if (Buffer.isBuffer(input)) return done(null, Buffer.concat([input, input]));
  done(null, typeof input === 'string' ? 'hello ' + input : { got: input });
};
"""

OWN_PIPE = """#!/bin/sh
echo starting
echo PIPE_INIT_COMPLETE
while read -r line; do
  printf '{"result": %s, "metadata": {"content_type": "json"}}' "$line" > /tmp/algoout
done
"""

pytestmark = pytest.mark.needs_bubblewrap


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with run_host(tmp_path_factory.mktemp("serai"), "--sandbox", "bubblewrap", "--max-replicas", "1") as host:
        yield host


@pytest.fixture(scope="module")
def define(host):
    caller = host.connect()

    def define(key: str, source: str, name: str = "Hello", language: str = "python3", environment=None, **files: str):
        conf = CONF.replace("NAME", name).replace("LANGUAGE", language)
        code = write_algorithm(host.home / "code" / key, source, name, **{"algorithmia.conf": conf, **files})
        limits = Limits(memory_bytes=512 << 20)
        spec = VersionSpec(key, "acme", name, "algorithmia", code, environment, limits=limits)
        caller.define(spec)

        def call(payload: bytes, content_type="json"):
            answer = caller.call(key, payload, content_type, wants_stdout=True)
            if isinstance(answer.message, Result):
                return answer.message.content_type, answer.result, answer.stdout.decode()
            return answer.message

        return call

    return define


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> str:
    """Algorithmia's own client and ADK, from where they are installed, with what they import."""
    folder = tmp_path_factory.mktemp("environment")
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder)]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv to install algorithmia-adk")
    done = subprocess.run([uv, *command[1:], "algorithmia-adk", "algorithmia"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"algorithmia-adk cannot be installed here: {done.stderr[-200:]}")
    return str(folder)


@pytest.fixture(scope="module")
def plain(define):
    return define("plain", PLAIN)


@pytest.mark.parametrize(
    ("payload", "content_type", "expected_type", "expected"),
    [
        (b'"Ann"', "json", "text", b"hello Ann"),
        ("Zoë".encode(), "text", "text", "hello Zoë".encode()),
        (b"\x00\xff\n", "binary", "binary", b"\n\xff\x00"),
        (b'{"a":\n [1]}', "json", "json", b'{"got":{"a":[1]}}'),
        (b"", "void", "json", b'{"got":null}'),
    ],
)
def test_a_plain_repository_takes_and_gives_every_type(plain, payload, content_type, expected_type, expected):
    assert plain(payload, content_type)[:2] == (expected_type, expected)


def test_its_output_comes_with_each_call_and_more_than_a_pipe_holds_does_not_block(plain):
    plain(b"1")
    assert plain(b"Ann", "text")[2] == "called with str\n"
    assert plain(b"noise", "text")[2].count("x") == 300_000


@pytest.mark.parametrize(("word", "error_type"), [(b"wrong", "InputError"), (b"odd", "AlgorithmError")])
def test_its_exceptions_are_failures_and_odd_error_types_become_the_general_one(plain, word, error_type):
    answer = plain(word, "text")
    assert isinstance(answer, Failure) and answer.error_type == error_type
    assert answer.message == f"{word.decode()[0:5].replace('wrong', 'bad')} input"
    assert "src/Hello.py" in answer.stacktrace and "serai_runner" not in answer.stacktrace


def test_a_process_that_exits_in_a_call_is_a_crash_that_says_how(plain):
    answer = plain(b"exit", "text")
    assert isinstance(answer, Refusal) and answer.code == "crashed" and "exit code 7" in answer.message
    assert plain(b"Ann", "text")[1] == b"hello Ann"


def test_input_that_is_not_json_does_not_reach_the_process(plain):
    answer = plain(b'{"a": 1} {"b": 2}')
    assert isinstance(answer, Failure) and answer.error_type == "ParsingError"


def test_a_process_that_exits_while_loading_fails_with_its_last_words(define):
    answer = define("broken", "import not_there\n")(b"1")
    assert isinstance(answer, Failure) and answer.error_type == "InitializationError"
    assert answer.message == "exited with code 1: ModuleNotFoundError: No module named 'not_there'"


def test_a_repository_with_its_own_pipe_is_run_through_it(define, host):
    call = define("own", "", bin__pipe=OWN_PIPE)
    (host.home / "code" / "own" / "bin" / "pipe").chmod(0o755)
    assert json.loads(call(b"[1]")[1]) == {"content_type": "json", "data": [1]}
    assert json.loads(call(b"\x00\x01", "binary")[1]) == {"content_type": "binary", "data": "AAE="}


def test_a_pipe_that_is_not_executable_says_so(define):
    answer = define("not-executable", "", bin__pipe=OWN_PIPE)(b"1")
    assert isinstance(answer, Failure) and "chmod" in answer.message


def test_a_language_without_a_pipe_of_ours_needs_its_own(define):
    answer = define("rusty", "", language="rust")(b"1")
    assert isinstance(answer, Failure) and "bin/pipe" in answer.message


def test_an_adk_repository_runs_on_this_python(define, environment):
    call = define("adk", ADK, environment=environment)
    assert call(b'"Ann"')[:2] == ("text", b"hello Ann")
    assert call(b"\x00", "binary")[:2] == ("binary", b"<\x00>")
    answer = call(b'"wrong"')
    assert isinstance(answer, Failure) and answer.message == "wrong input" and "apply" in answer.stacktrace
    assert call(b'"Bob"')[:2] == ("text", b"hello Bob")


def test_an_adk_load_that_fails_is_answered_on_every_call(define, environment):
    call = define(
        "adk-load", ADK.replace('state["greeting"] = "hello"', "raise OSError('no weights')"), environment=environment
    )
    for _ in range(2):
        answer = call(b'"Ann"')
        assert isinstance(answer, Failure)
        assert (answer.error_type, answer.message) == ("LoadingError", "no weights")


def test_the_older_handler_runs_on_this_python(define, environment):
    call = define("handler", HANDLER, environment=environment)
    assert call(b'{"a": 1}')[:2] == ("json", b'{"handled":{"a":1}}')


def test_a_handler_whose_load_fails_does_not_hang_the_start(define, environment):
    call = define(
        "handler-load", HANDLER.replace('print("loaded")', "raise OSError('no weights')"), environment=environment
    )
    answer = call(b"1")
    assert isinstance(answer, Failure) and answer.error_type == "InitializationError"
    assert "no weights" in answer.message + answer.stacktrace


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_javascript_repository_runs_through_our_pipe(define):
    call = define("js", "", "Calc", "javascript", **{"src__Calc.js": JAVASCRIPT})
    assert call(b'"Ann"') == ("text", b"hello Ann", "called\n")
    assert call(b"\x00\x01", "binary")[:2] == ("binary", b"\x00\x01\x00\x01")
    assert call(b'{"a":1}')[:2] == ("json", b'{"got":{"a":1}}')
    for word, error_type, message in ((b'"wrong"', "InputError", "nope"), (b'"throw"', "AlgorithmError", "thrown")):
        answer = call(word)
        assert isinstance(answer, Failure) and (answer.error_type, answer.message) == (error_type, message)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("exports.apply = (input) => 'hello ' + input;", b"hello Ann"),
        ("exports.apply = (input) => ({ got: input });", b'{"got":"Ann"}'),
        ("exports.apply = () => undefined;", b"null"),
        ("exports.apply = async (input) => input + '!';", b"Ann!"),
        ("exports.apply = function* (input) { yield 1; yield input; };", b'[1,"Ann"]'),
        ("exports.apply = async function* () { yield 1; yield 2; };", b"[1,2]"),
        ("exports.apply = (input, done) => { setTimeout(() => done(null, input), 1); };", b"Ann"),
        ("module.exports = { default: (input) => input };", b"Ann"),
    ],
)
def test_javascript_may_answer_in_every_way_that_authors_write(define, source, expected):
    name = f"Js{zlib.crc32(source.encode())}"
    call = define(name, "", "Calc", "javascript", **{"src__Calc.js": source})
    assert call(b'"Ann"')[1] == expected


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("source", "told"),
    [("require('nopkg');", "Cannot find module 'nopkg'"), ("exports.other = 1;", "exports no function apply")],
)
def test_javascript_that_cannot_be_loaded_says_why_in_the_first_line(define, source, told):
    answer = define(f"Js{zlib.crc32(source.encode())}", "", "Calc", "javascript", **{"src__Calc.js": source})(b"1")
    assert isinstance(answer, Failure) and told in answer.message, answer.message


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"nonsense", "did not answer with JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "neither result nor error"),
        (b'{"result": "%%%", "metadata": {"content_type": "binary"}}', "not base64"),
        (b'{"result": 5, "metadata": {"content_type": "binary"}}', "not base64"),
        (b'{"result": NaN}', "NaN"),
    ],
)
def test_answers_that_break_the_pipe_protocol_are_refused(raw, told):
    with pytest.raises(ResultRefused, match=told):
        pipe.decode_reply(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"result": "a\\nGk=", "metadata": {"content_type": "binary"}}', ("binary", b"hi")),
        (b'{"result": "x", "metadata": {"content_type": "json"}}', ("json", b'"x"')),
        (b'{"result": {"a": 1}, "metadata": {"content_type": "text"}}', ("json", b'{"a":1}')),
        (b'{"result": null, "metadata": {"content_type": "void"}}', ("void", b"")),
        (b'{"result": null}', ("json", b"null")),
    ],
)
def test_answers_are_read_as_their_metadata_says_where_that_makes_sense(raw, expected):
    assert pipe.decode_reply(raw) == expected


def test_an_error_object_of_any_shape_is_a_failure():
    for raw, message in ((b'{"error": "text"}', "text"), (b'{"error": {"message": 5}}', "5"), (b'{"error": {}}', "")):
        with pytest.raises(pipe.PipeFailure) as caught:
            pipe.decode_reply(raw)
        assert str(caught.value) == message and caught.value.error_type == "AlgorithmError"
