"""Items as they come: what arrives is read, both clients over real sockets, and `serai call --stream`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import serai
from serai import _events
from serai._events import EventReader, Item
from serai.cli import main
from serai.cli._streaming import describe_waiting
from serai.cli.testing import run_on_terminal
from serai.testing import Answer, FakeMarket, Handler, Received, events_answer, run_server

VOID = {"content_type": "void", "duration": 0.5, "request_id": "req-1", "num_items": 2}
END = ("result", {"result": None, "metadata": VOID})

Output = pytest.CaptureFixture[str]


def answering(*events: tuple[str, Any]) -> Handler:
    return lambda request: events_answer(events)


def stream_of(handler: Handler, use: Callable[[serai.Algorithm], Any]) -> Any:
    """What `use` makes of an algorithm of a client of a server that answers like this."""
    with run_server(handler) as address, serai.client("simkey", address) as client:
        return use(client.algo("demo/any"))


def read(text: bytes, num_bytes: int) -> list[Any]:
    reader = EventReader({})
    pieces = [text[at : at + num_bytes] for at in range(0, len(text), num_bytes)]
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize("num_bytes", [1, 2, 7, 1000])
def test_events_are_the_same_however_they_are_cut(num_bytes: int) -> None:
    text = (
        ': still here\n\nevent: item\ndata: {"a": "\u2028"}\n\n'
        'event: new-in-a-later-version\ndata: 1\n\nid: 7\nevent: binary\ndata: "AP8="\n\n'
        'event: progress\r\ndata: {"fraction": 0.5,\r\ndata: "text": "half"}\r\n\r\n'
        'event: waiting\ndata: {"state": "queued", "position": 2, "estimate_s": null}\n\n'
        'event:item\ndata:""\n\nevent: item\n\n'
        'event: result\ndata: {"result": [1], "metadata": {"content_type": "json", "num_items": 3}}\n\nevent: item\n'
    )
    *before, end = read(text.encode(), num_bytes)
    assert before == [
        Item({"a": "\u2028"}),
        Item(b"\x00\xff"),
        serai.Progress(0.5, "half"),
        serai.Waiting("queued", 2, None),
        Item(""),
    ]
    assert (end.result, end.metadata.num_items) == ([1], 3)


@pytest.mark.parametrize(
    "text",
    [
        b"event: item\ndata: {\n\n",
        b"event: item\ndata: " + b"[" * 200_000 + b"\n\n",
        b'event: binary\ndata: "?"\n\n',
        b"event: binary\ndata: 7\n\n",
        b"event: progress\ndata: 7\n\n",
        b"event: result\ndata: {}\n\n",
    ],
)
def test_what_is_no_event_of_ours_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(serai.BadAnswer):
        read(text, 1000)


def test_figures_that_make_no_sense_are_unknown() -> None:
    events = read(
        b'event: progress\ndata: {"fraction": NaN}\n\nevent: progress\ndata: {"fraction": true, "text": null}\n\n'
        b'event: waiting\ndata: {"position": "x", "estimate_s": 1e999}\n\n',
        1000,
    )
    assert events == [serai.Progress(None), serai.Progress(None, "None"), serai.Waiting("", 0, None)]


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MAX_EVENT_BYTES", 1000)
    with pytest.raises(serai.BadAnswer, match="longer than 1000 bytes"):
        read(b"data: 1\n" * 1000, 64)
    assert len(read(b": still here\n\n" * 1000 + b"event: item\ndata: 1\n\n" * 1000, 64)) == 1000


def test_items_come_in_order_and_news_reach_their_callbacks() -> None:
    news: list[Any] = []

    def use(algorithm: serai.Algorithm) -> None:
        stream = algorithm.stream(2, on_progress=news.append, on_waiting=news.append)
        assert list(stream) == [{"n": 1}, "text", b"\x00"]
        response = stream.response()
        assert (response.result, response.metadata.num_items, response.metadata.duration) == (None, 2, 0.5)
        assert response.metadata.request_id == "req-1"

    waiting = {"state": "starting", "position": 0, "estimate_s": 0.5}
    events = [("waiting", waiting), ("item", {"n": 1}), ("progress", {"fraction": None, "text": "on"})]
    stream_of(answering(*events, ("item", "text"), ("binary", "AA=="), END), use)
    assert news == [serai.Waiting("starting", 0, 0.5), serai.Progress(None, "on")]


def test_an_algorithm_that_yields_nothing_has_its_result_in_the_response() -> None:
    result = ("result", {"result": 7, "metadata": {"content_type": "json", "duration": 1, "num_items": 0}})
    assert stream_of(answering(result), lambda algorithm: algorithm.stream(1).response().result) == 7


def test_it_is_asked_for_on_the_wire_and_only_when_the_first_item_is() -> None:
    seen: list[Received] = []

    def handle(request: Received) -> Answer:
        seen.append(request)
        return events_answer([END])

    def use(algorithm: serai.Algorithm) -> None:
        stream = algorithm.set_options(timeout=5, stdout=True).stream("HAL")
        assert not seen
        stream.response()

    stream_of(handle, use)
    assert (seen[0].method, seen[0].path, seen[0].body) == ("POST", "/v1/algo/demo/any", b"HAL")
    assert seen[0].query == {"timeout": "5", "stdout": "true"}
    assert (seen[0].headers["accept"], seen[0].headers["content-type"]) == ("text/event-stream", "text/plain")


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    with serai.client("simkey") as client:
        with pytest.raises(TypeError):
            client.algo("a/b").stream(object())
        with pytest.raises(ValueError, match="output=raw"):
            client.algo("a/b").set_options(output="raw").stream(1)


def failed(message: str) -> tuple[str, Any]:
    return "error", {"error": {"message": message, "error_type": "InputError"}, "metadata": {"duration": 0.1}}


def refused(status: int, code: str, retriable: bool) -> tuple[str, Any]:
    error = {"message": "no", "code": code, "status": status, "retriable": retriable, "request_id": "req-9"}
    return "error", {"error": error}


def test_errors_in_mid_stream_are_those_of_pipe() -> None:
    def use(algorithm: serai.Algorithm) -> list[BaseException]:
        stream, got, errors = algorithm.stream(1), [], []
        try:
            for item in stream:
                got.append(item)
        except serai.SeraiError as error:
            errors.append(error)
        assert got == [1]
        with pytest.raises(RuntimeError, match="no response"):
            stream.response()
        return errors

    [error] = stream_of(answering(("item", 1), failed("not that")), use)
    assert isinstance(error, serai.AlgorithmError)
    assert (error.message, error.error_type, error.duration) == ("not that", "InputError", 0.1)
    [error] = stream_of(answering(("item", 1), refused(502, "crashed", True)), use)
    assert isinstance(error, serai.ServerFault)
    assert (error.code, error.retriable, error.request_id) == ("crashed", True, "req-9")
    [error] = stream_of(answering(("item", 1), refused(504, "deadline_exceeded", False)), use)
    assert isinstance(error, serai.DeadlineExceeded)
    [error] = stream_of(answering(("item", 1)), use)
    assert isinstance(error, serai.ConnectionFailed)
    assert error.maybe_sent


def test_a_refusal_and_an_answer_without_events_are_understood(market: FakeMarket, address: str) -> None:
    with serai.client("simkey", address) as client, pytest.raises(serai.NotFound):
        client.algo("demo/nothing").stream(1).response()
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, json={"result": 3, "metadata": {"content_type": "json"}})
    )
    with serai.client("simkey", transport=transport) as client:
        stream = client.algo("a/b").stream(1)
        assert (list(stream), stream.response().result) == ([], 3)


class Endless:
    """A server whose algorithm yields for ever. `left` is set when nobody listens any more."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.num_calls = 0

    def __call__(self, request: Received) -> Answer:
        self.num_calls += 1
        return events_answer(self._events())

    def _events(self) -> Iterator[tuple[str, Any]]:
        try:
            while True:
                yield "progress", {"fraction": 0.5, "text": "on and on"}
                yield "item", "x" * 1000
        finally:
            self.left.set()


