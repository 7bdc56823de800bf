"""Items, progress and cancellation, through real replicas in each sandbox."""

import json

import pytest

from serai.ipc.messages import WINDOW, WINDOW_BYTES, Failure, Item, Limits, More, Progress, Refusal, Result, Waiting
from serai_runner.testing import is_alive, python_version, run_host, write_algorithm

KEY = "acme/stream@1"
SOURCE = """
import asyncio, os, time
import serai

closed = []

def apply(input):
    word, *rest = input
    return globals()[word](*rest)

def count(number):
    try:
        for n in range(number):
            print("item", n)
            yield n
    finally:
        closed.append(number)

async def count_later(number):
    for n in range(number):
        await asyncio.sleep(0)
        yield str(n)

def large(number, num_bytes):
    for n in range(number):
        yield bytes(num_bytes)

def fails_after(number):
    yield from range(number)
    raise ValueError("enough")

def odd(): yield {1, 2}
def forever():
    while True: yield "x" * 1000
def tell():
    for part in range(5):
        serai.progress(part / 4, f"part {part}")
        time.sleep(0.06)
    return "told"
def was_closed(): return closed
def sleep(seconds): time.sleep(seconds); return "slept"
async def asleep(seconds):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        closed.append("cancelled")
        raise
def pid(): return os.getpid()
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory, sandbox):
    with run_host(tmp_path_factory.mktemp("serai"), *sandbox, "--replicas", "1") as host:
        yield host


@pytest.fixture
def caller(host):
    caller = host.connect()
    code = write_algorithm(host.home / "code" / "stream", SOURCE)
    caller.define(python_version(code, key=KEY))
    caller.define(python_version(code, key="many", limits=Limits(memory_bytes=256 << 20, concurrency=4)))
    yield caller
    caller.close()


def words(*input) -> bytes:
    return json.dumps(input).encode()


def stream(caller, *input, key=KEY, **more):
    """All that comes for one call, its answer last."""
    call_id = caller.start_call(key, words(*input), wants_items=True, **more)
    told = []
    while True:
        answer = caller.wait(call_id)
        told.append(answer)
        if isinstance(answer.message, Item):
            caller.send(More(call_id, 1))
        if isinstance(answer.message, Result | Failure | Refusal):
            return told


def items(told) -> list[bytes]:
    return [answer.payload for answer in told if isinstance(answer.message, Item)]


def test_items_of_a_generator_come_one_by_one_and_the_result_is_empty(caller):
    told = stream(caller, "count", 100)
    assert items(told) == [b"%d" % n for n in range(100)]
    assert isinstance(told[-1].message, Result) and told[-1].message.content_type == "void"


def test_items_of_an_asynchronous_generator_do_the_same(caller):
    assert items(stream(caller, "count_later", 40)) == [b"%d" % n for n in range(40)]


def test_who_does_not_stream_gets_the_items_as_one_array(caller):
    assert caller.call(KEY, words("count", 3)).result == b"[0,1,2]"
    assert caller.call(KEY, words("count_later", 2)).result == b'["0","1"]'


def test_a_generator_without_end_is_cut_off_for_who_does_not_stream(caller):
    failure = caller.call(KEY, words("forever")).message
    assert isinstance(failure, Failure) and failure.error_type == "TooLargeError" and "as a stream" in failure.message


def test_bytes_can_be_streamed_and_not_collected(caller):
    told = stream(caller, "large", 2, 10)
    assert items(told) == [bytes(10)] * 2
    assert {answer.message.content_type for answer in told if isinstance(answer.message, Item)} == {"binary"}
    failure = caller.call(KEY, words("large", 2, 10)).message
    assert isinstance(failure, Failure) and "as a stream" in failure.message


def test_an_exception_in_the_middle_comes_after_the_items_before_it(caller):
    told = stream(caller, "fails_after", 3)
    assert items(told) == [b"0", b"1", b"2"]
    assert isinstance(told[-1].message, Failure) and told[-1].message.message == "enough"


def test_an_item_that_is_not_json_is_the_algorithms_failure(caller):
    told = stream(caller, "odd")
    assert isinstance(told[-1].message, Failure) and "set at $" in told[-1].message.message


@pytest.mark.parametrize("key", [KEY, "many"])
@pytest.mark.parametrize(("num_bytes", "most"), [(10, WINDOW), (WINDOW_BYTES // 2, 2), (8 << 20, 1)])
def test_a_caller_who_does_not_take_items_stops_the_generator(caller, key, num_bytes, most):
    call_id = caller.start_call(key, words("large", 50, num_bytes), wants_items=True)
    received = 0
    while received < most:
        received += isinstance(caller.wait(call_id).message, Item)
    other = caller.call("many", words("pid"))  # whatever was on its way has come by now
    assert isinstance(other.message, Result) and not caller.num_unread()
    for _ in range(50 - most):
        caller.send(More(call_id, 1))
        assert isinstance(caller.wait(call_id).message, Item)
    assert isinstance(caller.wait(call_id).message, Result)


def test_progress_is_told_while_the_call_runs(caller):
    told = [answer.message for answer in stream(caller, "tell")]
    progress = [message for message in told if isinstance(message, Progress)]
    assert progress[-1].fraction == 1.0 and progress[-1].text == "part 4" and len(progress) >= 3
    assert isinstance(told[-1], Result)
    assert caller.call(KEY, words("tell")).result == b"told", "and to nobody who does not want it"


def test_a_caller_of_a_cold_version_hears_that_it_starts(host, caller):
    code = write_algorithm(host.home / "code" / "cold", SOURCE)
    caller.define(python_version(code, key="cold"))
    told = [answer.message for answer in stream(caller, "pid", key="cold")]
    assert isinstance(told[0], Waiting) and told[0].state == "starting" and told[0].position == 0


def test_a_caller_who_leaves_a_stream_closes_the_generator_and_the_replica_lives_on(caller):
    pid = caller.call(KEY, words("pid")).result
    call_id = caller.start_call(KEY, words("count", 100_000), wants_items=True)
    assert isinstance(caller.wait(call_id).message, Item)
    caller.cancel(call_id)
    assert caller.call(KEY, words("was_closed")).result.endswith(b"100000]")
    assert caller.call(KEY, words("pid")).result == pid


def test_a_caller_who_leaves_stops_what_runs_long_before_its_deadline(host, caller):
    caller.call(KEY, words("pid"))
    pid = host.replica_pid()
    call_id = caller.start_call(KEY, words("sleep", 1000), timeout_s=1000)
    caller.cancel(call_id)
    host.wait_for(lambda: not is_alive(pid), "the replica is gone")
    assert caller.call(KEY, words("sleep", 0)).result == b"slept"


def test_a_caller_who_leaves_cancels_a_coroutine_beside_others(caller):
    pid = caller.call("many", words("pid")).result
    call_id = caller.start_call("many", words("asleep", 1000), timeout_s=1000)
    caller.call("many", words("pid"))
    caller.cancel(call_id)
    caller_sees = lambda: b'"cancelled"' in caller.call("many", words("was_closed")).result  # noqa: E731
    for _ in range(200):
        if caller_sees():
            break
    assert caller_sees() and caller.call("many", words("pid")).result == pid


def test_what_is_printed_while_streaming_comes_with_the_answer(caller):
    assert stream(caller, "count", 2, wants_stdout=True)[-1].stdout == b"item 0\nitem 1\n"
