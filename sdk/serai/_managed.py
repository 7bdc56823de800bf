"""What may be done with an algorithm besides calling it, and with accounts; the questions are in `_algorithm_asks`."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from serai import _account_asks, _algorithm_asks
from serai._account_asks import Kind
from serai._records import (
    AlgorithmDetails,
    Build,
    CallError,
    Commit,
    Key,
    Member,
    Organization,
    Secret,
    Share,
    User,
    Version,
)
from serai._requests import Reference

if TYPE_CHECKING:
    from serai._client import Client


class ManagedAlgorithm:
    """All raise ApiError where the server refuses: NotFound, Forbidden, Conflict, InvalidRequest say why."""

    reference: Reference
    _client: "Client"

    @property
    def git_url(self) -> str:
        """Where git clones it from and pushes it to; the password is an API key."""
        return f"{self._client.settings.address}/git/{self.reference.owner}/{self.reference.name}.git"

    def info(self) -> AlgorithmDetails:
        """All about it, with the version that this reference means."""
        return self._client._ask(_algorithm_asks.info(self.reference))

    def create(
        self, label: str | None = None, *, tagline: str | None = None, summary: str | None = None, **settings: Any
    ) -> AlgorithmDetails:
        """Make it, with a repository that holds a working example. A push to `git_url` makes it, too.

        Args:
            label: what people read above it (the name), 200 characters at most.
            settings: language ("python3"), source_visibility ("open", "closed"), license ("apl", "apache2", "gpl3",
                "mit"), network_access ("isolated", "full"), pipeline_enabled (may call others).
        """
        fields = {"label": label, "tagline": tagline, "summary": summary, **settings}
        return self._client._ask(_algorithm_asks.create(self.reference, fields))

    def update(
        self,
        *,
        label: str | None = None,
        tagline: str | None = None,
        summary: str | None = None,
        **settings: Any,
    ) -> AlgorithmDetails:
        """Change what is given. Settings as of `create`; they count for the versions to come."""
        fields = {"label": label, "tagline": tagline, "summary": summary, **settings}
        return self._client._ask(_algorithm_asks.update(self.reference, fields))

    def delete(self) -> None:
        """Remove it with its versions, repository, secrets and logs. A public one only the operator can remove."""
        self._client._ask(_algorithm_asks.delete(self.reference))

    def compile(self) -> Build:
        """Build the head of its default branch, and return when that has ended, with the log.

        A build that failed is returned, too: its `status` says so.
        """
        return self._client._ask(_algorithm_asks.compile_head(self.reference))

    def publish(
        self,
        number: str = "revision",
        *,
        public: bool | None = None,
        notes: str = "",
        sample_input: str = "",
        sample_output: str = "",
    ) -> Version:
        """Give what the last build made its number.

        Args:
            number: which part of the last one goes up: "major", "minor" or "revision".
            public: whether anybody may call it; None: as the algorithm is.
            notes: what is new, 10,000 characters at most.

        Raises:
            ValueError: `number` is none of these.
            Conflict: nothing was built since the last version.
        """
        info = {"release_notes": notes, "sample_input": sample_input, "sample_output": sample_output}
        return self._client._ask(_algorithm_asks.publish(self.reference, number, public, info))

    def versions(self, published: bool | None = None) -> Iterator[Version]:
        """Newest first; `published`: only those with a number, or only those without. Fetches page by page."""
        return self._client._all(partial(_algorithm_asks.versions, self.reference, published))

    def deprecate(self, version: str, message: str) -> Version:
        """Have callers of a version told `message`, one line of at most 500 characters. It still runs."""
        return self._client._ask(_algorithm_asks.deprecate(self.reference, version, message))

    def undeprecate(self, version: str) -> None:
        self._client._ask(_algorithm_asks.undeprecate(self.reference, version))

    def routing(self) -> tuple[Share, ...]:
        """How the calls that name no version are divided; empty: they all go to the newest public version."""
        return self._client._ask(_algorithm_asks.routing(self.reference))

    def route(self, shares: dict[str, int]) -> tuple[Share, ...]:
        """Divide them: version to percent, 100 together, of 1 to 10 public versions."""
        return self._client._ask(_algorithm_asks.route(self.reference, shares))

    def route_to_newest(self) -> None:
        """Divide them no more: each public version gets them all as soon as it is published."""
        self._client._ask(_algorithm_asks.route_to_newest(self.reference))

    def canary(self, version: str, percent: int) -> tuple[Share, ...]:
        """Give a version 1 to 99 percent of them, and the rest to what most of them run now."""
        return self._client._converse(_algorithm_asks.canary(self.reference, version, percent))

    def rollback(self, version: str | None = None) -> tuple[Share, ...]:
        """Send them all to a version; left out: to the public one before the newest that any of them run now."""
        return self._client._converse(_algorithm_asks.rollback(self.reference, version))

    def builds(self) -> Iterator[Build]:
        """Newest first. Fetches page by page."""
        return self._client._all(partial(_algorithm_asks.builds, self.reference))

    def build_log(self, build: str) -> str:
        """What a build said, by its id; there when it has ended."""
        return self._client._ask(_algorithm_asks.build_log(self.reference, build))

    def commits(self) -> tuple[Commit, ...]:
        """Of the default branch, newest first."""
        return self._client._ask(_algorithm_asks.commits(self.reference))

    def secrets(self) -> tuple[Secret, ...]:
        """Without their values, which nobody gets but the algorithm."""
        return self._client._ask(_algorithm_asks.secrets(self.reference))

    def set_secret(self, key: str, value: str, *, name: str | None = None, description: str | None = None) -> Secret:
        """Make or change a variable that the algorithm sees from its next call on.

        Args:
            key: name of the variable: a letter or _, then letters, digits and _, 128 at most.
            value: 8 KiB of text at most.
            name: what people call it (the key); with `description`, kept where it is left out.
        """
        return self._client._converse(_algorithm_asks.set_secret(self.reference, key, value, name, description))

    def delete_secret(self, key: str) -> None:
        self._client._converse(_algorithm_asks.delete_secret(self.reference, key))

    def errors(self) -> tuple[CallError, ...]:
        """Calls that failed in the last seven days, newest first, 200 at most."""
        return self._client._ask(_algorithm_asks.errors(self.reference))


class _Keyholder:
    def __init__(self, client: "Client", kind: Kind, name: str) -> None:
        self._client = client
        self._kind: Kind = kind
        self.name = name

    def delete(self) -> None:
        """What belongs to it, algorithms above all, must go before."""
        self._client._ask(_account_asks.delete(self._kind, self.name))

    def keys(self) -> tuple[Key, ...]:
        """Those that count, without their text."""
        return self._client._ask(_account_asks.keys(self._kind, self.name))

    def create_key(self, label: str = "", *, manage: bool = True, algorithms: Sequence[str] = ()) -> Key:
        """Make a key, which may do no more than yours. Its `text` is in this answer and nowhere else.

        Args:
            label: what it is for, one line.
            manage: whether it may push, publish and the like, or call only.
            algorithms: which it may call: `OWNER/NAME/*` or `OWNER/*`, 100 at most; left out: as your key.
        """
        return self._client._ask(_account_asks.create_key(self._kind, self.name, label, manage, algorithms))

    def revoke_key(self, key: str) -> None:
        """By its id. It is refused from now on."""
        self._client._ask(_account_asks.revoke_key(self._kind, self.name, key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class UserHandle(_Keyholder):
    """A user of the server; `me` is whoever asks."""

    def __init__(self, client: "Client", name: str) -> None:
        super().__init__(client, "users", name)

    def info(self) -> User:
        return self._client._ask(_account_asks.user(self.name))

    def create(self, email: str, fullname: str = "") -> User:
        """Make it; the operator only. It can do nothing before it has a key."""
        return self._client._ask(_account_asks.create_user(self.name, email, fullname))


class OrganizationHandle(_Keyholder):
    """An organization: what its members work on together."""

    def __init__(self, client: "Client", name: str) -> None:
        super().__init__(client, "organizations", name)

    def info(self) -> Organization:
        return self._client._ask(_account_asks.organization(self.name))

    def create(self, label: str, *, contact: str, email: str, url: str = "") -> Organization:
        """Make it, with you as its first owner. `contact`: a person's name."""
        fields = {"label": label, "contact_name": contact, "email": email, "url": url}
        return self._client._ask(_account_asks.create_organization(self.name, fields))

    def members(self) -> Iterator[Member]:
        return self._client._all(partial(_account_asks.members, self.name))

    def set_member(self, user: str, role: str = "member") -> None:
        """Add somebody, or change a role: "owner" decides for the organization, "member" works on what it has."""
        self._client._ask(_account_asks.set_member(self.name, user, role))

    def remove_member(self, user: str) -> None:
        self._client._ask(_account_asks.remove_member(self.name, user))