@pytest.fixture
def endless() -> Iterator[tuple[Endless, str]]:
    server = Endless()
    with run_server(server) as address:
        yield server, address


def test_an_iterator_that_is_left_closes_its_connection(endless: tuple[Endless, str]) -> None:
    server, address = endless
    with serai.client("simkey", address) as client:
        for item in client.algo("a/b").stream(1):  # the last reference goes with the loop
            assert item == "x" * 1000
            break
        assert server.left.wait(20)
        server.left.clear()
        with client.algo("a/b").stream(1) as stream:
            next(stream)
        assert server.left.wait(20)
        assert list(stream) == []
        with pytest.raises(RuntimeError, match="closed"):
            stream.response()


def test_a_callback_that_raises_ends_the_call(endless: tuple[Endless, str]) -> None:
    def refuse(_: serai.Progress) -> None:
        raise LookupError("not so")

    server, address = endless
    with serai.client("simkey", address) as client, pytest.raises(LookupError):
        next(client.algo("a/b").stream(1, on_progress=refuse))
    assert server.left.wait(20)


def test_the_async_client_streams_in_the_same_way(address: str) -> None:
    async def run() -> None:
        news: list[Any] = []
        async with serai.async_client() as client:
            stream = client.algo("demo/count").stream(3, on_progress=news.append, on_waiting=news.append)
            assert [item async for item in stream] == [0, 1, 2]
            assert (await stream.response()).metadata.num_items == 3
            assert [type(entry) for entry in news] == [serai.Waiting, *[serai.Progress] * 3]
            assert (await client.algo("demo/echo").stream("HAL").response()).result == "HAL"
            with pytest.raises(serai.AlgorithmError, match="cannot do that"):
                await client.algo("demo/fail").stream(1).response()
            with pytest.raises(serai.NotFound):
                await anext(client.algo("demo/nothing").stream(1))

    asyncio.run(run())


