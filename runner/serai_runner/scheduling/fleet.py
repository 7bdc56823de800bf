"""Which replicas there are: started when calls wait, ended when idle, broken or in the way. Pure.

It never looks into calls, but for how many wait and how deep they are; the scheduler moves those.
"""

import math
from collections.abc import Callable, Iterable

from serai_runner.scheduling.calls import Doom, Ending, ReplicaState
from serai_runner.scheduling.effects import Effects
from serai_runner.scheduling.figures import Figures
from serai_runner.scheduling.places import Places
from serai_runner.scheduling.version import VersionState
from serai_runner.settings import Settings

#: A queue that was not empty for this long, or is estimated to take longer, wants another replica. About what a
#: start costs: a shorter burst is over before a new replica could help.
SCALE_WAIT_S = 0.05

#: A replica that is to be kept and finds no place is tried again after this.
_KEEP_RETRY_S = 1.0

#: (version, now): its waiting calls must be told that no replica will come for now.
OnUnstartable = Callable[[VersionState, float], None]


class Fleet:
    """Owns the replicas of a host. `wake_at` is when `tick` must be called at the latest."""

    def __init__(
        self,
        effects: Effects,
        settings: Settings,
        figures: Figures,
        versions: dict[str, VersionState],
        on_unstartable: OnUnstartable,
    ) -> None:
        self.replicas: dict[int, ReplicaState] = {}
        self.wake_at = math.inf
        self._effects = effects
        self._settings = settings
        self._figures = figures
        self._versions = versions
        self._on_unstartable = on_unstartable
        self._places = Places(settings, self.replicas)
        self._serial = 0

    def wake(self, at: float) -> None:
        if at < self.wake_at:
            self.wake_at = at

    # How many there should be

    def ensure(self, version: VersionState, now: float) -> None:
        """Start a replica if one is missing. One at a time: its arrival decides about the next."""
        if version.starting is not None:
            return
        min_depth = self._missing(version, now)
        if min_depth is None:
            return
        if now < version.retry_at:
            self.wake(version.retry_at)
            if not version.ready:
                self._on_unstartable(version, now)
            return
        if self._places.has_room_for(version):
            self._places.unwant(version)
            self._start(version, now, min_depth)
        elif version.queue:
            self._places.want(version)
            replica = self._places.to_free(version, self._versions.values())
            if replica is not None:
                self.retire(replica, "room")
        else:  # it is to be kept, and others hold all places: not those whose calls wait, nor others that are kept
            replica = self._places.idle_for(version)
            if replica is not None:
                self.retire(replica, "room")
            self.wake(now + _KEEP_RETRY_S)

    def _missing(self, version: VersionState, now: float) -> int | None:
        """The `min_depth` of the replica that is missing; None: none is."""
        ready = [replica for replica in version.ready if not replica.retired]
        num_extra = sum(replica.min_depth > 0 for replica in ready)
        num = len(ready) - num_extra
        if not version.queue:
            return 0 if num < self._kept(version) else None
        if num >= self._most(version):
            # (see ReplicaState.min_depth) one more for each level of calls that wait for calls
            return num_extra + 1 if version.queue.deepest > num_extra else None
        if num:
            hurry_at = version.waiting_since + SCALE_WAIT_S
            if now < hurry_at and version.estimated_wait_s(now) < SCALE_WAIT_S:
                self.wake(hurry_at)
                return None
        return 0

    def _most(self, version: VersionState) -> int:
        settings, wanted = self._settings, version.spec.scaling.max_replicas
        return min(wanted, settings.max_replicas) if wanted else min(settings.replicas, settings.max_replicas)

    def _kept(self, version: VersionState) -> int:
        """How many it keeps without calls: what its author asks for, within what all of the owner's may keep."""
        if not version.is_kept:
            return 0
        left = self._settings.max_kept_per_owner
        for other in self._versions.values():
            if other is version:
                break
            if other.is_kept and other.spec.owner == version.spec.owner:
                left -= other.spec.scaling.min_replicas
        return max(0, min(version.spec.scaling.min_replicas, left, self._most(version)))

    def _idle_s(self, version: VersionState) -> float:
        wanted = version.spec.scaling.idle_s
        return min(wanted, self._settings.max_idle_s) if wanted else self._settings.idle_s

    # Their life

    def _start(self, version: VersionState, now: float, min_depth: int) -> None:
        self._serial += 1
        replica = ReplicaState(self._serial, version, now, min_depth)
        self.replicas[replica.id] = replica
        version.starting = replica
        self._figures.starts += 1
        self.wake(now + self._settings.load_s)
        self._effects.start(replica)

    def ready(self, replica: ReplicaState, now: float) -> None:
        version = replica.version
        version.starting = None
        version.started(now - replica.started_at)
        version.ready.append(replica)
        replica.phase = "ready"
        replica.idle_since = replica.last_event = now
        self.wake(now + self._idle_s(version))

    def start_failed(self, replica: ReplicaState, message: str, stacktrace: str, is_platform: bool, now: float) -> None:
        version = replica.version
        version.start_failed(message, stacktrace, is_platform, now)
        self._effects.paused(version, message, version.retry_at - now)
        if not version.ready:
            self._on_unstartable(version, now)

    def gone(self, replica: ReplicaState, ending: Ending, now: float) -> None:
        """Its process has ended. A start that failed is noted; calls that it had are the scheduler's."""
        del self.replicas[replica.id]
        version = replica.version
        was_starting = replica is version.starting
        self._leave(replica)
        self._figures.ends[replica.doom or ("memory" if ending.out_of_memory else "exit")] += 1
        if was_starting:
            self.start_failed(replica, *_start_error(ending, version), ending.is_platform, now)
        elif not replica.doom and replica.num_replies == 0 and not replica.in_flight:
            # Without this a replica that ends by itself after loading would be started again without pause.
            self.start_failed(replica, f"ended right after loading ({ending.how})", ending.output, False, now)

    def fill_places(self, now: float) -> None:
        """A place is free: whoever waits for one. It need not be enough: replicas that were started for calls inside
        calls are beyond an owner's number, and then another one must go."""
        for version in self._places.wanted_by():
            self.ensure(version, now)

    def doom(self, replica: ReplicaState, why: Doom) -> None:
        if replica.phase == "doomed":
            return
        self._leave(replica)
        replica.phase = "doomed"
        replica.doom = why
        self._effects.kill(replica)

    def retire(self, replica: ReplicaState, why: Doom) -> None:
        """End it once it has answered what it has."""
        if not replica.in_flight:
            self.doom(replica, why)
        else:
            replica.retired = why

    def end_longest_idle(self) -> None:
        """One that nobody asked to keep: memory is short."""
        idle = [one for one in self.replicas.values() if one.phase == "ready" and not one.in_flight]
        idle = [one for one in idle if not one.version.is_kept]
        if idle:
            self.doom(min(idle, key=lambda replica: replica.idle_since), "room")

    def became_idle(self, replica: ReplicaState, now: float) -> None:
        replica.idle_since = now
        if replica.phase != "ready":
            return
        if replica.retired:
            self.doom(replica, replica.retired)
        elif self._places.is_wanted(replica):
            self.doom(replica, "room")
        else:
            self.wake(now + self._idle_s(replica.version))

    def keep(self, versions: Iterable[VersionState], now: float) -> None:
        """Those, and no others, have their smallest number from now on."""
        kept = {version.spec.key for version in versions}
        for version in self._versions.values():
            version.is_kept = version.spec.key in kept and version.spec.scaling.min_replicas > 0
            self.ensure(version, now)

    def tick(self, replica: ReplicaState, now: float) -> None:
        """What is due for a replica that has no calls."""
        version = replica.version
        if replica.phase == "starting":
            due = replica.started_at + self._settings.load_s
            if due > now:
                self.wake(due)
                return
            self.start_failed(replica, f"did not finish loading within {self._settings.load_s:g} s", "", False, now)
            self.doom(replica, "load")
        elif replica.phase == "ready":
            due = replica.idle_since + self._idle_s(version)
            if due > now:
                self.wake(due)
            elif len(version.ready) > self._kept(version):
                self.doom(replica, "idle")

    def _leave(self, replica: ReplicaState) -> None:
        """It takes no more calls."""
        version = replica.version
        if version.starting is replica:
            version.starting = None
        elif replica in version.ready:
            version.ready.remove(replica)


def mib(version: VersionState) -> str:
    return f"{version.spec.limits.memory_bytes / (1 << 20):g} MiB"


def _start_error(ending: Ending, version: VersionState) -> tuple[str, str]:
    if ending.is_platform:
        return ending.how, ""
    if ending.out_of_memory:
        return f"memory limit {mib(version)} exceeded while loading", ending.output
    return f"ended while loading ({ending.how})", ending.output
