"""A scheduler on a bench: one device, a clock that stands still until it is moved, and short ways to say what happens.

Sizes are in MiB, times in seconds. A model's name is its content's hash, too.
"""

from typing import Any

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Batch, End, LoadFailure, Outcome, Ticket
from serai_gpu_pool.frameworks.registry import FRAMEWORK_OF
from serai_gpu_pool.scheduling.commands import Order
from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.scheduler import Scheduler
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.testing.fakes import RecordedEffects

MIB = 1 << 20


class Recorded(RecordedEffects):
    """Remembers also who had to go, to the host tier or altogether, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[str] = []

    def page_out(self, worker: WorkerId, key: str) -> None:
        super().page_out(worker, key)
        self.gone.append(key)

    def close(self, worker: WorkerId, key: str) -> None:
        super().close(worker, key)
        self.gone.append(key)


class Bench:
    """`limits` as of `Limits`; `frameworks` beside ONNX."""

    def __init__(
        self,
        budget: int = 100,
        host: int = 0,
        devices: int = 1,
        frameworks: tuple[str, ...] = (),
        policy: str = "lru",
        starts: bool = True,
        **limits: Any,
    ) -> None:
        able = frozenset({"onnx", *frameworks})
        names = ["cpu", *(f"cuda:{number}" for number in range(devices - 1))]
        specs = [DeviceSpec(name, name, budget * MIB, able) for name in names]
        self.effects = Recorded()
        self.scheduler = Scheduler(specs, host * MIB, Limits(**limits), self.effects, policy, FRAMEWORK_OF.__getitem__)
        self.now = 1000.0
        self.settled: dict[int, End | None] = {}
        self._last = 0
        self._last_order = 0
        if starts:
            self.scheduler.start()
            for name in names:
                self.ready(device=name)

    # ── whoever asks ─────────────────────────────────────────────────────────────────────────────────────────

    def call(
        self,
        name: str,
        size: int = 10,
        payer: str = "p",
        timeout: float = 60.0,
        caller: str = "ann",
        format: Any = "onnx",
        owner: str = "",
        priority: int = 0,
        payload: bytes = b"input",
    ) -> Ticket:
        """`caller`: whose version was called; `owner`: of the model, where its format can run code."""
        self._last += 1
        spec = ModelSpec(name, name, "/nowhere", format, size * MIB, owner)
        ticket = Ticket(
            self._last, spec.key, payer, self.now + timeout, payload, owner=owner or caller, priority=priority
        )
        self.scheduler.on_call(ticket, spec, self.now)
        return ticket

    def order(
        self, name: str, verb: Any, size: int = 10, timeout: float = 60.0, format: Any = "onnx", owner: str = ""
    ) -> Order:
        self._last_order += 1
        order = Order(self._last_order, verb, self.now + timeout, None)
        self.scheduler.on_order(order, ModelSpec(name, name, "/nowhere", format, size * MIB, owner), self.now)
        return order

    def end(self, ticket: Ticket) -> Any:
        """How it ended: an `Outcome` or an `End`; None while it waits or runs."""
        return self.effects.ends.get(ticket)

    def advance(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.scheduler.on_time(self.now)
        for order, end in self.scheduler.advance(self.now):
            self.settled[order.id] = end
        self.scheduler.check_integrity()

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def worker(self, owner: str = "", framework: str = "torch", device: str = "cpu") -> WorkerId:
        return WorkerId(device, framework, owner) if owner else WorkerId(device, "onnx")

    def ready(self, owner: str = "", base: int = 0, device: str = "cpu") -> None:
        self.scheduler.on_worker_ready(self.worker(owner, device=device), base * MIB, 1, self.now)
        self.advance()

    def start_failed(self, reason: str = "exit code 1", owner: str = "") -> None:
        self.scheduler.on_start_failed(self.worker(owner), reason, self.now)
        self.advance()

    def lost(self, reason: str = "signal 9", owner: str = "", device: str = "cpu") -> None:
        self.scheduler.on_worker_lost(self.worker(owner, device=device), reason, self.now)
        self.advance()

    def loaded(
        self,
        name: str,
        size: int = 10,
        load_s: float = 0.01,
        pages: bool = False,
        improves: bool = False,
        owner: str = "",
        device: str = "cpu",
    ) -> None:
        """It is there, and takes `size` MiB."""
        residence = Residence(size * MIB, size * MIB, pages, improves)
        self.scheduler.on_loaded(self.worker(owner, device=device), _key(name, owner), residence, load_s, self.now)
        self.advance()

    def load_failed(self, name: str, kind: Any = "broken", message: str = "no good") -> None:
        self.scheduler.on_load_failed(self.worker(), name, LoadFailure(kind, message), self.now)
        self.advance()

    def left(self, name: str, kept: int = 0, process: int = 0, owner: str = "") -> None:
        self.scheduler.on_left(self.worker(owner), _key(name, owner), kept * MIB, process * MIB, self.now)
        self.advance()

    def improved(self, name: str, size: int | None) -> None:
        """`size`: of the faster form; None: there is none."""
        residence = Residence(size * MIB, size * MIB, True, False) if size is not None else None
        self.scheduler.on_improved(self.worker(), name, residence, self.now)
        self.advance()

    def done(self, at: int = -1, seconds: float = 0.001, kinds: tuple[Any, ...] = (), peak: int = 0) -> Batch:
        """A batch that was begun has ended; `kinds` of outcomes, all well where they are missing."""
        batch = self.effects.batches[at]
        outcomes = [Outcome(0, kind) for kind in kinds] or [Outcome(0) for _ in batch.tickets]
        results: list[Any] = [(outcome, b"") for outcome in outcomes]
        self.scheduler.on_batch_done(batch.worker, batch.id, results, seconds, peak * MIB, self.now)
        self.advance()
        return batch

    def knows(self, name: str, **seconds: float) -> None:
        """What batches of a model take: `n4=0.01` for one of four."""
        times = self.scheduler.models[name].times_on("cpu")
        for size, one in seconds.items():
            for _ in range(8):
                times.learn(int(size[1:]), one)

    def work(self, seconds: float = 0.001) -> Batch | None:
        """The batch that has run for longest ends well; None when nothing runs."""
        running = [batch for device in self.scheduler.devices.values() for batch in device.running.values()]
        if not running:
            return None
        return self.done(self.effects.batches.index(min(running, key=lambda one: one.id)), seconds)

    def resident(self, name: str, size: int = 10, seconds: float = 0.001, **more: Any) -> None:
        """A call of a model, from cold to its end; it is in memory afterwards, and nothing runs."""
        owner = more.get("owner", "")
        ticket = self.call(name, size, owner=owner, format="torchscript" if owner else "onnx")
        self.advance()
        if owner and self.effects.starts[-1] == self.worker(owner):
            self.ready(owner)
        self.loaded(name, size, **more)
        self.done(seconds=seconds)
        assert self.end(ticket).kind == "ok"
        self.effects.batches.clear()


def _key(name: str, owner: str) -> str:
    return f"{owner}/{name}" if owner else name