def test_an_async_iterator_that_is_left_or_cancelled_closes_its_connection(endless: tuple[Endless, str]) -> None:
    server, address = endless

    async def leave() -> None:
        async with serai.async_client("simkey", address) as client, client.algo("a/b").stream(1) as stream:
            async for _ in stream:
                break

    async def cancel() -> None:
        async with serai.async_client("simkey", address) as client:
            reading = asyncio.create_task(client.algo("a/b").stream(1).response())
            while server.num_calls < 2:
                await asyncio.sleep(0.001)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    for end in (leave, cancel):
        asyncio.run(end())
        assert server.left.wait(20)
        server.left.clear()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serai", "call", *arguments, "--stream"]


@pytest.mark.usefixtures("address")
def test_the_command_prints_an_item_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "demo/count", "-d", "3", "--stream"]) == 0
    shown = capfd.readouterr()
    assert shown.out == "0\n1\n2\n"
    assert shown.err == "waiting, 1 call before this one, about 0.0 s\n"


@pytest.mark.usefixtures("address")
def test_the_command_shows_a_result_where_nothing_is_yielded(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "demo/echo", "-d", '{"a":1}', "--stream"]) == 0
    assert capfd.readouterr().out == '{\n  "a": 1\n}\n'
    assert main(["call", "demo/echo", "-d", "HAL", "--stream", "-o", "out"]) == 0
    assert Path("out").read_bytes() == b"HAL"
    assert main(["call", "demo/fail", "-d", "HAL", "--stream"]) == 1
    assert "InputError: cannot do that" in capfd.readouterr().err


