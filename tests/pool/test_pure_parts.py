"""Ledger, queues, deadlines, batching, eviction, shared memory and settings: driven by hand and by hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serai_gpu_pool.arena import Arena, Extents, ReadOnlyArena
from serai_gpu_pool.batching import BatchLimits, ServiceTime, max_items
from serai_gpu_pool.core import Ticket
from serai_gpu_pool.deadlines import Deadlines
from serai_gpu_pool.eviction import Candidate, least_recently_used
from serai_gpu_pool.ledger import Ledger, LedgerError
from serai_gpu_pool.queues import FairQueue
from serai_gpu_pool.settings import SettingError, parse_bytes
from serai_gpu_pool.strikes import WINDOW_S, Strikes


def ticket(id: int, payer: str = "p", payload: bytes = b"xx", deadline: float = 10.0) -> Ticket:
    return Ticket(id, "m", payer, deadline, payload)


def test_memory_goes_from_free_to_reserved_to_resident_and_back():
    ledger = Ledger(100)
    ledger.reserve("a", 60)
    assert (ledger.free, ledger.reserved_bytes, ledger.resident_bytes) == (40, 60, 0)
    ledger.commit("a", 50)
    assert (ledger.free, ledger.reserved_bytes, ledger.resident_bytes) == (50, 0, 50)
    assert ledger.release("a") == 50
    assert ledger.free == 100


def test_a_model_that_turned_out_larger_leaves_a_debt_that_shows():
    ledger = Ledger(100)
    ledger.reserve("a", 60)
    ledger.commit("a", 130)
    assert ledger.free == -30
    ledger.check_integrity()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ledger: ledger.reserve("b", 51),
        lambda ledger: ledger.reserve("a", 1),
        lambda ledger: ledger.commit("a", 1),
        lambda ledger: ledger.lease("b"),
        lambda ledger: ledger.unlease("a"),
        lambda ledger: (ledger.lease("a"), ledger.release("a")),
    ],
)
def test_what_would_make_the_ledger_wrong_is_refused(wrong):
    ledger = Ledger(100)
    ledger.reserve("a", 50)
    ledger.commit("a", 50)
    with pytest.raises(LedgerError):
        wrong(ledger)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ledger = Ledger(1000)
        self.state: dict[str, str] = {}
        self.leases: dict[str, int] = {}

    names = st.sampled_from("abcdef")

    @rule(name=names, size=st.integers(0, 1200))
    def reserve(self, name, size):
        if name in self.state or size > self.ledger.free:
            with pytest.raises(LedgerError):
                self.ledger.reserve(name, size)
        else:
            self.ledger.reserve(name, size)
            self.state[name] = "reserved"

    @precondition(lambda self: "reserved" in self.state.values())
    @rule(size=st.integers(0, 1200), data=st.data())
    def commit(self, size, data):
        name = data.draw(st.sampled_from([n for n, s in self.state.items() if s == "reserved"]))
        self.ledger.commit(name, size)
        self.state[name] = "resident"

    @rule(name=names)
    def lease(self, name):
        if self.state.get(name) == "resident":
            self.ledger.lease(name)
            self.leases[name] = self.leases.get(name, 0) + 1

    @rule(name=names)
    def unlease(self, name):
        if self.leases.get(name):
            self.ledger.unlease(name)
            self.leases[name] -= 1

    @rule(name=names)
    def release(self, name):
        if self.leases.get(name):
            with pytest.raises(LedgerError):
                self.ledger.release(name)
        elif name in self.state:
            self.ledger.release(name)
            del self.state[name]

    @invariant()
    def adds_up(self):
        self.ledger.check_integrity()
        assert set(self.ledger.resident) == {n for n, s in self.state.items() if s == "resident"}


TestLedger = LedgerMachine.TestCase


def test_payers_take_turns_and_each_keeps_its_order():
    queue = FairQueue(10)
    for id, payer in enumerate("aaaabbc"):
        queue.push(ticket(id, payer))
    assert [one.id for one in queue.take(5, 1000)] == [0, 4, 6, 1, 5]
    assert [one.id for one in queue.drain()] == [2, 3]
    assert len(queue) == 0 and queue.num_bytes == 0


def test_a_batch_holds_one_ticket_however_large_and_no_more_than_fit():
    queue = FairQueue(10)
    for id in range(3):
        queue.push(ticket(id, payload=b"x" * 100))
    assert len(queue.take(8, 50)) == 1
    assert len(queue.take(8, 250)) == 2


def test_returned_tickets_are_first_again():
    queue = FairQueue(10)
    for id, payer in enumerate("abab"):
        queue.push(ticket(id, payer))
    taken = queue.take(2, 1000)
    queue.push_back(taken)
    assert [one.id for one in queue.drain()] == [0, 1, 2, 3]


@given(st.lists(st.tuples(st.sampled_from(["push", "take", "remove"]), st.sampled_from("abc"), st.integers(0, 5))))
def test_a_queue_keeps_every_ticket_until_it_is_taken_once(steps):
    queue = FairQueue(1000)
    waiting: list[Ticket] = []
    for id, (what, payer, number) in enumerate(steps):
        if what == "push":
            waiting.append(ticket(id, payer))
            queue.push(waiting[-1])
        elif what == "take":
            for one in queue.take(number, 1 << 30):
                waiting.remove(one)
        elif waiting:
            queue.remove(waiting.pop(number % len(waiting)))
        assert len(queue) == len(waiting)
        assert queue.num_bytes == sum(len(one.payload) for one in waiting)
        assert all(one.queued for one in waiting)
    assert set(queue.drain()) == set(waiting)


def test_deadlines_come_in_order_and_forget_what_has_ended():
    deadlines = Deadlines()
    tickets = [ticket(id, deadline=float(id)) for id in range(5000)]
    for one in reversed(tickets):
        deadlines.add(one)
    for one in tickets[:4990]:
        one.done = True
        deadlines.ended(one)
    assert deadlines.next() == 4990.0
    assert [one.id for one in deadlines.due(4992.0)] == [4990, 4991, 4992]
    deadlines.add(ticket(9000, deadline=9000.0))
    assert deadlines.num_live == 11


def test_a_slow_model_gets_smaller_batches_and_an_unknown_one_the_largest():
    limits = BatchLimits(max_items=64, max_seconds=0.025)
    time = ServiceTime()
    assert max_items(time, limits) == 64
    time.learn(1, 0.010)
    assert max_items(time, limits) == 2
    time = ServiceTime()
    time.learn(1, 5.0)
    assert max_items(time, limits) == 1


def test_the_least_recently_used_go_and_no_more_than_needed():
    candidates = [Candidate("new", 10, 3.0, 1.0), Candidate("old", 10, 1.0, 1.0), Candidate("middle", 10, 2.0, 1.0)]
    assert least_recently_used(candidates, 15) == ["old", "middle"]
    assert least_recently_used(candidates, 31) is None


def test_three_strikes_in_the_window_lock_a_model_out_and_old_ones_do_not_count():
    strikes = Strikes()
    assert [strikes.add("m", now) for now in (0.0, 1.0, 2.0)] == [False, False, True]
    assert [strikes.add("m", now) for now in (10.0, 11.0, 12.0 + WINDOW_S)] == [False, False, False]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000))))
def test_shared_memory_is_never_given_twice_and_all_comes_back(steps):
    extents = Extents(64 * 4096)
    held: list[tuple[int, int]] = []
    for wants, size in steps:
        if wants:
            start = extents.take(size)
            if start is not None:
                assert start + size <= extents.size
                assert all(start >= other + length or start + size <= other for other, length in held)
                held.append((start, size))
        elif held:
            extents.give_back(*held.pop(size % len(held)))
    for one in held:
        extents.give_back(*one)
    assert extents.free_bytes == extents.size
    assert extents.take(extents.size) == 0, "the free parts are joined again"


def test_a_slab_is_free_again_when_nobody_holds_it_and_the_worker_stays_inside():
    import os

    arena = Arena(3 * 4096)
    slab = arena.take(5000)
    assert slab is not None and arena.take(5000) is None
    slab.view()[:4] = b"data"
    reader = ReadOnlyArena(os.dup(arena.fd))
    assert bytes(reader.read(slab.offset, 4)) == b"data"
    for offset, size in ((0, 4 * 4096), (-1, 2), (3 * 4096, 1), (1 << 62, 1 << 62)):
        with pytest.raises(ValueError, match="outside"):
            reader.read(offset, size)
    del slab
    assert arena.extents.free_bytes == arena.size


@pytest.mark.parametrize(
    ("text", "value"), [("2GiB", 2 << 30), ("1048576", 1 << 20), ("1.5 MB", 1_500_000), ("512MiB", 512 << 20)]
)
def test_sizes_are_read_as_people_write_them(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["1 potato", "", "-1", "GiB", "1e9", "1GiB2"])
def test_what_is_no_size_is_refused_by_name(text):
    with pytest.raises(SettingError, match="is not a size"):
        parse_bytes(text)
