"""Waiting calls of one version: first come first served within a payer, round robin between payers.

A call that another call waits for goes before its payer's others: a replica is held meanwhile.
"""

from collections import OrderedDict
from collections.abc import Iterator

from serai_runner.scheduling.calls import PendingCall

_Lane = OrderedDict[int, PendingCall]


class FairQueue:
    """Every operation takes constant time, but for `longest_payer`, which looks at each payer once."""

    __slots__ = ("_inner", "_lanes", "_num_calls")

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._inner: dict[int, _Lane] = {}  # calls that other calls wait for, by depth; they are in the lanes, too
        self._num_calls = 0

    def __len__(self) -> int:
        return self._num_calls

    @property
    def num_payers(self) -> int:
        return len(self._lanes)

    @property
    def deepest(self) -> int:
        """How many calls wait for each other above the deepest one here; 0: none has one above it."""
        return max(self._inner, default=0)

    def __iter__(self) -> Iterator[PendingCall]:
        for lane in self._lanes.values():
            yield from lane.values()

    def push(self, call: PendingCall) -> None:
        lane = self._lanes.get(call.payer)
        if lane is None:
            lane = self._lanes[call.payer] = OrderedDict()
        lane[call.serial] = call
        self._num_calls += 1
        if call.depth:
            lane.move_to_end(call.serial, last=False)
            self._inner.setdefault(call.depth, OrderedDict())[call.serial] = call

    def push_front(self, call: PendingCall) -> None:
        """Put back a call that had its turn but was not begun: it and its payer are next."""
        self.push(call)
        self._lanes[call.payer].move_to_end(call.serial, last=False)
        self._lanes.move_to_end(call.payer, last=False)

    def pop(self) -> PendingCall:
        """Raises KeyError when nothing waits."""
        payer, lane = self._lanes.popitem(last=False)
        _, call = lane.popitem(last=False)
        if lane:
            self._lanes[payer] = lane  # to the end: the next payer's turn
        self._num_calls -= 1
        self._leave_inner(call)
        return call

    def pop_inner(self, depth: int) -> PendingCall | None:
        """The longest waiting of the deepest calls, if they are as deep as `depth`."""
        deepest = self.deepest
        if not deepest or deepest < depth:
            return None
        call = next(iter(self._inner[deepest].values()))
        self.remove(call)
        return call

    def remove(self, call: PendingCall) -> bool:
        """Whether the call waited here."""
        lane = self._lanes.get(call.payer)
        if lane is None or lane.pop(call.serial, None) is None:
            return False
        if not lane:
            del self._lanes[call.payer]
        self._num_calls -= 1
        self._leave_inner(call)
        return True

    def position_of(self, call: PendingCall) -> int:
        """Calls that go before this one at most: of its payer those ahead, of each other payer as many."""
        ahead = 0
        for ahead, serial in enumerate(self._lanes.get(call.payer, ())):  # noqa: B007
            if serial == call.serial:
                break
        others = (len(lane) for payer, lane in self._lanes.items() if payer != call.payer)
        return ahead + sum(min(ahead + 1, length) for length in others)

    def num_of(self, payer: str) -> int:
        return len(self._lanes.get(payer, ()))

    def longest_payer(self) -> str:
        return max(self._lanes, key=lambda payer: len(self._lanes[payer]))

    def newest_of(self, payer: str) -> PendingCall:
        lane = self._lanes[payer]
        return lane[next(reversed(lane))]

    def _leave_inner(self, call: PendingCall) -> None:
        lane = self._inner.get(call.depth)
        if lane is not None:
            lane.pop(call.serial, None)
            if not lane:
                del self._inner[call.depth]