def run_command(handler: Handler, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with run_server(handler) as address:
        environment = {**os.environ, "SERAI_ADDRESS": address, "SERAI_API_KEY": "simkey"}
        return subprocess.run(command("a/b", "-d", "1", *arguments), env=environment, capture_output=True, timeout=60)


def test_the_command_prints_text_as_it_is_and_json_on_lines_of_its_own() -> None:
    items = [("item", "Hel"), ("item", "lo\n"), ("item", "wor"), ("item", {"a": "\n"}), ("item", "ld"), END]
    assert run_command(answering(*items)).stdout == b'Hello\nwor\n{"a": "\\n"}\nld'


def test_the_command_writes_bytes_to_a_pipe_or_a_file(tmp_path: Path) -> None:
    handler = answering(("binary", "AP8="), ("binary", "AA=="), END)
    assert run_command(handler).stdout == b"\x00\xff\x00"
    assert run_command(handler, "-o", str(tmp_path / "out")).stdout == b""
    assert (tmp_path / "out").read_bytes() == b"\x00\xff\x00"
    assert run_command(answering(END), "-o", str(tmp_path / "empty")).returncode == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_command_gives_programs_every_event_as_json() -> None:
    waiting = ("waiting", {"state": "queued", "position": 1, "estimate_s": 0.2})
    progress = ("progress", {"fraction": 0.5, "text": "half"})
    done = run_command(answering(waiting, progress, ("item", "a"), ("binary", "AA=="), END), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert events == [
        {"waiting": {"state": "queued", "position": 1, "estimate_s": 0.2}},
        {"progress": {"fraction": 0.5, "text": "half"}},
        {"item": "a"},
        {"binary": "AA=="},
    ]
    assert (last["result"], last["metadata"]["num_items"]) == (None, 2)


def test_raw_has_no_meaning_with_stream(capsys: Output) -> None:
    assert main(["call", "a/b", "-d", "1", "--stream", "--raw"]) == 2
    assert "--raw has no meaning" in capsys.readouterr().err


def on_a_terminal(handler: Handler, **environ: str) -> bytes:
    """What a terminal, 60 columns wide, is sent."""
    with run_server(handler) as address:
        environ |= {"SERAI_ADDRESS": address, "SERAI_API_KEY": "simkey", "COLUMNS": "60"}
        return run_on_terminal(command("a/b", "-d", "1"), shows_stderr=True, **environ)[1].encode()


def test_on_a_terminal_a_line_tells_how_it_is_going_and_leaves_nothing_behind() -> None:
    shown = on_a_terminal(
        answering(
            ("waiting", {"state": "starting", "position": 0, "estimate_s": 2.5}),
            ("progress", {"fraction": 0.5, "text": "half\x1b[2J\n" + "y" * 100}),
            ("item", "bell\x07"),
            ("progress", {"fraction": 1, "text": "would be written over the text"}),
            ("item", {"a": 1}),
            END,
        ),
    )
    clear = b"\r\x1b[K"
    half = b"[\x1b[32m############\x1b[0m............]  50% half\\x1b[2J " + b"y" * 15  # 59 cells
    expected = clear + b"starting, about 2.5 s" + clear + half + clear + b"bell\\x07\n"
    assert shown == expected + b'{\x1b[34m"a"\x1b[0m: \x1b[36m1\x1b[0m}\n'


def test_without_colour_there_is_none() -> None:
    shown = on_a_terminal(answering(("progress", {"fraction": 0.25}), ("item", {"a": 1}), END), NO_COLOR="1")
    assert b"\x1b[3" not in shown
    assert b"[######..................]  25%" in shown


def test_ctrl_c_cancels_the_call(endless: tuple[Endless, str]) -> None:
    server, address = endless
    environment = {**os.environ, "SERAI_ADDRESS": address, "SERAI_API_KEY": "simkey"}
    process = subprocess.Popen(
        command("a/b", "-d", "1"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(10) == b"x" * 10
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    assert server.left.wait(20)


def test_waiting_is_told_in_words() -> None:
    assert describe_waiting(serai.Waiting("queued", 3, 12.4)) == "waiting, 3 calls before this one, about 12 s"
    assert describe_waiting(serai.Waiting("starting")) == "starting"
