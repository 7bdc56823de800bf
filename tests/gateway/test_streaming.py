"""Calls that answer with events, over real sockets: a gateway of its own, and a host that says what it is told."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator

import pytest

import serai
from serai.ipc.messages import WINDOW, WINDOW_BYTES, Call, Item, Progress, Refusal, Result, VersionSpec, Waiting
from serai_gateway.api import stream
from serai_gateway.api.stream import BrokenItem, item_data
from serai_gateway.api.testing.fake_host import HostedCall
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.pending import CallStream, Inbox, Pending
from serai_gateway.server.testing import wait_until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    with running_calls(tmp_path_factory.mktemp("calls")) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: CallGateway) -> CallGateway:
    running.host.calls.clear()
    return running


def the_call(gateway: CallGateway) -> HostedCall:
    wait_until(lambda: gateway.host.calls, "the call has come to the host")
    return gateway.host.calls[-1]


def stands_still(call: HostedCall) -> Callable[[], bool]:
    """Whether it may send no more, and nothing has changed that since some looks ago."""
    seen: list[int] = []

    def look() -> bool:
        seen.append(call.num_sent)
        return not call.has_room and seen[-10:] == [call.num_sent] * 10

    return look


def test_events_come_as_they_are_sent_and_end_with_the_result(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.waiting(2, 1.5)
        call.progress(-1, "looking")
        await call.item(b'{"a":\r\n 1}')
        await call.item("für\n".encode(), "text")
        await call.item(b"\x00\xff", "binary")
        await call.item(b"", "void")
        call.progress(0.5)
        await call.item(b"[2]")
        call.result()

    gateway.host.script = script
    with gateway.open(body=b'"in"') as events:
        told = events.rest()
    assert (events.status, events.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (events.headers["cache-control"], events.headers["x-accel-buffering"]) == ("no-store", "no")
    *before, (name, last) = told
    assert before == [
        ("waiting", {"state": "queued", "position": 2, "estimate_s": 1.5}),
        ("progress", {"fraction": None, "text": "looking"}),
        ("item", {"a": 1}),
        ("item", "für\n"),
        ("binary", "AP8="),
        ("item", None),
        ("progress", {"fraction": 0.5, "text": ""}),
        ("item", [2]),
    ]
    request_id = events.headers["x-request-id"]
    metadata = {"content_type": "void", "duration": 0.25, "request_id": request_id, "num_items": 5}
    assert (name, last) == ("result", {"result": None, "metadata": metadata})
    call = the_call(gateway)
    assert (call.payload, call.call.wants_items, call.call.call_id) == (b'"in"', True, request_id)


def test_an_event_is_there_before_the_next_is_made(gateway: CallGateway) -> None:
    """The host sends the second item only when the test has read the first."""

    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        await call.never()

    gateway.host.script = script
    with gateway.open() as events:
        assert events.next() == ("item", 1)


def test_an_algorithm_that_yields_nothing_has_its_result_in_one_event(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.result(b'{"sum":\r\n\n3}', "json", b"printed\n")  # as a hostile replica may write it

    gateway.host.script = script
    with gateway.open("alice/same?stdout=true") as events:
        [(name, told)] = events.rest()
    assert (name, told["result"]) == ("result", {"sum": 3})
    assert (told["metadata"]["stdout"], told["metadata"]["num_items"]) == ("printed\n", 0)


def test_without_asking_for_events_there_are_none(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.result(b"7", "json")

    gateway.host.script = script
    for accept in ("*/*", "application/json", "text/*", "text/event-stream;q=0"):
        answer = gateway.call(Accept=accept)
        assert (answer.headers["content-type"], json.loads(answer.body)["result"]) == ("application/json", 7)
        assert not gateway.host.calls[-1].call.wants_items
    for accept in ("application/json, text/event-stream", "Text/Event-Stream; q=0.5"):
        with gateway.open(Accept=accept) as events:
            assert [name for name, _ in events.rest()] == ["result"]


def test_what_is_refused_before_the_first_event_is_an_ordinary_error(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.refuse(Refusal(call.call.id, "busy", "too many calls", retriable=True, retry_after_s=7))

    gateway.host.script = script
    answer = gateway.call(Accept="text/event-stream")
    assert (answer.status, answer.headers["retry-after"], answer.error["retriable"]) == (503, "7", True)
    assert gateway.call("alice/nothing", Accept="text/event-stream").status == 404
    assert gateway.call("alice/same?output=raw", Accept="text/event-stream").status == 400
    with gateway.open("alice/same", body=b"{") as events:
        events.read_head()
        assert events.status == 400


def test_a_refusal_after_the_first_event_is_an_event(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.waiting(0)
        call.refuse(Refusal(call.call.id, "unavailable", "no sandbox", retriable=True))

    gateway.host.script = script
    with gateway.open() as events:
        (_, waiting), (name, told) = events.rest()
    assert (waiting["estimate_s"], name) == (None, "error")
    assert (told["error"]["code"], told["error"]["status"], told["error"]["retriable"]) == ("unavailable", 503, True)
    assert told["error"]["request_id"] == events.headers["x-request-id"]


def test_a_failure_in_mid_stream_is_the_error_of_the_api(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        call.fail("no more", "InputError", "File x.py, line 3")

    gateway.host.script = script
    before = gateway.outcomes()["algorithm_error"]
    for key, shown in (("alice", True), ("bob", False)):
        with gateway.open(key=key) as events:
            assert events.next() == ("item", 1)
            [(name, told)] = events.rest()
        assert name == "error"
        assert (told["error"]["message"], told["error"]["error_type"]) == ("no more", "InputError")
        assert ("stacktrace" in told["error"]) is shown
        assert told["metadata"]["request_id"]
    wait_until(lambda: gateway.outcomes()["algorithm_error"] == before + 2, "both are counted")


def test_a_host_that_dies_in_mid_stream_is_an_error_worth_a_retry(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        call.die()

    gateway.host.script = script
    with gateway.open() as events:
        (_, item), (name, told) = events.rest()
    assert (item, name) == (1, "error")
    assert (told["error"]["code"], told["error"]["retriable"]) == ("crashed", True)


@pytest.mark.parametrize(
    ("content_type", "payload", "complaint"),
    [
        ("json", b"{", "item is not JSON"),
        ("json", b'"a\nevent: result"', "item is not JSON"),
        ("json", b"NaN", "NaN is not JSON"),
        ("json", b"[" * 70_000, "nesting exceeds"),
        ("text", b"\xff", "not UTF-8"),
        ("binary", b"x" * (10 * 1024 * 1024 + 1), "over the limit of 10485760 \\(10 MiB\\)"),
    ],
)
def test_an_item_that_is_not_what_it_says_ends_the_call(
    gateway: CallGateway, content_type: str, payload: bytes, complaint: str
) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        await call.item(payload, content_type)  # pyright: ignore[reportArgumentType]
        await call.never()

    gateway.host.script = script
    with gateway.open() as events:
        (_, first), (name, told) = events.rest()
    assert (first, name) == (1, "error")
    assert re.search(complaint, told["error"]["message"])
    assert the_call(gateway).cancelled.wait(20)


def test_a_reader_that_stops_reading_stops_the_algorithm_and_gets_everything_in_the_end(gateway: CallGateway) -> None:
    num_items, item = 10_000, b'"%b"' % (b"x" * 8190)

    async def script(call: HostedCall) -> None:
        for _ in range(num_items):
            await call.item(item)
        call.result()

    gateway.host.script = script
    with gateway.open(receive_buffer=4096) as events:
        call = the_call(gateway)
        wait_until(stands_still(call), "the host has no credit left")
        assert call.num_sent < num_items / 5  # the rest of 80 MB has not been made: the kernel holds a few MB at most
        num_read = sum(name == "item" for name, _ in events.rest())
    assert num_read == call.num_sent == num_items


def test_items_of_any_size_never_leave_both_sides_waiting_for_each_other(gateway: CallGateway) -> None:
    sizes = [1, 600_000, 1, 3_000_000, 100_000, *[1] * 40, 600_000, 600_000, 600_000]

    async def script(call: HostedCall) -> None:
        for size in sizes:
            await call.item(b"x" * size, "text")
        call.result()

    gateway.host.script = script
    with gateway.open() as events:
        assert [len(text) for name, text in events.rest() if name == "item"] == sizes


def test_a_host_that_does_not_keep_to_the_window_is_cut_off(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        for _ in range(100_000):
            await call.item(b"1" * 1000, heed_window=False)
        await call.never()

    gateway.host.script = script
    with gateway.open() as events:
        *_, (name, told) = events.rest()
    assert (name, told["error"]["code"]) == ("error", "unavailable")
    assert "more items than it was asked for" in told["error"]["message"]
    assert the_call(gateway).cancelled.wait(20)


def test_a_client_that_leaves_cancels_its_stream(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        await call.never()

    gateway.host.script = script
    before = gateway.outcomes()["caller_gone"]
    with gateway.open() as events:
        assert events.next() == ("item", 1)
        events.leave()
    assert the_call(gateway).cancelled.wait(20)
    wait_until(lambda: gateway.outcomes()["caller_gone"] == before + 1, "it is counted")


def test_a_client_that_leaves_while_it_is_being_written_to_cancels_its_stream(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        while True:
            await call.item(b'"%b"' % (b"x" * 100_000))

    gateway.host.script = script
    with gateway.open(receive_buffer=4096) as events:
        call = the_call(gateway)
        wait_until(stands_still(call), "the host has no credit left")
        events.leave()
    assert call.cancelled.wait(20)


def test_a_client_that_leaves_cancels_an_ordinary_call(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.never()

    gateway.host.script = script
    before = gateway.outcomes()["caller_gone"]
    with gateway.open(Accept="*/*") as connection:
        call = the_call(gateway)
        assert not call.call.wants_items
        connection.leave()
    assert call.cancelled.wait(20)
    wait_until(lambda: gateway.outcomes()["caller_gone"] == before + 1, "it is counted")


def test_what_was_printed_is_for_the_owner_and_who_manages_it(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.result(b"7", "json", b"secret" if call.call.wants_stdout else b"")

    gateway.host.script = script
    seen_by = {
        (path, key): json.loads(gateway.call(f"{path}?stdout=true", key=key).body)["metadata"].get("stdout")
        for path in ("alice/same", "team/ours")
        for key in ("alice", "bob", "operator")
    }
    assert {who for who, stdout in seen_by.items() if stdout == "secret"} == {
        ("alice/same", "alice"),
        ("alice/same", "operator"),
        ("team/ours", "bob"),
        ("team/ours", "operator"),
    }
    assert {stdout for stdout in seen_by.values() if stdout != "secret"} == {None}


def test_output_that_nobody_asked_for_is_shown_to_nobody(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        call.result(b"", "void", b"secret")

    gateway.host.script = script
    for key in ("alice", "bob"):
        with gateway.open(key=key) as events:
            assert "secret" not in json.dumps(events.rest())


def test_a_deadline_that_passes_in_mid_stream_is_an_event(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        await call.item(b"1")
        await call.never()

    gateway.host.script = script
    with gateway.open("alice/same?timeout=0.2") as events:
        (_, item), (name, told) = events.rest()
    assert (item, name, told["error"]["code"], told["error"]["status"]) == (1, "error", "deadline_exceeded", 504)
    assert the_call(gateway).cancelled.wait(20)


def test_our_client_and_the_gateway_understand_each_other(gateway: CallGateway) -> None:
    async def script(call: HostedCall) -> None:
        call.waiting(1, 0.25)
        for number in range(3):
            call.progress(number / 2, f"at {number}")
            await call.item(call.payload)
        await call.item("ü".encode(), "text")
        await call.item(b"\xff", "binary")
        if call.call.content_type == "json":
            call.result(b"", "void", b"printed")
        else:
            await call.never()

    gateway.host.script = script
    news: list[object] = []
    address = f"http://127.0.0.1:{gateway.server.port}"
    with serai.client(gateway.keys["alice"], address) as client:
        algorithm = client.algo("alice/same").set_options(stdout=True)
        stream = algorithm.stream([1, 2], on_progress=news.append, on_waiting=news.append)
        assert list(stream) == [[1, 2], [1, 2], [1, 2], "ü", b"\xff"]
        metadata = stream.response().metadata
        assert (metadata.num_items, metadata.stdout, metadata.duration) == (5, "printed", 0.25)
        assert news[:2] == [serai.Waiting("queued", 1, 0.25), serai.Progress(0.0, "at 0")]
        with algorithm.stream("[3]") as stream:
            assert next(stream) == [3]
        assert the_call(gateway).cancelled.wait(20)
        gateway.host.script = refusing
        with pytest.raises(serai.Unavailable) as caught:
            algorithm.stream(1).response()
        assert (caught.value.retriable, caught.value.retry_after_s) == (True, 7.0)


async def refusing(call: HostedCall) -> None:
    call.refuse(Refusal(call.call.id, "busy", "too many calls", retriable=True, retry_after_s=7))


def test_silence_is_broken_by_comments() -> None:
    """With a short patience, and a caller that counts what it gets."""

    async def run() -> list[bytes]:
        sent: list[bytes] = []
        quiet = asyncio.Event()

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            sent.append(message.get("body", b""))
            if len(sent) == 3:
                quiet.set()

        call = Call(1, "v", "json", 0.0, "req-1", "p", wants_items=True)
        pending = Pending(VersionSpec("v", "o", "n", "python", ""), call, b"", None)
        events = CallStream(pending, lambda _: None)
        writing = asyncio.create_task(stream.write_events(events, stream.EventWriter(send, []), quiet_s=0.001))
        await quiet.wait()
        pending.settle(Result(1, "void", 0.0), b"")
        await writing
        return sent

    assert asyncio.run(run())[:3] == [b"", b": still here\n\n", b": still here\n\n"]


def test_news_that_is_out_of_date_is_dropped_and_the_inbox_stays_small() -> None:
    inbox = Inbox()
    for number in range(10_000):
        assert inbox.put(Progress(1, number / 10_000), b"")
        assert inbox.put(Waiting(1, "queued", 10_000 - number, 0), b"")
    assert inbox.put(Item(1, "json"), b"1")
    assert inbox.put(Progress(1, 1.0), b"")
    taken = [event for event, _ in iter(inbox.take, None)]
    assert taken == [Progress(1, 0.9999), Waiting(1, "queued", 1, 0), Item(1, "json"), Progress(1, 1.0)]


def test_an_item_counts_until_it_is_acknowledged() -> None:
    inbox = Inbox()
    for _ in range(WINDOW):
        assert inbox.put(Item(1, "json"), b"1")
    assert not inbox.put(Item(1, "json"), b"1")
    told = 0
    for _ in range(WINDOW):
        assert inbox.take()
        told += inbox.acknowledge()
    assert told == WINDOW
    assert inbox.put(Item(1, "json"), b"1")


def test_items_are_bounded_in_bytes_but_one_is_always_taken_and_acknowledged_at_once() -> None:
    inbox = Inbox()
    assert inbox.put(Item(1, "binary"), b"x" * (10 * WINDOW_BYTES))
    assert not inbox.put(Item(1, "binary"), b"x")
    assert inbox.acknowledge() == 0  # it has not been taken
    assert inbox.take()
    assert inbox.acknowledge() == 1
    for size in (WINDOW_BYTES - 1, 1):
        assert inbox.put(Item(1, "binary"), b"x" * size)
    assert not inbox.put(Item(1, "binary"), b"x")


def test_the_data_of_an_item_is_one_line_of_json_whatever_it_holds() -> None:
    for text in ("a\r\nb\n\nevent: result\ndata: 1", "\u2028\x85\x00", ""):
        data = item_data(Item(1, "text"), text.encode())
        assert b"\n" not in data and b"\r" not in data
        assert json.loads(data) == text
    assert json.loads(item_data(Item(1, "json"), b'{\r"a":\n\n[1,\r\n2]}')) == {"a": [1, 2]}
    with pytest.raises(BrokenItem):
        item_data(Item(1, "json"), b"1\n\nevent: result")
