"""Who may have how many replica processes, and whose place is freed for whom. Pure."""

from collections.abc import Iterable

from serai_runner.scheduling.calls import ReplicaState
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings


class Places:
    """The places for processes of one host: so many in all, and so many for the versions of one owner.

    Args:
        replicas: the scheduler's, by id; only read here.
    """

    def __init__(self, settings: Settings, replicas: dict[int, ReplicaState]) -> None:
        self._settings = settings
        self._replicas = replicas
        self._wanting: dict[str, VersionState] = {}  # versions that wait for a place, in order of need

    def has_room_for(self, version: VersionState) -> bool:
        """Calls that others wait for may go beyond the number: those others hold places until they are answered."""
        extra = version.queue.deepest
        return self._has_room(extra) and not self._is_at_share(version.spec.owner, extra)

    def want(self, version: VersionState) -> None:
        self._wanting[version.spec.key] = version

    def unwant(self, version: VersionState) -> None:
        self._wanting.pop(version.spec.key, None)

    def wanted_by(self) -> list[VersionState]:
        """Versions that wait for a place, in order; forgets those that no longer wait."""
        for version in list(self._wanting.values()):
            if not version.queue:
                self.unwant(version)
        return list(self._wanting.values())

    def is_wanted(self, replica: ReplicaState) -> bool:
        """Whether the end of this idle replica lets a version start that waits for a place."""
        owner = replica.version.spec.owner
        for version in self._wanting.values():
            if not version.queue:
                continue
            if self._is_at_share(version.spec.owner):
                if version.spec.owner == owner:
                    return True
            elif not self._has_room():
                return True
        return False

    def to_free(self, version: VersionState, versions: Iterable[VersionState]) -> ReplicaState | None:
        """The replica that makes room for `version`: the longest idle one, else one of the version that has most (that
        one answers its calls first). Of the same owner, if that owner holds all that it may. None: nothing to do now.
        """
        candidates = list(self._replicas.values())
        if self._is_at_share(version.spec.owner):
            candidates = [one for one in candidates if one.version.spec.owner == version.spec.owner]
        if any(replica.phase == "doomed" or replica.retired for replica in candidates):
            return None  # a place is being freed
        idle = [one for one in candidates if one.phase == "ready" and not one.in_flight]
        if idle:
            return min(idle, key=lambda replica: replica.idle_since)
        if self._has_room():
            return None  # the owner's other versions are busy: their calls end, or reach their deadlines
        richest = max(versions, key=lambda other: len(other.ready))
        if richest is not version and len(richest.ready) > max(1, len(version.ready)):
            return richest.ready[-1]
        return None

    def idle_for(self, version: VersionState) -> ReplicaState | None:
        """The longest idle replica that nobody asked to keep; of the same owner, if that one holds all it may."""
        idle = [one for one in self._replicas.values() if one.phase == "ready" and not one.in_flight]
        idle = [one for one in idle if not one.version.is_kept]
        if self._is_at_share(version.spec.owner):
            idle = [one for one in idle if one.version.spec.owner == version.spec.owner]
        return min(idle, key=lambda replica: replica.idle_since, default=None)

    def _has_room(self, extra: int = 0) -> bool:
        return len(self._replicas) < self._settings.max_processes + extra

    def _is_at_share(self, owner: str, extra: int = 0) -> bool:
        """Whether the owner's versions hold all the places that they may."""
        held = sum(replica.version.spec.owner == owner for replica in self._replicas.values())
        return held >= self._settings.max_processes_per_owner + extra
