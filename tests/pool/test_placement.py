"""On which device a model's next copy goes, and who waits for which load."""

import pytest

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import Counts, Ticket
from serai_gpu_pool.eviction import POLICIES
from serai_gpu_pool.scheduling import placement
from serai_gpu_pool.scheduling.copies import Place
from serai_gpu_pool.scheduling.devices import Device
from serai_gpu_pool.scheduling.host import HostTier
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.turns import Turns
from serai_gpu_pool.scheduling.wanted import Wanted
from serai_gpu_pool.settings import Limits
from serai_gpu_pool.testing.fakes import RecordedEffects

MIB = 1 << 20


def device(id: str, budget: int = 100, taken: int = 0, frameworks: frozenset[str] = frozenset({"onnx"})) -> Device:
    spec = DeviceSpec(id, "", budget * MIB, frameworks)
    one = Device(spec, HostTier(0), Limits(), RecordedEffects(), POLICIES["lru"](), Counts())
    one.ledger.reserve("others", taken * MIB)
    return one


def model(size: int = 10, name: str = "m", format="onnx", framework: str = "onnx", owner: str = "") -> Model:
    return Model(ModelSpec(name, name, "", format, size * MIB, owner), framework, 10)


@pytest.mark.parametrize(("setting", "chosen"), [("spread", "roomy"), ("best_fit", "snug")])
def test_with_room_on_several_devices_the_setting_decides(setting, chosen):
    devices = [device("full", taken=95), device("snug", taken=60), device("roomy", taken=10)]
    found = placement.choose(devices, model(), setting)
    assert found is not None and found.id == chosen


def test_a_device_that_cannot_run_or_hold_it_is_never_chosen():
    devices = [device("gpu", frameworks=frozenset({"torch"})), device("small", budget=5), device("able", taken=100)]
    found = placement.choose(devices, model(), "spread")
    assert found is not None and found.id == "able"
    assert placement.choose(devices[:2], model(), "spread") is None


def test_weights_that_are_near_a_device_bring_the_model_back_there():
    near, roomy = device("near", taken=95), device("roomy")
    one = model()
    near.copy_of(one).place = Place.HOST
    assert placement.choose([roomy, near], one, "spread") is near


def test_without_room_anywhere_it_waits_where_the_least_is_going_on():
    busy, calm = device("a", taken=95), device("b", taken=95)
    busy.ready["x"] = busy.copy_of(model(name="x"))
    assert placement.choose([busy, calm], model(), "spread") is calm


def test_a_device_whose_worker_does_not_start_is_left_alone_while_there_is_another():
    ill, well = device("ill"), device("well", taken=50)
    one = model()
    ill.staff.worker_for(one).error = "exit code 1"
    assert placement.choose([ill, well], one, "spread") is well
    assert placement.choose([ill], one, "spread") is ill


def test_a_second_copy_goes_to_an_idle_device_with_room_or_nowhere():
    one = model()
    first, second = device("first"), device("second")
    first.copy_of(one).place = Place.RESIDENT
    assert placement.second_home([first, second], one) is second
    second.leaving.add("somebody")
    assert placement.second_home([first, second], one) is None
    assert placement.second_home([first, device("full", taken=95)], one) is None


def test_what_a_runtime_takes_is_not_for_its_models_but_a_guess_excludes_nothing():
    one = model(size=150, format="torchscript", framework="torch", owner="ann")
    cpu = device("cpu", budget=400, frameworks=frozenset({"torch"}))
    assert cpu.most_for(one) == 200 * MIB, "half of the budget, as long as nobody has measured it"
    worker = cpu.staff.worker_for(one)
    worker.base_bytes, worker.is_measured = 300 * MIB, True
    assert cpu.most_for(one) == 100 * MIB
    assert cpu.most_for(model()) == 400 * MIB, "a shared worker's models are not charged for it"


# ── who waits ────────────────────────────────────────────────────────────────────────────────────────────────


def waiting(name: str, payer: str, framework: str = "onnx") -> Model:
    one = model(name=name, framework=framework)
    one.queue.push(Ticket(1, name, payer, 9.0, b""))
    return one


def test_nobodys_many_models_are_in_front_of_everybodys():
    wanted = Wanted()
    for number in range(500):
        wanted.add(waiting(f"flood-{number}", "greedy"), "")
    wanted.add(waiting("mine", "modest"), "")
    wanted.add(waiting("theirs", "greedy", "torch"), "ann")
    looked_at = [one.key for one in wanted.first()]
    assert looked_at[0] == "flood-0" and "mine" in looked_at and "theirs" in looked_at and len(looked_at) < 10


def test_a_group_that_got_its_load_goes_behind_the_others():
    wanted = Wanted()
    for name, payer in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        wanted.add(waiting(name, payer), "")
    wanted.discard("a1")
    assert [one.key for one in wanted.first()] == ["b1", "a2"]
    wanted.discard("never there")
    wanted.discard("a2")
    wanted.discard("b1")
    assert len(wanted) == 0 and not list(wanted.first()) and "a1" not in wanted


def test_whose_turn_it_is_is_known_of_models_without_calls_too():
    wanted, turns = Wanted(), Turns()
    wanted.add(model(name="ordered"), "")
    assert [one.queue.first_payer for one in wanted.first()] == [""]
    assert turns.clock("") == 0.0
