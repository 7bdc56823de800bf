"""What belongs to algorithms, as the gateway asks for it: builds, secrets, errors of calls, insights."""

from collections.abc import Collection, Sequence
from typing import Protocol

from serai_gateway.catalogue.records import (
    Algorithm,
    Build,
    BuildStatus,
    CallError,
    InsightPage,
    ListedError,
    Reported,
    Secret,
    SecretsOf,
)
from serai_gateway.catalogue.rules import PAGE_SIZE


class Belongings(Protocol):
    # builds

    def start_build(self, algorithm: Algorithm, hash: str, builder: str, build_id: str | None = None) -> Build:
        """Record that a build has begun. Once per build_id, where one is given."""
        ...

    def finish_build(self, build_id: str, status: BuildStatus, log: str) -> Build:
        """Record how it ended. The first end counts: a later one changes nothing."""
        ...

    def find_build(self, build_id: str) -> Build:
        """Raises NotFound."""
        ...

    def builds_of(self, algorithm: Algorithm, limit: int = PAGE_SIZE, marker: str | None = None) -> tuple[Build, ...]:
        """Newest first, without their logs; after the one with the id `marker`. Raises NotFound for a strange one."""
        ...

    def builds_of_commits(
        self, algorithm: Algorithm, commits: Collection[str], *, with_logs: bool = False
    ) -> dict[str, Build]:
        """By commit, the newest build of each, of those that succeeded where one has."""
        ...

    def running_builds(self) -> tuple[Build, ...]: ...

    # secrets

    def secrets_of(self, algorithm_id: str) -> SecretsOf:
        """Raises NotFound when the algorithm is gone."""
        ...

    def add_secret(self, secret: Secret) -> Secret:
        """Once per id; its times are set here.

        Raises:
            Taken: the algorithm has one of this key or this short name.
            TooMany: there is no room for another one.
            NotFound: the algorithm is gone.
        """
        ...

    def change_secret(self, secret: Secret) -> Secret:
        """Raises NotFound, Taken, TooMany."""
        ...

    def remove_secret(self, algorithm_id: str, secret_id: str) -> None:
        """Raises NotFound."""
        ...

    def all_secrets(self) -> tuple[Secret, ...]: ...

    def reseal_secret(self, secret: Secret, sealed: bytes) -> None:
        """The same value, encrypted anew; nothing where it has been changed since it was read."""
        ...

    # what calls leave behind; changes none of which moves the generation

    def add_call_errors(self, errors: Sequence[CallError]) -> None:
        """Of each algorithm the newest 200 are kept, for seven days; of algorithms that are gone none."""
        ...

    def errors_of_algorithm(self, algorithm_id: str, caller: str | None = None) -> tuple[ListedError, ...]:
        """Newest first; with `caller`, an account's name, those of its calls alone."""
        ...

    def errors_of_owner(self, owner_id: str) -> tuple[ListedError, ...]:
        """The newest 200 of all its algorithms, newest first."""
        ...

    def forget_old_call_errors(self) -> None: ...

    def add_insights(self, reports: Sequence[Reported]) -> int:
        """How many were kept: those of versions that were published with `insights_enabled`. Of each algorithm the
        newest 10,000."""
        ...

    def insights_of(self, algorithm_id: str, *, limit: int = PAGE_SIZE, marker: str | None = None) -> InsightPage:
        """Newest first. A marker that is none of this list's raises ValueError."""
        ...
