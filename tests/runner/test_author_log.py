"""What an author reads of real replicas: in the order in which it happened, and while it happens."""

import json
from pathlib import Path

import pytest

from serai.ipc.messages import ReadLog
from serai_runner.testing import python_version, run_host, write_algorithm

KEY = "acme/said@1"
SOURCE = """
import os, sys, time
print("imported")
def load(): print("loaded")
def apply(word): return globals()[word]()
def talk():
    print("first")
    time.sleep(3)
    print("last")
def crash():
    print("about to go")
    os._exit(7)
def fail(): raise KeyError("missing")
"""


@pytest.fixture
def host(tmp_path: Path, sandbox):
    with run_host(tmp_path / "home", *sandbox) as host:
        yield host


def lines(caller) -> list[dict]:
    caller.send(ReadLog(1 << 40, KEY, 100))
    text = b""
    while True:
        answer = caller.wait(1 << 40)
        text += answer.payload
        if answer.message.is_end:
            return [json.loads(line) for line in text.splitlines()]


def test_the_log_tells_the_story_forwards(host):
    caller = host.connect()
    caller.define(python_version(write_algorithm(host.home / "code", SOURCE), key=KEY))
    caller.call(KEY, b'"crash"')
    caller.call(KEY, b'"fail"')
    host.wait_for(lambda: any(line["event"] == "error" for line in lines(caller)), "the failure is in it")
    story = [line.get("text") or line.get("message") or line["event"] for line in lines(caller)]
    assert story.index("start") < story.index("imported") < story.index("loaded") < story.index("ready")
    assert story.index("about to go") < story.index("exit code 7")
    [error] = [line for line in lines(caller) if line["event"] == "error"]
    assert error["message"] == "KeyError: 'missing'"


def test_what_a_call_prints_is_there_while_it_runs(host):
    caller = host.connect()
    caller.define(python_version(write_algorithm(host.home / "code", SOURCE), key=KEY))
    call = caller.start_call(KEY, b'"talk"', wants_stdout=True)
    reader = host.connect()
    reader.define(python_version(str(host.home / "code"), key=KEY))
    host.wait_for(lambda: "first" in [line.get("text") for line in lines(reader)], "the first line is there")
    assert "last" not in [line.get("text") for line in lines(reader)]
    assert caller.wait(call).stdout == b"first\nlast\n", "and the caller gets all of it"
    host.wait_for(lambda: "last" in [line.get("text") for line in lines(reader)], "so is the last")
    assert [line.get("text") for line in lines(reader)].count("first") == 1
