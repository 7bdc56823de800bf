"""For coroutines what `_managed` is; arguments, limits and errors are told there."""

from collections.abc import AsyncIterator, Sequence
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
    from serai._async_client import AsyncClient


class AsyncManagedAlgorithm:
    """Each method as that of `ManagedAlgorithm`."""

    reference: Reference
    _client: "AsyncClient"

    @property
    def git_url(self) -> str:
        return f"{self._client.settings.address}/git/{self.reference.owner}/{self.reference.name}.git"

    async def info(self) -> AlgorithmDetails:
        return await self._client._ask(_algorithm_asks.info(self.reference))

    async def create(
        self, label: str | None = None, *, tagline: str | None = None, summary: str | None = None, **settings: Any
    ) -> AlgorithmDetails:
        fields = {"label": label, "tagline": tagline, "summary": summary, **settings}
        return await self._client._ask(_algorithm_asks.create(self.reference, fields))

    async def update(
        self,
        *,
        label: str | None = None,
        tagline: str | None = None,
        summary: str | None = None,
        **settings: Any,
    ) -> AlgorithmDetails:
        fields = {"label": label, "tagline": tagline, "summary": summary, **settings}
        return await self._client._ask(_algorithm_asks.update(self.reference, fields))

    async def delete(self) -> None:
        await self._client._ask(_algorithm_asks.delete(self.reference))

    async def compile(self) -> Build:
        return await self._client._ask(_algorithm_asks.compile_head(self.reference))

    async def publish(
        self,
        number: str = "revision",
        *,
        public: bool | None = None,
        notes: str = "",
        sample_input: str = "",
        sample_output: str = "",
    ) -> Version:
        info = {"release_notes": notes, "sample_input": sample_input, "sample_output": sample_output}
        return await self._client._ask(_algorithm_asks.publish(self.reference, number, public, info))

    def versions(self, published: bool | None = None) -> AsyncIterator[Version]:
        return self._client._all(partial(_algorithm_asks.versions, self.reference, published))

    async def deprecate(self, version: str, message: str) -> Version:
        return await self._client._ask(_algorithm_asks.deprecate(self.reference, version, message))

    async def undeprecate(self, version: str) -> None:
        await self._client._ask(_algorithm_asks.undeprecate(self.reference, version))

    async def routing(self) -> tuple[Share, ...]:
        return await self._client._ask(_algorithm_asks.routing(self.reference))

    async def route(self, shares: dict[str, int]) -> tuple[Share, ...]:
        return await self._client._ask(_algorithm_asks.route(self.reference, shares))

    async def route_to_newest(self) -> None:
        await self._client._ask(_algorithm_asks.route_to_newest(self.reference))

    async def canary(self, version: str, percent: int) -> tuple[Share, ...]:
        return await self._client._converse(_algorithm_asks.canary(self.reference, version, percent))

    async def rollback(self, version: str | None = None) -> tuple[Share, ...]:
        return await self._client._converse(_algorithm_asks.rollback(self.reference, version))

    def builds(self) -> AsyncIterator[Build]:
        return self._client._all(partial(_algorithm_asks.builds, self.reference))

    async def build_log(self, build: str) -> str:
        return await self._client._ask(_algorithm_asks.build_log(self.reference, build))

    async def commits(self) -> tuple[Commit, ...]:
        return await self._client._ask(_algorithm_asks.commits(self.reference))

    async def secrets(self) -> tuple[Secret, ...]:
        return await self._client._ask(_algorithm_asks.secrets(self.reference))

    async def set_secret(
        self, key: str, value: str, *, name: str | None = None, description: str | None = None
    ) -> Secret:
        return await self._client._converse(_algorithm_asks.set_secret(self.reference, key, value, name, description))

    async def delete_secret(self, key: str) -> None:
        await self._client._converse(_algorithm_asks.delete_secret(self.reference, key))

    async def errors(self) -> tuple[CallError, ...]:
        return await self._client._ask(_algorithm_asks.errors(self.reference))


class _Keyholder:
    """As `_managed` has it."""

    def __init__(self, client: "AsyncClient", kind: Kind, name: str) -> None:
        self._client = client
        self._kind: Kind = kind
        self.name = name

    async def delete(self) -> None:
        await self._client._ask(_account_asks.delete(self._kind, self.name))

    async def keys(self) -> tuple[Key, ...]:
        return await self._client._ask(_account_asks.keys(self._kind, self.name))

    async def create_key(self, label: str = "", *, manage: bool = True, algorithms: Sequence[str] = ()) -> Key:
        return await self._client._ask(_account_asks.create_key(self._kind, self.name, label, manage, algorithms))

    async def revoke_key(self, key: str) -> None:
        await self._client._ask(_account_asks.revoke_key(self._kind, self.name, key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class AsyncUserHandle(_Keyholder):
    """Each method as that of `UserHandle`."""

    """A user of the server; `me` is whoever asks."""

    def __init__(self, client: "AsyncClient", name: str) -> None:
        super().__init__(client, "users", name)

    async def info(self) -> User:
        return await self._client._ask(_account_asks.user(self.name))

    async def create(self, email: str, fullname: str = "") -> User:
        return await self._client._ask(_account_asks.create_user(self.name, email, fullname))


class AsyncOrganizationHandle(_Keyholder):
    """Each method as that of `OrganizationHandle`."""

    """An organization: what its members work on together."""

    def __init__(self, client: "AsyncClient", name: str) -> None:
        super().__init__(client, "organizations", name)

    async def info(self) -> Organization:
        return await self._client._ask(_account_asks.organization(self.name))

    async def create(self, label: str, *, contact: str, email: str, url: str = "") -> Organization:
        fields = {"label": label, "contact_name": contact, "email": email, "url": url}
        return await self._client._ask(_account_asks.create_organization(self.name, fields))

    def members(self) -> AsyncIterator[Member]:
        return self._client._all(partial(_account_asks.members, self.name))

    async def set_member(self, user: str, role: str = "member") -> None:
        await self._client._ask(_account_asks.set_member(self.name, user, role))

    async def remove_member(self, user: str) -> None:
        await self._client._ask(_account_asks.remove_member(self.name, user))
