"""`serai logs` and what it stands on, `client.logs`, against a real server on this machine."""

import asyncio
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import serai
from serai._logs import LogQuestion, read_entry
from serai._requests import parse_reference
from serai.cli import main
from serai.cli.testing import run_on_terminal
from serai.errors import ApiError, BadAnswer, ConnectionFailed
from serai.testing import Answer, Received, error_answer, run_server

Output = pytest.CaptureFixture[str]

#: Nothing here takes this long unless it hangs.
PATIENCE_S = 30.0


class LogServer:
    """Has the log of `demo/chatty`. Each of `scripts` is one answer to who follows: lines and what else happens."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.lines: list[dict[str, Any]] = []
        self.scripts: queue.Queue[list[dict[str, Any] | str] | Answer] = queue.Queue()
        self.is_over = threading.Event()

    def __call__(self, request: Received) -> Answer:
        self.received.append(request)
        if request.path != "/v1/algorithms/demo/chatty/logs":
            return error_answer(404, "not_found", "algorithm algo://demo/other not found")
        if request.query.get("follow") != "true":
            body = b"".join(map(encoded, self.lines))
            return Answer(200, body, {"Content-Type": "application/x-ndjson"})
        script = self.scripts.get(timeout=PATIENCE_S)
        if isinstance(script, Answer):
            return script
        return Answer(200, self._follow(script), {"Content-Type": "application/x-ndjson"})

    def _follow(self, script: list[dict[str, Any] | str]) -> Iterator[bytes]:
        for step in script:
            if isinstance(step, dict):
                yield encoded(step)
            elif step == "silence":
                yield b"\n"
            elif step == "half a line":
                yield encoded(entry(9, "half"))[:-10]
            elif step == "until it is over":
                self.is_over.wait(PATIENCE_S)
                yield b"\n"


def encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def entry(second: int, text: str, event: str = "output", **more: Any) -> dict[str, Any]:
    time = f"2026-05-04T10:11:{second:02d}.131415Z"
    return {"time": time, "event": event, "replica": 3, "call": "req-1", "text": text, **more}


ERROR = {
    "time": "2026-05-04T10:11:12.500000Z", "event": "error", "replica": 3, "call": "req-1", "type": "InputError",
    "message": "a number, please", "stacktrace": "Traceback (most recent call last):\n  File main.py\nValueError: x\n",
}  # fmt: skip


@pytest.fixture
def server() -> LogServer:
    return LogServer()


@pytest.fixture(autouse=True)
def address(server: LogServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", "UTC")
    with run_server(server) as address:
        monkeypatch.setenv("SERAI_ADDRESS", address)
        monkeypatch.setenv("SERAI_API_KEY", "simkey")
        yield address
        server.is_over.set()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serai", "logs", *arguments]


# serai logs


def test_lines_have_time_process_and_text_and_errors_their_stack_trace(server: LogServer):
    server.lines = [
        entry(1, "", "start"),
        {**entry(2, "", "ready"), "duration": 0.03125},
        entry(3, "Grüße\tall"),
        ERROR,
        entry(13, "signal 11 (SIGSEGV)", "crashed"),
        {"time": "2026-05-04T10:11:14.000000Z", "event": "backoff", "text": "next start in 4 s"},
    ]
    done = subprocess.run(command("demo/chatty"), capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2026-05-04 10:11:01.131 #3   [start]",
        "2026-05-04 10:11:02.131 #3   [ready after 0.0312 s]",
        "2026-05-04 10:11:03.131 #3   Grüße\tall",
        "2026-05-04 10:11:12.500 #3   InputError: a number, please (req-1)",
        "    Traceback (most recent call last):",
        "      File main.py",
        "    ValueError: x",
        "2026-05-04 10:11:13.131 #3   [crashed] signal 11 (SIGSEGV)",
        "2026-05-04 10:11:14.000      [backoff] next start in 4 s",
    ]


def test_options_reach_the_server(server: LogServer, capfd: Output):
    assert main(["logs", "demo/chatty", "-n", "7", "--version", "1.*"]) == 0
    assert main(["logs", "algo://demo/chatty/1.2.0"]) == 0
    assert [request.query for request in server.received] == [
        {"tail": "7", "version": "1.*"}, {"tail": "100", "version": "1.2.0"},
    ]  # fmt: skip


def test_nothing_logged_is_said_with_how_to_get_some(capfd: Output):
    assert main(["logs", "demo/chatty"]) == 0
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("demo/chatty has logged nothing yet: ") and "-f" in err


def test_json_gives_each_line_as_the_server_has_it(server: LogServer, capfd: Output):
    server.lines = [entry(1, "Grüße \x1b[31m"), {**ERROR, "new": {"field": [1]}}]
    assert main(["logs", "demo/chatty", "--json"]) == 0
    out = capfd.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == server.lines
    assert "Grüße" in out and "\x1b" not in out


def test_what_an_author_printed_steers_no_terminal(server: LogServer, capfd: Output):
    server.lines = [
        entry(1, "\x1b]0;title\x07 \x9b2J"),
        {**ERROR, "message": "\x1b[2J", "type": "\x1b[1m"},
        entry(2, "\x1b[2J", "crashed\x1b"),
    ]
    assert main(["logs", "demo/chatty"]) == 0
    out = capfd.readouterr().out
    assert not set(out) & {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}
    assert "\\x1b]0;title\\x07 \\x9b2J" in out


def test_a_terminal_gets_colours_and_only_what_is_wrong_is_red(server: LogServer):
    server.lines = [entry(1, "fine"), ERROR, entry(2, "", "idle")]
    shown = on_a_terminal("demo/chatty")
    fine, error, *trace, idle = shown.splitlines()
    assert fine.startswith("\x1b[2m2026-") and fine.endswith(" fine")
    assert "\x1b[31mInputError: a number, please" in error and all("\x1b[31m" in line for line in trace)
    assert "\x1b[2m[idle]" in idle and "\x1b[31m" not in fine + idle
    assert "\x1b" not in on_a_terminal("demo/chatty", NO_COLOR="1")


def on_a_terminal(*arguments: str, **environ: str) -> str:
    status, out, _ = run_on_terminal(command(*arguments), **environ)
    assert status == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["demo"], "not an algorithm"),
        (["demo/chatty", "--version", "a b"], "not an algorithm"),
        (["demo/chatty/1.0", "--version", "1.0"], "name the version once"),
        (["demo/chatty", "-n", "-1"], "number of lines"),
        (["demo/chatty", "-n", "10001"], "number of lines"),
        (["demo/chatty", "-n", "many"], "number of lines"),
    ],
)
def test_wrong_usage_is_told_before_anybody_is_asked(
    arguments: list[str], complaint: str, server: LogServer, capfd: Output
):
    assert main(["logs", *arguments]) == 2
    assert complaint in capfd.readouterr().err and not server.received


def test_a_refusal_is_shown_and_not_asked_again(server: LogServer, capfd: Output):
    assert main(["logs", "demo/other", "-f"]) == 1
    assert "algo://demo/other not found" in capfd.readouterr().err
    assert len(server.received) == 1


# serai logs -f


def test_follow_shows_lines_as_they_come_until_it_is_interrupted(server: LogServer):
    server.scripts.put([entry(1, "one"), "silence", entry(2, "two"), "until it is over"])
    with subprocess.Popen(
        command("demo/chatty", "-f", "-n", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().endswith(" one\n")
        assert process.stdout.readline().endswith(" two\n")  # before the answer has ended
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stdout.read() == "" and process.stderr.read() == ""
    assert server.received[0].query == {"follow": "true", "tail": "1"}


def test_follow_goes_on_after_a_restart_and_repeats_nothing(server: LogServer):
    server.scripts.put([entry(1, "one")])
    server.scripts.put([entry(2, "two"), "half a line"])
    server.scripts.put([])
    server.scripts.put([entry(9, "half"), "until it is over"])
    with subprocess.Popen(
        command("demo/chatty", "-f"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        shown = [process.stdout.readline().split()[-1] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        said = process.stderr.read().splitlines()
    assert shown == ["one", "two", "half"]
    assert [request.query.get("since") for request in server.received] == [
        None, "2026-05-04T10:11:01.131415Z", "2026-05-04T10:11:02.131415Z", "2026-05-04T10:11:02.131415Z",
    ]  # fmt: skip
    interrupted = "serai: the log was interrupted (the server stopped); waiting for it"
    assert said == [interrupted, "serai: the log goes on"] * 2


# client.logs


def test_the_client_gives_entries_and_all_that_the_server_said(server: LogServer, address: str):
    server.lines = [entry(1, "one"), ERROR]
    with serai.client("simkey", address) as client:
        one, error = client.logs("demo/chatty", tail=5)
    assert (one.event, one.text, one.replica, one.call) == ("output", "one", 3, "req-1")
    assert (error.error_type, error.message) == ("InputError", "a number, please")
    assert error.stacktrace.startswith("Traceback") and error.details == ERROR


def test_the_asynchronous_client_follows_and_goes_on_in_the_same_way(server: LogServer, address: str):
    server.scripts.put([entry(1, "one")])
    server.scripts.put(error_answer(503, "unavailable", "restarting", retriable=True))
    server.scripts.put([entry(2, "two"), "until it is over"])
    breaks: list[object] = []

    def on_break(error: object) -> None:
        breaks.append(error)

    async def follow() -> list[str]:
        texts: list[str] = []
        async with serai.async_client("simkey", address) as client:
            lines = client.logs("demo/chatty", follow=True, on_break=on_break)
            async for line in lines:
                texts.append(line.text)
                if len(texts) == 2:
                    break
            await lines.aclose()
        server.is_over.set()
        return texts

    assert asyncio.run(follow()) == ["one", "two"]
    stopped, refused = breaks
    assert stopped is None and isinstance(refused, ApiError) and refused.status == 503


def test_a_log_without_follow_is_never_asked_for_twice():
    question = LogQuestion(parse_reference("demo/chatty"), 5, follow=False)
    question.began()
    assert question.pause_s(ConnectionFailed("gone")) is None and question.pause_s(None) is None


def test_a_server_that_was_never_there_is_an_error_at_once():
    question = LogQuestion(parse_reference("demo/chatty"), 5, follow=True)
    assert question.pause_s(ConnectionFailed("gone")) is None
    question.began()
    assert question.pause_s(ConnectionFailed("gone")) is not None
    assert question.pause_s(ApiError("no such algorithm", status=404)) is None
    assert question.pause_s(BadAnswer("no line")) is None


def test_pauses_grow_to_a_bound_and_begin_anew_with_each_answer():
    question = LogQuestion(parse_reference("demo/chatty"), 5, follow=True)
    question.began()
    pauses = [question.pause_s(None) for _ in range(9)]
    assert pauses == sorted(p for p in pauses if p) and pauses[-1] == pauses[-2] == 2.0
    question.began()
    assert question.pause_s(None) == pauses[0]
    busy = ApiError("busy", status=503, retriable=True, retry_after_s=1.5)
    assert question.pause_s(busy) == 1.5


def test_a_reader_that_was_cut_off_by_the_server_asks_for_the_rest():
    question = LogQuestion(parse_reference("demo/chatty"), 5, follow=True)
    assert question.take(encoded(entry(1, "one"))) is not None
    assert question.take(encoded(entry(1, "too slow", "cut"))) is None
    assert dict(question.request().query)["since"] == "2026-05-04T10:11:01.131415Z"


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"1", b'{"event":"output"}', b'{"time":"x"}', b"{", b"\xff", b"[" * 100_000]
)
def test_a_line_that_is_none_is_a_bad_answer(line: bytes):
    with pytest.raises(BadAnswer):
        read_entry(line)


def test_what_is_no_algorithm_is_refused_before_anybody_is_asked(server: LogServer, address: str):
    with serai.client("simkey", address) as client:
        with pytest.raises(ValueError, match="not an algorithm"):
            client.logs("demo")
        with pytest.raises(ValueError, match="number of lines"):
            client.logs("demo/chatty", tail=-1)
    assert not server.received
