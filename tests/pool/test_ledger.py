"""Every byte of a device's budget is free, reserved or resident, whatever happens to it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serai_gpu_pool.scheduling.ledger import Ledger, LedgerError


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
    ledger.reserve("of no size", 0)
    with pytest.raises(LedgerError, match="-30 free"):
        ledger.reserve("b", 1)


def test_a_resident_that_is_measured_again_takes_what_it_takes_now():
    ledger = Ledger(100)
    ledger.reserve("a", 60)
    ledger.commit("a", 60)
    ledger.correct("a", 20)
    assert ledger.free == 80 and ledger.resident == {"a": 20}
    ledger.check_integrity()


def test_what_a_process_held_is_free_when_it_has_ended_even_if_it_was_leased():
    ledger = Ledger(100)
    ledger.reserve("a", 60)
    ledger.commit("a", 60)
    ledger.lease("a")
    ledger.reserve("coming", 30)
    for name in ("a", "coming", "never there"):
        ledger.lost(name)
    assert ledger.free == 100 and ledger.leases("a") == 0
    ledger.check_integrity()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ledger: ledger.reserve("b", 51),
        lambda ledger: ledger.reserve("b", -1),
        lambda ledger: ledger.reserve("a", 1),
        lambda ledger: ledger.commit("a", 1),
        lambda ledger: ledger.correct("b", 1),
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
        self.bytes: dict[str, int] = {}
        self.leases: dict[str, int] = {}

    names = st.sampled_from("abcdef")
    sizes = st.integers(0, 1200)

    @rule(name=names, size=sizes)
    def reserve(self, name, size):
        if name in self.state or size > max(self.ledger.free, 0):
            with pytest.raises(LedgerError):
                self.ledger.reserve(name, size)
        else:
            self.ledger.reserve(name, size)
            self.state[name], self.bytes[name] = "reserved", size

    @precondition(lambda self: "reserved" in self.state.values())
    @rule(size=sizes, data=st.data())
    def commit(self, size, data):
        name = data.draw(st.sampled_from([n for n, s in self.state.items() if s == "reserved"]))
        self.ledger.commit(name, size)
        self.state[name], self.bytes[name] = "resident", size

    @rule(name=names, size=sizes)
    def correct(self, name, size):
        if self.state.get(name) == "resident":
            self.ledger.correct(name, size)
            self.bytes[name] = size

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
            assert self.ledger.release(name) == self.bytes.pop(name)
            del self.state[name]

    @rule(name=names)
    def lost(self, name):
        self.ledger.lost(name)
        self.state.pop(name, None)
        self.bytes.pop(name, None)
        self.leases.pop(name, None)

    @invariant()
    def adds_up(self):
        self.ledger.check_integrity()
        assert self.ledger.free == 1000 - sum(self.bytes.values())
        assert set(self.ledger.resident) == {n for n, s in self.state.items() if s == "resident"}
        assert all(self.ledger.leases(name) == count for name, count in self.leases.items())


LedgerMachine.TestCase.settings = settings(max_examples=50, deadline=None)
TestLedger = LedgerMachine.TestCase
