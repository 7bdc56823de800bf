"""Deaths of a version's replicas in the middle of calls, and when they are too many to go on as before. Pure.

One caller's input that kills the process is that caller's: others must not be turned away for it. Two callers in a row
who see a crash mean that the version is broken: it backs off, and its author is told.
"""

from collections import OrderedDict

#: Crashes of one payer's calls, with no success of its own between them, that are put up with.
_TOLERATED = 2
#: Pause after the next one; it doubles up to the last.
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 60.0
#: Payers that are remembered per version, the latest ones.
_MAX_PAYERS = 64


class Crashes:
    """Of one version."""

    __slots__ = ("_count", "_of_payer", "_payers", "_until")

    def __init__(self) -> None:
        self._of_payer: OrderedDict[str, int] = OrderedDict()  # crashes in a row
        self._until: dict[str, float] = {}  # until when a payer's calls are refused
        self._count = 0  # in a row, of anybody
        self._payers: set[str] = set()  # whose those were: two are enough to know

    @property
    def are_paused(self) -> bool:
        """Whether some payer's calls may be refused just now."""
        return bool(self._until)

    def succeeded(self, payer: str) -> None:
        if self._of_payer:
            self._count = 0
            self._payers.clear()
            self._of_payer.pop(payer, None)
            self._until.pop(payer, None)

    def crashed(self, payer: str, now: float) -> bool:
        """Whether the whole version should pause: several payers' calls crashed, and none succeeded in between."""
        self._count += 1
        if len(self._payers) < 2:
            self._payers.add(payer)
        mine = self._of_payer[payer] = self._of_payer.pop(payer, 0) + 1
        if len(self._of_payer) > _MAX_PAYERS:
            forgotten, _ = self._of_payer.popitem(last=False)
            self._until.pop(forgotten, None)
        if mine > _TOLERATED:
            self._until[payer] = now + min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(mine - _TOLERATED - 1, 10))
        return self._count > _TOLERATED and len(self._payers) > 1

    def pause_of(self, payer: str, now: float) -> tuple[float, int]:
        """For how long this payer's calls are refused, and after how many crashes; (0, 0): they are not."""
        if not self._until:
            return 0.0, 0
        left_s = self._until.get(payer, 0.0) - now
        return (left_s, self._of_payer.get(payer, 0)) if left_s > 0 else (0.0, 0)
