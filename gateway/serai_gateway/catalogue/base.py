"""The catalogue: who there is, what there is, and which version of it a caller gets.

`Catalogue` is what the gateway relies on; `sql.py` is one implementation. All methods are synchronous and may be
called from any thread. Every write that can be retried says which of its arguments makes it happen once.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from serai_gateway.catalogue.errors import InvalidName
from serai_gateway.catalogue.records import (
    Account,
    AccountKind,
    AccountPage,
    Algorithm,
    Build,
    BuildStatus,
    Caller,
    CallError,
    ContentInUse,
    InsightPage,
    Key,
    ListedError,
    Member,
    MemberPage,
    NewKey,
    NewVersion,
    Page,
    Permissions,
    Reported,
    Role,
    Secret,
    SecretsOf,
    Version,
    VersionPage,
    Visibility,
)
from serai_gateway.versions import Increment

#: Entries on a page unless asked otherwise, as Algorithmia had it; and the most one may ask for.
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

#: Longest build log kept, in characters. The builder cuts it before; here it is a wall.
MAX_LOG_CHARS = 1 << 20

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
#: What ids look like. A name like that would be taken for one, perhaps for somebody else's.
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\Z", re.IGNORECASE)


def check_name(name: str, what: str = "name") -> str:
    """`name` itself. Raises InvalidName unless it may name an account or an algorithm."""
    if not _NAME.match(name):
        raise InvalidName(
            f"{name[:70]!r} is not a valid {what}: a letter, then letters, digits, '-' and '_', 64 in all at most"
        )
    if _ID.match(name):
        raise InvalidName(f"{name!r} is not a valid {what}: it looks like an id; take another one")
    return name


def may_manage(caller: Account | None, owner: Account) -> bool:
    """Whether `caller` sees and changes what belongs to `owner`: push, compile, publish privately, secrets, logs."""
    return may_administer(caller, owner) or (caller is not None and belongs_to(caller, owner.id))


def may_administer(caller: Account | None, owner: Account) -> bool:
    """Whether `caller` decides for `owner`: publish publicly, route, delete, say who belongs to it."""
    if caller is None:
        return False
    return (
        caller.kind == "operator"
        or caller.id in (owner.id, owner.owner_id)
        or dict(caller.memberships).get(owner.id) == "owner"
    )


def belongs_to(caller: Account, owner_id: str) -> bool:
    """`may_manage`, for one who was loaded as a caller, of an owner whose id is all that is known."""
    return caller.kind == "operator" or caller.id == owner_id or owner_id in dict(caller.memberships)


class Catalogue(Protocol):
    def generation(self) -> int:
        """A cheap number (microseconds) that changes whenever anybody, in any process, has changed accounts, keys,
        algorithms or versions. While it stands still, what was read before is still true."""
        ...

    # accounts

    def ensure_operator(self, key_text: str) -> Account:
        """The operator's account, made if there is none, with this key. Once per key text."""
        ...

    def ensure_account(self, name: str, kind: AccountKind = "user", owner: Account | None = None) -> Account:
        """The account of this name, made if there is none. Once per name. Raises Taken, InvalidName."""
        ...

    def create_account(self, name: str, profile: Mapping[str, str]) -> Account:
        """A new user. Raises Taken, also for the name of an account that was deleted; InvalidName."""
        ...

    def account_named(self, name: str) -> Account:
        """Raises NotFound."""
        ...

    def account_by_id(self, account_id: str) -> Account:
        """Raises NotFound."""
        ...

    def list_accounts(self, *kinds: AccountKind, limit: int = PAGE_SIZE, marker: str | None = None) -> AccountPage:
        """By name, without their memberships."""
        ...

    def set_profile(self, account: Account, changes: Mapping[str, str]) -> Account:
        """What it says of itself; what is not named stays. Raises NotFound."""
        ...

    def delete_account(self, account: Account) -> None:
        """From now on nobody comes in with its keys. Its name stays taken for good.

        Raises:
            NotFound: it is gone already.
            InUse: it still has algorithms, manages organizations, or is the operator's.
            LastOwner: an organization would be left without an owner.
        """
        ...

    # organizations

    def create_organization(self, name: str, owner: Account, profile: Mapping[str, str]) -> Account:
        """A new organization and its first owner. Raises Taken, InvalidName, TooMany; NotFound unless `owner` is a
        person who is still there."""
        ...

    def members_of(self, organization: Account, *, limit: int = PAGE_SIZE, marker: str | None = None) -> MemberPage:
        """By name, owners among them."""
        ...

    def owners_of(self, organization: Account) -> tuple[str, ...]:
        """Ids of the accounts that decide for it."""
        ...

    def set_member(self, organization: Account, account: Account, role: Role | None = None) -> Member:
        """Make `account` belong to it, or change its role; None: as it is, and a member if it is new.

        Raises:
            NotFound: one of them is gone, or `account` is itself an organization.
            LastOwner: nobody else owns it.
            TooMany: the account belongs to as many as it may.
        """
        ...

    def remove_member(self, organization: Account, account: Account) -> None:
        """Raises NotFound for who does not belong to it; LastOwner."""
        ...

    # keys

    def create_key(
        self, account: Account, label: str, permissions: Permissions | None = None, text: str | None = None
    ) -> NewKey:
        """A key for `account`. Once per text, for a caller who chose the text (see `keys.new_key_text`).

        Raises TooMany; NotFound when the account is gone.
        """
        ...

    def keys_of(self, account: Account) -> tuple[Key, ...]: ...

    def revoke_key(self, account: Account, key_id: str) -> Key:
        """From now on nobody comes in with it. Again: the same answer. Raises NotFound."""
        ...

    def caller_of_key(self, key_text: str) -> Caller | None:
        """Who holds this key; None when nobody does, or it is revoked."""
        ...

    def account_of_key(self, key_text: str) -> Account | None: ...

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

    def close(self) -> None: ...
