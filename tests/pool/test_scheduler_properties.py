"""Whatever happens in whatever order: memory adds up, what is leased stays, every call gets exactly one end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.batching import BatchLimits
from serai_gpu_pool.core import LoadFailure, Outcome, State, Ticket
from serai_gpu_pool.scheduler import Scheduler
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.testing.fakes import RecordedEffects

MIB = 1 << 20
SIZES = {"a": 10 * MIB, "b": 20 * MIB, "c": 40 * MIB, "d": 5 * MIB, "e": 200 * MIB}


class PoolMachine(RuleBasedStateMachine):
    """The machine is the outside world: callers, a device that answers in any order it may, and time."""

    def __init__(self):
        super().__init__()
        self.effects = RecordedEffects()
        limits = Limits(max_queued=6, max_queued_bytes=60, batch=BatchLimits(max_items=3, max_bytes=20))
        self.scheduler = Scheduler(100 * MIB, limits, self.effects)
        self.now = 0.0
        self.up = False
        self.tickets: list[Ticket] = []
        self.cancelled: set[Ticket] = set()
        self.to_load: list[str] = []
        self.to_drop: list[str] = []
        self.to_run: list = []

    def take_effects(self):
        assert self.up or not (self.effects.loads or self.effects.drops or self.effects.batches)
        for spec in self.effects.loads:
            self.to_load.append(spec.sha256)
        self.to_drop += self.effects.drops
        for batch in self.effects.batches:
            model = self.scheduler.residency.models[batch.model]
            assert model.state is State.RESIDENT and not model.condemned
            assert 1 <= len(batch.tickets) <= 3 or not model.time.per_item_s
            self.to_run.append(batch)
        self.effects.loads, self.effects.drops, self.effects.batches = [], [], []

    @rule(
        name=st.sampled_from("abcde"), payer=st.sampled_from("xy"), timeout=st.floats(-1, 100), size=st.integers(0, 15)
    )
    def call(self, name, payer, timeout, size):
        ticket = Ticket(len(self.tickets), name, payer, self.now + timeout, b"." * size)
        self.tickets.append(ticket)
        self.scheduler.on_call(ticket, ModelSpec(name, name, "", "onnx", SIZES[name]), self.now)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def cancel(self, data):
        ticket = data.draw(st.sampled_from(self.tickets[-8:]))
        if not ticket.done:
            self.cancelled.add(ticket)
        self.scheduler.on_cancel(ticket)

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds):
        self.now += seconds
        self.scheduler.on_time(self.now)

    @rule()
    def advance(self):
        self.scheduler.advance(self.now)
        self.take_effects()

    @precondition(lambda self: not self.up)
    @rule()
    def worker_comes(self):
        self.up = True
        self.scheduler.on_worker_ready(self.now)

    @precondition(lambda self: self.up)
    @rule()
    def worker_ends(self):
        self.take_effects()
        self.up = False
        self.to_load, self.to_drop, self.to_run = [], [], []
        self.scheduler.on_worker_lost("signal 9", self.now)

    @precondition(lambda self: self.to_load)
    @rule(factor=st.floats(0.5, 3), works=st.sampled_from([True, True, True, False]))
    def load_ends(self, factor, works):
        name = self.to_load.pop(0)
        if works:
            self.scheduler.on_loaded(name, int(SIZES[name] * factor), 0.1, self.now)
        else:
            self.scheduler.on_load_failed(name, LoadFailure("broken", "no"), self.now)

    @precondition(lambda self: self.to_drop)
    @rule()
    def drop_ends(self):
        name = self.to_drop.pop(0)
        assert self.scheduler.residency.ledger.leases(name) == 0
        self.scheduler.on_dropped(name, self.now)

    @precondition(lambda self: self.to_run)
    @rule(seconds=st.floats(0.0001, 1))
    def batch_ends(self, seconds):
        batch = self.to_run.pop(0)
        assert self.scheduler.residency.models[batch.model].state is State.RESIDENT, "leased models stay"
        self.scheduler.on_batch_done(batch.id, [(Outcome(0), b"")] * len(batch.tickets), seconds, self.now)

    @invariant()
    def memory_adds_up(self):
        ledger = self.scheduler.residency.ledger
        ledger.check_integrity()
        states = {key: model.state for key, model in self.scheduler.residency.models.items()}
        held = {key for key, state in states.items() if state in (State.RESIDENT, State.DROPPING)}
        assert set(ledger.resident) == held
        loading = [key for key, state in states.items() if state is State.LOADING]
        assert len(loading) <= 1 and bool(loading) == bool(ledger.reserved_bytes)

    @invariant()
    def queues_add_up(self):
        queues = [model.queue for model in self.scheduler.residency.models.values()]
        assert self.scheduler.queued_bytes == sum(queue.num_bytes for queue in queues)
        waiting = sum(map(len, queues))
        running = sum(not one.done for batch in self.scheduler.running.values() for one in batch.tickets)
        assert self.scheduler.num_live == waiting + running

    @invariant()
    def every_call_has_one_end_or_none_yet(self):
        for ticket in self.tickets:
            assert ticket.done == (ticket in self.effects.ends or ticket in self.cancelled)

    def teardown(self):
        """Let the world go on without trouble: everybody gets an end."""
        if not self.up:
            self.worker_comes()
        for _ in range(2000):
            if not self.scheduler.num_live:
                break
            self.scheduler.on_time(self.now)
            self.scheduler.advance(self.now)
            if self.effects.kills:
                self.effects.kills.clear()
                self.worker_ends()
                self.worker_comes()
                continue
            self.take_effects()
            while self.to_drop:
                self.drop_ends()
            if self.to_load:
                name = self.to_load.pop(0)
                self.scheduler.on_loaded(name, SIZES[name], 0.1, self.now)
            while self.to_run:
                self.batch_ends(0.01)
            self.now = max(self.now + 0.01, min(self.scheduler.next_wakeup() or 0.0, self.now + 1.0))
        assert self.scheduler.num_live == 0
        assert all(ticket.done for ticket in self.tickets)
        assert self.scheduler.queued_bytes == 0


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestPool = PoolMachine.TestCase
