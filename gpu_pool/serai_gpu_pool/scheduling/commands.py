"""What operators and owners ask of single models: in memory, out of it, kept there, free to go. Pure.

Owners of versions with the same file share the model. One of them can only release it: what an operator keeps there
stays, and so does what the others use. A command is done when it is so, not when it was heard; one that cannot become
so by its deadline says why.
"""

from dataclasses import dataclass
from typing import Any, Literal

from serai_gpu_pool.core import End, Refused
from serai_gpu_pool.scheduling import admission
from serai_gpu_pool.scheduling.copies import Copy, Place
from serai_gpu_pool.scheduling.devices import Device, all_copies
from serai_gpu_pool.scheduling.model import Model

Verb = Literal["load", "unload", "pin", "unpin", "release"]

#: So long after its last use a model counts as used. Short enough that an owner who tries again gets the memory back.
_IN_USE_S = 60.0


@dataclass(slots=True)
class Order:
    """One command for one model, until it is carried out."""

    id: int
    verb: Verb
    deadline: float
    link: Any  # whoever gets the answer
    owner: str = ""  # of the version that is meant
    model: Model | None = None
    going: set[str] | None = None  # devices that the model still has to leave


#: None: it is so. Else why it cannot become so; `WAIT`: not yet.
Verdict = End | None
WAIT = Refused("busy", "not yet")
_PINNED = Refused("invalid", "an operator keeps this model in memory (pin); only an operator can unload it")
_EXPIRED = Refused(
    "deadline", "it could not be done in time: the model is in use, or others need the memory", retriable=True
)


class Orders:
    """Those that are not carried out yet."""

    __slots__ = ("_devices", "_waiting")

    def __init__(self, devices: dict[str, Device]) -> None:
        self._devices = devices
        self._waiting: list[Order] = []

    def add(self, order: Order, model: Model, now: float) -> None:
        _begin(order, model, now)
        self._waiting.append(order)

    def moments(self) -> list[float]:
        return [order.deadline for order in self._waiting]

    def settle(self, now: float) -> list[tuple[Order, End | None]]:
        """Those that are carried out by now, or cannot be, with the reason."""
        if not self._waiting:
            return []
        settled: list[tuple[Order, End | None]] = []
        waiting: list[Order] = []
        for order in self._waiting:
            end = self._state_of(order, now)
            if end is WAIT:
                waiting.append(order)
                continue
            settled.append((order, end))
            if end is not None:
                _give_up(order)
        self._waiting = waiting
        return settled

    def _state_of(self, order: Order, now: float) -> Verdict:
        devices = list(self._devices.values())
        end = _state_of(order, devices, now)
        if end is WAIT and order.model is not None and order.verb in ("load", "pin"):
            return admission.no_device(order.model, devices, now) or WAIT
        return end


def _begin(order: Order, model: Model, now: float) -> None:
    order.model = model
    if order.verb == "pin":
        model.pinned = True
    elif order.verb == "unpin":
        model.pinned = False
    if order.verb in ("load", "pin"):
        model.used_for(order.owner, now)
        model.wanted_until = max(model.wanted_until, order.deadline)
        if not model.waiting_since or not len(model.queue):
            model.waiting_since = now
    elif order.verb == "unload":
        model.wanted_until, model.pinned = 0.0, False


def _state_of(order: Order, devices: list[Device], now: float) -> Verdict:
    """How far a command has come, and what it does on the way."""
    model = order.model
    assert model is not None, "begun before"
    if order.verb == "unpin":
        return None
    copies = all_copies(devices, model.key)
    if order.verb == "release" and model.pinned:
        return _PINNED
    if order.verb in ("unload", "release"):
        here = {device.id for device, copy in copies if copy.place not in (Place.DISK, Place.HOST)}
        order.going = here if order.going is None else order.going & here  # who calls it meanwhile may bring it back
        if not order.going or (order.verb == "release" and now < model.used_by_others_at(order.owner) + _IN_USE_S):
            return None
        for device, copy in copies:
            if device.id in order.going and (order.verb == "unload" or not _is_awaited(copy)):
                device.evict(copy, "requested", now)
    elif any(copy.takes_batches for _, copy in copies):
        model.wanted_until = 0.0
        return None
    elif model.verdict is not None and model.is_held_back(now):
        return model.verdict.end
    return _EXPIRED if now >= order.deadline else WAIT


def _is_awaited(copy: Copy) -> bool:
    """It was loaded for calls, perhaps of others, and has not run any."""
    return copy.is_unused and bool(len(copy.model.queue))


def _give_up(order: Order) -> None:
    model = order.model
    if model is None:
        return
    if order.verb in ("load", "pin"):
        model.wanted_until = 0.0
    if order.verb == "pin":
        model.pinned = False
