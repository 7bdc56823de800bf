"""The tier below the devices: weights kept in RAM, so that coming back costs a copy or nothing. Pure.

Bytes are counted when a copy has left its device and says what it keeps, or from its load on where the device has
copies of its own. Over the budget, those that have left and were used longest ago are closed: they are on disk then.
"""

from collections.abc import Callable

from serai_gpu_pool.scheduling.copies import Copy, Place, WorkerId


class HostTier:
    __slots__ = ("_held", "budget", "used")

    def __init__(self, budget_bytes: int) -> None:
        self.budget = budget_bytes
        self.used = 0
        self._held: dict[tuple[WorkerId, str], Copy] = {}  # the longest here first

    def hold(self, copy: Copy) -> None:
        self._held[copy.worker, copy.key] = copy
        self.used += copy.kept_bytes

    def release(self, copy: Copy) -> None:
        """What it keeps is not counted any more. Nothing happens when it was not."""
        if self._held.pop((copy.worker, copy.key), None) is not None:
            self.used -= copy.kept_bytes

    def kept_by(self, worker: WorkerId) -> int:
        """Bytes of models that were paged out in this worker."""
        return sum(copy.kept_bytes for copy in self._held.values() if copy.worker == worker)

    def surplus(self, may_go: Callable[[Copy], bool]) -> list[Copy]:
        """Whom to close to be within the budget again."""
        if self.used <= self.budget:
            return []
        over = (
            self.used - self.budget - sum(one.kept_bytes for one in self._held.values() if one.place is Place.LEAVING)
        )
        going: list[Copy] = []
        for copy in sorted(self._held.values(), key=lambda one: one.last_used):
            if over <= 0:
                break
            if copy.place is Place.HOST and may_go(copy):
                going.append(copy)
                over -= copy.kept_bytes
        return going

    def check_integrity(self) -> None:
        if self.used != sum(copy.kept_bytes for copy in self._held.values()):
            raise AssertionError("the host tier's sum does not match its entries")
