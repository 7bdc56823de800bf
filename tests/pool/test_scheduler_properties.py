"""Whatever happens in whatever order: memory adds up, what is leased stays, every call gets exactly one end."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure, Outcome, Ticket
from serai_gpu_pool.eviction import POLICIES
from serai_gpu_pool.frameworks.registry import FRAMEWORK_OF
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.scheduling.copies import Place, Residence, WorkerId
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.settings import BatchLimits, Limits
from serai_gpu_pool.testing.world import World

MIB = 1 << 20
#: Name: format, owner, MiB of the file, MiB that a worker measures.
MODELS = {
    "a": ("onnx", "", 10, 12),
    "b": ("onnx", "", 30, 25),
    "c": ("onnx", "", 80, 100),
    "d": ("onnx", "", 60, 55),
    "big": ("onnx", "", 300, 310),
    "liar": ("onnx", "", 20, 5000),
    "huge": ("onnx", "", 5000, 5000),
    "alice-1": ("torchscript", "alice", 40, 45),
    "alice-2": ("torchscript", "alice", 60, 50),
    "bob-1": ("torchscript", "bob", 50, 45),
    "alice-tf": ("saved_model", "alice", 30, 35),
}
SPECS = {
    name: ModelSpec(name, name, "", format, file * MIB, owner)  # pyright: ignore[reportArgumentType]
    for name, (format, owner, file, _) in MODELS.items()
}
#: By the key that the pool knows it by.
TRUE_BYTES = {SPECS[name].key: true * MIB for name, (_, _, _, true) in MODELS.items()}
NEVER_FIT = {"liar", "huge"}
#: Bytes of the device that a worker of one owner takes before anything is loaded.
BASE_BYTES = {"onnx": 0, "torch": 100 * MIB, "tensorflow": 150 * MIB}
MAX_ITEMS = 3

names = st.sampled_from(sorted(MODELS))
picks = st.integers(0, 30)
seconds = st.one_of(st.floats(0.0001, 0.05), st.floats(0.05, 2.0))
mostly = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False] * 7 + [True])


class PoolMachine(RuleBasedStateMachine):
    """Callers, operators, workers that answer in any order that they may, and time."""

    @initialize(
        budgets=st.lists(st.sampled_from([700, 900, 1500]), min_size=1, max_size=2),
        host=st.sampled_from([0, 60, 4000]),
        policy=st.sampled_from(sorted(POLICIES)),
        placement=st.sampled_from(["spread", "best_fit"]),
        max_owner_workers=st.integers(1, 3),
        min_residence_loads=st.sampled_from([0.0, 1.0]),
        all_frameworks=st.booleans(),
    )
    def begin(self, budgets, host, policy, placement, max_owner_workers, min_residence_loads, all_frameworks):
        limits = Limits(
            max_queued=6,
            max_queued_bytes=100,
            improve_after=2,
            replicate_s=0.01,
            worker_idle_s=20.0,
            max_owner_workers=max_owner_workers,
            placement=placement,
            min_residence_loads=min_residence_loads,
            batch=BatchLimits(max_items=MAX_ITEMS, max_bytes=20),
        )
        every = frozenset(FRAMEWORK_OF.values())
        kinds = [every, every if all_frameworks else frozenset({"onnx"})]
        devices = [DeviceSpec(f"d{at}", "", one * MIB, kinds[at]) for at, one in enumerate(budgets)]
        self.world = World(MAX_ITEMS)
        self.scheduler = Scheduler(devices, host * MIB, limits, self.world, policy, FRAMEWORK_OF.__getitem__)
        self.world.connect(self.scheduler)
        self.scheduler.start()
        self.now = 1000.0
        self.tickets: list[Ticket] = []
        self.orders: list[Order] = []

    # ── whoever asks ─────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        name=names,
        payer=st.sampled_from("xyz"),
        owner=st.sampled_from(["ann", "ben"]),
        timeout=st.one_of(st.floats(-0.1, 100), st.floats(100, 1000)),
        size=st.integers(0, 15),
        priority=st.integers(-1, 1),
    )
    def call(self, name, payer, owner, timeout, size, priority):
        spec = SPECS[name]
        ticket = Ticket(
            len(self.tickets), spec.key, payer, self.now + timeout, b"." * size, owner=owner, priority=priority
        )
        self.tickets.append(ticket)
        self.scheduler.on_call(ticket, spec, self.now)

    @precondition(lambda self: self.tickets)
    @rule(pick=picks)
    def cancel(self, pick):
        ticket = self.tickets[-1 - pick % len(self.tickets)]
        if not ticket.done:
            self.world.cancelled.add(ticket)
        self.scheduler.on_cancel(ticket)

    @rule(
        name=names,
        verb=st.sampled_from(["load", "unload", "release", "pin", "unpin"]),
        timeout=st.floats(-1, 30),
        owner=st.sampled_from(["ann", "ben"]),
    )
    def order(self, name, verb, timeout, owner):
        order = Order(len(self.orders), verb, self.now + timeout, None, owner)
        self.orders.append(order)
        key = SPECS[name].key
        copies = [device.copies.get(key) for device in self.scheduler.devices.values()]
        if verb == "pin" and any(copy is not None and copy.condemned for copy in copies):
            self.world.condemned_before_pin.add(key)
        self.scheduler.on_order(order, SPECS[name], self.now)

    @precondition(lambda self: not self.scheduler.draining)
    @rule(really=rarely)
    def drain(self, really):
        if really:
            self.scheduler.on_drain()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule()
    def advance(self):
        for order, _ in self.scheduler.advance(self.now):
            assert order not in self.world.settled
            self.world.settled.append(order)

    @rule(seconds=st.one_of(st.floats(0, 0.3), st.floats(0.3, 5), st.floats(5, 70)))
    def time_passes(self, seconds):
        self.let_pass(seconds)

    def let_pass(self, seconds: float):
        """As the owner lives it: awake when it asked for that, and then not at once again."""
        self.advance()
        until = self.now + seconds
        in_a_row = 0
        for _ in range(2000):
            wakeup = self.scheduler.next_wakeup(self.now)
            if wakeup is None or wakeup > until:
                break
            in_a_row = in_a_row + 1 if wakeup <= self.now else 0
            assert in_a_row < 2, "it was awake just now, twice"
            self.now = max(self.now, wakeup)
            self.scheduler.on_time(self.now)
            self.advance()
        else:
            raise AssertionError("a busy loop")
        self.now = until

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def workers(self, *states: str) -> list[WorkerId]:
        return [id for id, side in self.world.workers.items() if side.state in states]

    @precondition(lambda self: self.workers("starting"))
    @rule(pick=picks, works=mostly, advances=mostly, more=st.sampled_from([0, 0, 30]))
    def worker_comes(self, pick, works, advances, more):
        workers = self.workers("starting")
        id = workers[pick % len(workers)]
        self.world.answer_start(id, (BASE_BYTES[id.framework] + more * MIB) if id.owner else 0, self.now, not works)
        self.perhaps(advances)

    @precondition(lambda self: self.workers("ending"))
    @rule(pick=picks, advances=mostly)
    def worker_is_killed(self, pick, advances):
        workers = self.workers("ending")
        self.world.answer_lost(workers[pick % len(workers)], "killed", self.now)
        self.perhaps(advances)

    @precondition(lambda self: self.workers("up"))
    @rule(pick=picks, really=st.booleans(), advances=mostly)
    def worker_crashes(self, pick, really, advances):
        workers = self.workers("up")
        if really:
            self.world.answer_lost(workers[pick % len(workers)], "signal 11", self.now)
            self.perhaps(advances)

    def pending(self, what: str) -> list[tuple[WorkerId, str]]:
        return [
            (id, name)
            for id in self.workers("up", "ending")
            for kind, name in self.world.workers[id].pending()
            if kind == what
        ]

    @precondition(lambda self: self.pending("load"))
    @rule(
        pick=picks,
        result=st.sampled_from(["ok"] * 6 + ["broken", "damaged", "memory"]),
        factor=st.sampled_from([1.0, 1.0, 1.3, 0.7]),
        pages=mostly,
        improves=st.booleans(),
        load_s=seconds,
        advances=mostly,
    )
    def load_ends(self, pick, result, factor, pages, improves, load_s, advances):
        pending = self.pending("load")
        id, key = pending[pick % len(pending)]
        num_bytes = int(TRUE_BYTES[key] * factor)
        answer = Residence(num_bytes, num_bytes, pages, improves) if result == "ok" else LoadFailure(result, "no")
        self.world.answer_load(id, key, answer, load_s, self.now)
        self.perhaps(advances)

    @precondition(lambda self: self.pending("leave"))
    @rule(pick=picks, kept=st.sampled_from([1.0, 0.5, 1.5]), leaks=rarely, advances=mostly)
    def leaving_ends(self, pick, kept, leaks, advances):
        pending = self.pending("leave")
        id, key = pending[pick % len(pending)]
        process_bytes = 20_000 * MIB if leaks else 1
        self.world.answer_leave(id, key, int(TRUE_BYTES[key] * kept), process_bytes, self.now)
        self.perhaps(advances)

    @precondition(lambda self: self.pending("improve"))
    @rule(pick=picks, factor=st.sampled_from([None, 1.0, 2.0]), advances=mostly)
    def improvement_ends(self, pick, factor, advances):
        pending = self.pending("improve")
        id, key = pending[pick % len(pending)]
        num_bytes = int(TRUE_BYTES[key] * (factor or 0))
        self.world.answer_improve(id, key, Residence(num_bytes, num_bytes, True, False) if factor else None, self.now)
        self.perhaps(advances)

    @precondition(lambda self: self.pending("batch"))
    @rule(pick=picks, kinds=st.lists(st.sampled_from(["ok", "ok", "OutOfMemoryError", "InputError"]), min_size=3),
          seconds=seconds, peak=st.sampled_from([0, 1, 30]), cut=rarely, advances=mostly)  # fmt: skip
    def batch_ends(self, pick, kinds, seconds, peak, cut, advances):
        pending = self.pending("batch")
        id, number = pending[pick % len(pending)]
        batch = self.world.workers[id].batches[number]  # pyright: ignore[reportArgumentType]
        outcomes = [Outcome(0, kind) for kind in kinds[: len(batch.tickets)]]
        if cut and batch.tickets:
            outcomes.pop()
        self.world.answer_batch(id, batch.id, outcomes, seconds, peak * MIB, self.now)
        self.perhaps(advances)

    @rule(name=names, what=st.sampled_from(["loaded", "failed", "left", "improved", "batch", "ready"]), pick=picks)
    def nonsense(self, name, what, pick):
        """What nobody asked for."""
        id = sorted(self.world.workers)[pick % len(self.world.workers)]
        key, scheduler = SPECS[name].key, self.scheduler
        side = self.world.workers[id]
        if what == "ready" and side.state != "starting":
            scheduler.on_worker_ready(id, 900 * MIB, 1, self.now)
        elif what == "loaded" and side.models.get(key) != "coming":
            scheduler.on_loaded(id, key, Residence(900 * MIB, 1, True, True), 0.1, self.now)
        elif what == "failed" and side.models.get(key) != "coming":
            scheduler.on_load_failed(id, key, LoadFailure("broken", "no"), self.now)
        elif what == "left" and side.models.get(key) != "out":
            scheduler.on_left(id, key, 900 * MIB, 1, self.now)
        elif what == "improved" and key not in side.improving:
            scheduler.on_improved(id, key, Residence(900 * MIB, 1, True, True), self.now)
        elif what == "batch":
            scheduler.on_batch_done(id, 1_000_000, [(Outcome(0), b"")], 0.1, 1, self.now)

    def perhaps(self, advances: bool):
        if advances:
            self.advance()

    # ── what always holds ────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def memory_adds_up(self):
        self.scheduler.check_integrity()
        for device in self.scheduler.devices.values():
            ledger = device.ledger
            assert ledger.free + ledger.reserved_bytes + ledger.resident_bytes == ledger.budget
            for worker in device.workers.values():
                side = self.world.side(worker.id)
                here = {key for key, at in side.models.items() if at in ("resident", "out")}
                held = {key for key in worker.copies if key in ledger.resident}
                assert held <= here and all(side.leaving_to[key] is None for key in here - held)
                kept = {key for key, at in side.models.items() if at == "paged"}
                assert kept == {key for key, copy in worker.copies.items() if copy.place is Place.HOST}

    @invariant()
    def queues_add_up(self):
        queues = [model.queue for model in self.scheduler.models.values()]
        assert self.scheduler.queued_bytes == sum(queue.num_bytes for queue in queues)
        running = {
            ticket
            for side in self.world.workers.values()
            for batch in side.batches.values()
            for ticket in batch.tickets
            if ticket.running and not ticket.done
        }
        assert self.scheduler.num_live == sum(map(len, queues)) + len(running)

    @invariant()
    def every_call_has_one_end_or_none_yet(self):
        for ticket in self.tickets:
            assert ticket.done == (ticket in self.world.ends or ticket in self.world.cancelled)

    # ── in the end ───────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self):
        """Everything works from now on: whoever waits gets an end, and every model that fits can be used again."""
        if not hasattr(self, "world"):
            return
        self.work_well(lambda: not self.scheduler.num_live)
        assert all(ticket.done for ticket in self.tickets)
        for name in MODELS:
            self.order(name, "unpin", 10.0, "ann")
        self.let_pass(2000.0)  # what was held against models is forgotten, and orders are settled
        self.work_well(lambda: len(self.world.settled) == len(self.orders))
        if not self.scheduler.draining:
            self.everything_works()
        self.nothing_is_left()

    def everything_works(self):
        first = len(self.tickets)
        for name in MODELS:
            self.call(name, "x", "ann", 5000.0, 1, 0)
        self.work_well(lambda: not self.scheduler.num_live)
        able = frozenset().union(*(device.spec.frameworks for device in self.scheduler.devices.values()))
        for name, ticket in zip(MODELS, self.tickets[first:], strict=True):
            end = self.world.ends[ticket]
            fits = name not in NEVER_FIT and FRAMEWORK_OF[SPECS[name].format] in able
            assert (getattr(end, "kind", "") == "ok") == fits, (name, end)

    def nothing_is_left(self):
        assert self.scheduler.queued_bytes == 0
        assert self.scheduler.backlog_s == 0
        for device in self.scheduler.devices.values():
            names = {worker.name for worker in device.workers.values()} | set(device.copies)
            assert not device.running and not device.ready and set(device.ledger.resident) <= names
            assert not any(device.ledger.leases(key) for key in device.copies)

    def work_well(self, done):
        for _ in range(5000):
            if not self.answer_one():
                self.scheduler.on_time(self.now)
                self.advance()
                if done() and not self.answer_one():
                    return
                wakeup = self.scheduler.next_wakeup(self.now)
                if wakeup is not None and not self.workers("starting", "ending"):
                    self.let_pass(max(wakeup - self.now, 0.0))
            self.now += 0.001
        raise AssertionError("somebody waits for ever")

    def answer_one(self) -> bool:
        for id in self.workers("ending"):
            self.world.answer_lost(id, "killed", self.now)
            self.advance()
            return True
        for id in self.workers("starting"):
            self.world.answer_start(id, BASE_BYTES[id.framework] if id.owner else 0, self.now)
            self.advance()
            return True
        for id in self.workers("up"):
            for what, name in self.world.workers[id].pending():
                self.answer_well(id, what, name)
                self.advance()
                return True
        return False

    def answer_well(self, id: WorkerId, what: str, name):
        if what == "load":
            num_bytes = TRUE_BYTES[name]
            self.world.answer_load(id, name, Residence(num_bytes, num_bytes, True, False), 0.01, self.now)
        elif what == "leave":
            self.world.answer_leave(id, name, TRUE_BYTES[name], 1, self.now)
        elif what == "improve":
            self.world.answer_improve(id, name, None, self.now)
        else:
            number = len(self.world.workers[id].batches[name].tickets)
            self.world.answer_batch(id, name, [Outcome(0)] * number, 0.001, MIB, self.now)


PoolMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("SERAI_POOL_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPool = PoolMachine.TestCase
