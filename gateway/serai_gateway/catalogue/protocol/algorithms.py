"""What there is, as the gateway asks for it: algorithms, their versions, and which of them a caller gets."""

from collections.abc import Mapping
from typing import Any, Protocol

from serai_gateway.catalogue.records import (
    Account,
    Algorithm,
    ContentInUse,
    NewVersion,
    Page,
    Version,
    VersionPage,
    Visibility,
)
from serai_gateway.catalogue.rules import PAGE_SIZE
from serai_gateway.versions import Increment


class AlgorithmsAndVersions(Protocol):
    # algorithms and versions

    def ensure_algorithm(
        self, owner: Account, name: str, visibility: Visibility = "private", tagline: str = ""
    ) -> Algorithm:
        """The algorithm of this name, made if there is none (only then the other arguments count). Once per name."""
        ...

    def create_algorithm(
        self,
        owner: Account,
        name: str,
        *,
        tagline: str = "",
        details: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        algorithm_id: str | None = None,
    ) -> Algorithm:
        """A new private algorithm, with this id if one is given. Raises Taken, InvalidName, NotFound."""
        ...

    def find_algorithm(self, owner: str, name: str, caller: Account | None) -> Algorithm:
        """Raises NotFound, alike for one that is private and one that does not exist."""
        ...

    def algorithm_by_id(self, algorithm_id: str, caller: Account | None) -> Algorithm:
        """Raises NotFound, as `find_algorithm`."""
        ...

    def name_of_algorithm(self, algorithm_id: str) -> tuple[str, str] | None:
        """Owner and name, whoever may see it; None when there is no such algorithm."""
        ...

    def set_algorithm(
        self,
        algorithm: Algorithm,
        *,
        visibility: Visibility | None = None,
        tagline: str | None = None,
        details: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Algorithm:
        """What is given is changed; of `details` and `settings` the keys that are there. Raises NotFound."""
        ...

    def set_routing(self, algorithm: Algorithm, routing: tuple[tuple[str, int], ...]) -> Algorithm:
        """From now on calls that say `latest` or no version are divided like this, whatever is published; () clears it.

        Raises NotFound, traffic.InvalidRouting, versions.InvalidVersion.
        """
        ...

    def delete_algorithm(self, algorithm: Algorithm, *, even_if_public: bool = False) -> None:
        """It and all that belongs to it, or nothing. Raises NotFound, and InUse while a version is public."""
        ...

    def list_algorithms(
        self,
        caller: Account | None,
        *,
        owner: str | None = None,
        query: str = "",
        limit: int = PAGE_SIZE,
        marker: str | None = None,
    ) -> Page:
        """What the caller may see, by owner and name. `query`: words, all of which occur in owner, name or tagline."""
        ...

    def find_version(self, owner: str, name: str, wanted: str | None, caller: Account | None) -> Version:
        """What a call of `owner/name/wanted` runs. Raises NotFound, and versions.InvalidVersion for nonsense."""
        ...

    def find_versions(
        self, owner: str, name: str, wanted: str | None, caller: Account | None
    ) -> tuple[tuple[Version, int], ...]:
        """All that such calls run, with the part of each in percent: several where a routing divides them.

        Raises as `find_version`, which gives the one with the largest part.
        """
        ...

    def find_build_version(self, algorithm: Algorithm, hash: str) -> Version:
        """What was built from a commit; if it was published several times, the last public one. Raises NotFound."""
        ...

    def list_versions(
        self,
        algorithm: Algorithm,
        *,
        public_only: bool = False,
        published: bool | None = None,
        limit: int = PAGE_SIZE,
        marker: str | None = None,
    ) -> VersionPage:
        """Newest first; `published`: those with a number, or those without. Raises NotFound for a strange marker."""
        ...

    def versions_of(self, algorithm: Algorithm, *, public_only: bool = False) -> tuple[Version, ...]:
        """Newest first."""
        ...

    def kept_versions(self) -> tuple[Version, ...]:
        """Of each algorithm, what its owner calls without naming a version, where that keeps replicas without calls."""
        ...

    def content_in_use(self) -> ContentInUse:
        """What versions refer to, all of them."""
        ...

    def add_version(self, algorithm: Algorithm, new: NewVersion) -> Version:
        """Make a finished build callable by its hash. Once per hash."""
        ...

    def publish_version(
        self,
        version: Version,
        number: Increment | str = "next",
        *,
        public: bool = True,
        first: str | None = None,
        request_key: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Version:
        """Give a build its number, in one transaction; a public one makes its algorithm public.

        Args:
            number: what to increment, or the number itself; "next" increments what has to be for what has changed.
            first: the number if nothing was published before.
            request_key: repeating a request with the same key gives the same answer.
            details: release_notes, sample_input, sample_output, and settings besides those of the algorithm.

        Raises:
            AlreadyPublished: this build has a number, or the number has a build.
            BreaksPromise: the number is too small for what has changed, see `releases`.
            NotFound: the algorithm has been deleted.
        """
        ...

    def publish_latest(
        self,
        algorithm: Algorithm,
        number: Increment | str,
        *,
        public: bool,
        details: Mapping[str, Any] | None = None,
        tagline: str | None = None,
        texts: Mapping[str, Any] | None = None,
    ) -> Version:
        """Publish what the last build that succeeded has made, also if the same commit was published before that build.

        With it, or not at all, the algorithm changes for the versions to come: `tagline`, `texts` as its details, and
        the settings in `details`.

        Raises as `publish_version`; AlreadyPublished if nothing was built since, NotFound if nothing ever was.
        """
        ...

    def repeat_version(self, version: Version) -> Version:
        """The same code under a new hash, to be published once more. Once for each number that is newest by then."""
        ...

    def deprecate_version(self, version: Version, message: str | None) -> Version:
        """What callers of a published version are told from now on; None: nothing any more. Raises NotFound."""
        ...
