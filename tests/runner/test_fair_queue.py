"""Order and counts of waiting calls."""

import pytest

from serai.ipc.messages import Call
from serai_runner.scheduling.calls import PendingCall
from serai_runner.scheduling.fair_queue import FairQueue
from serai_runner.scheduling.version import VersionState
from serai_runner.testing import python_version

VERSION = VersionState(python_version("/code"))


def make_call(serial: int, payer: str) -> PendingCall:
    return PendingCall(None, Call(serial, "v", "json", 10.0, "req", payer), b"", VERSION, serial, 0.0)


def drain(queue: FairQueue) -> list[int]:
    return [queue.pop().serial for _ in range(len(queue))]


def test_payers_take_turns_and_each_payers_calls_keep_their_order():
    queue = FairQueue()
    for serial, payer in enumerate(["a", "a", "a", "b", "c", "b"]):
        queue.push(make_call(serial, payer))
    assert drain(queue) == [0, 3, 4, 1, 5, 2]


def test_a_call_put_back_is_the_next_one():
    queue = FairQueue()
    queue.push(make_call(2, "a"))
    queue.push(make_call(3, "b"))
    queue.push_front(make_call(1, "b"))
    assert drain(queue) == [1, 2, 3]


def test_a_removed_call_is_gone_and_its_payer_with_its_last():
    queue = FairQueue()
    calls = [make_call(1, "a"), make_call(2, "b")]
    for call in calls:
        queue.push(call)
    assert queue.remove(calls[0]) and not queue.remove(calls[0])
    assert (len(queue), queue.num_payers) == (1, 1)
    assert drain(queue) == [2]


def test_popping_from_an_empty_queue_is_an_error():
    with pytest.raises(KeyError):
        FairQueue().pop()
