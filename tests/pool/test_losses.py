"""A worker has ended: who is run again, who is told, and who gets the blame."""

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Batch, Ticket
from serai_gpu_pool.scheduling.copies import Copy, Place, WorkerId
from serai_gpu_pool.scheduling.losses import Findings, investigate
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.strikes import WINDOW_S, Strikes
from serai_gpu_pool.scheduling.workers import Worker


class Scene:
    """A worker with batches in lanes and models on their way, in the moment of its end."""

    def __init__(self) -> None:
        self.worker = Worker(WorkerId("cpu", "onnx"))
        self.last = 0

    def batch(self, model: str, *owners: str, lane: int = 0) -> list[Ticket]:
        self.last += 1
        tickets = [Ticket(10 * self.last + at, model, "p", 9.0, b"", owner=owner) for at, owner in enumerate(owners)]
        self.worker.batches[self.last] = Batch(self.last, model, tickets, lane=lane)
        return tickets

    def moving(self, name: str, where: str = "loading") -> Copy:
        copy = Copy(Model(ModelSpec(name, name, "", "onnx", 1), "onnx", 9), self.worker.id)
        copy.place = Place.LOADING
        getattr(self.worker, where)[name] = copy
        return copy

    def ends(self) -> Findings:
        findings = investigate(self.worker, list(self.worker.batches.values()))
        self.worker.batches.clear()
        self.worker.loading.clear()
        return findings

    def again(self, ticket: Ticket) -> None:
        """It runs by itself."""
        self.last += 1
        self.worker.batches[self.last] = Batch(self.last, ticket.model, [ticket])


def test_a_call_that_ran_alone_gets_a_second_chance_and_its_model_a_strike():
    scene = Scene()
    (ticket,) = scene.batch("m", "ann")
    findings = scene.ends()
    assert findings.again == [ticket] and not findings.failed
    assert findings.guilty == [("m", "ann")] and ticket.alone


def test_a_poisoned_call_costs_two_workers_and_its_batch_mates_nothing():
    scene = Scene()
    poisoned, mate, other = scene.batch("m", "ann", "ann", "ben")
    findings = scene.ends()
    assert findings.again == [poisoned, mate, other] and sorted(findings.guilty) == [("m", "ann"), ("m", "ben")]
    scene.again(poisoned)
    findings = scene.ends()
    assert findings.failed == [poisoned] and not findings.again and findings.guilty == [("m", "ann")]


def test_what_only_waited_inside_the_worker_is_no_suspect():
    scene = Scene()
    scene.batch("bad", "ann")
    waiting = scene.batch("good", "ben")
    findings = scene.ends()
    assert waiting[0] in findings.again and waiting[0].attempts == 0 and not waiting[0].alone
    assert findings.guilty == [("bad", "ann")]


def test_of_several_suspects_nobody_is_guilty_until_one_is_there_again():
    scene = Scene()
    (one,), (two,) = scene.batch("a", "ann"), scene.batch("b", "ben", lane=1)
    loading = scene.moving("c")
    findings = scene.ends()
    assert not findings.guilty and set(findings.again) == {one, two} and loading.model.suspect
    scene.again(one)
    scene.moving("d")
    findings = scene.ends()
    assert findings.guilty == [("a", "ann")] and findings.failed == [one]


def test_a_load_under_which_a_worker_ends_twice_is_guilty_whatever_ran_beside_it():
    scene = Scene()
    scene.batch("innocent", "ann")
    copy = scene.moving("bad")
    assert scene.ends().guilty == []
    scene.batch("innocent", "ann")
    scene.worker.loading["bad"] = copy
    assert scene.ends().guilty == [("bad", "")]


def test_a_load_or_a_departure_that_was_alone_is_guilty_at_once():
    for where in ("loading", "leaving"):
        scene = Scene()
        scene.moving("bad", where)
        assert scene.ends().guilty == [("bad", "")]


def test_a_hang_is_the_fault_of_what_hung_and_of_nothing_beside_it():
    scene = Scene()
    (hung,), (innocent,) = scene.batch("slow", "ann"), scene.batch("good", "ben", lane=1)
    loading = scene.moving("other")
    scene.worker.hung = Copy(Model(ModelSpec("slow", "slow", "", "onnx", 1), "onnx", 9), scene.worker.id)
    findings = scene.ends()
    assert findings.failed == [hung] and findings.again == [innocent] and findings.guilty == [("slow", "ann")]
    assert innocent.attempts == 0 and not loading.model.suspect


def test_calls_that_hung_together_are_tried_one_by_one():
    scene = Scene()
    tickets = scene.batch("slow", "ann", "ann")
    scene.worker.hung = Copy(Model(ModelSpec("slow", "slow", "", "onnx", 1), "onnx", 9), scene.worker.id)
    findings = scene.ends()
    assert findings.again == tickets and not findings.failed


def test_a_load_that_hung_is_known_and_needs_no_second_look():
    scene = Scene()
    (running,) = scene.batch("good", "ben")
    scene.worker.hung = copy = scene.moving("endless")
    findings = scene.ends()
    assert findings.guilty == [("endless", "")] and findings.again == [running] and not copy.model.suspect


def test_calls_that_others_run_meanwhile_are_not_judged_again():
    scene = Scene()
    scene.batch("slow", "ann")
    passed_on = scene.batch("good", "ben")
    scene.worker.batches[2].is_disowned = scene.worker.batches[1].is_late = True
    findings = scene.ends()
    assert not set(passed_on) & {*findings.again, *findings.failed} and passed_on[0].attempts == 0


def test_callers_that_have_gone_are_nobodys_business():
    scene = Scene()
    (gone,) = scene.batch("m", "ann")
    gone.done = True
    findings = scene.ends()
    assert not findings.again and not findings.failed


def test_three_strikes_in_the_window_lock_out_and_old_ones_do_not_count():
    strikes = Strikes()
    assert [strikes.add(("m", "ann"), now) for now in (0.0, 1.0, 2.0)] == [False, False, True]
    assert [strikes.add(("m", "ann"), now) for now in (10.0, 11.0, 12.0 + WINDOW_S)] == [False, False, False]
    assert not strikes.add(("m", "ben"), 12.0 + WINDOW_S), "each owner is counted by itself"
