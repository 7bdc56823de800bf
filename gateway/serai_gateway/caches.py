"""What the gateway remembers of the catalogue, and for how long.

Entries hold while the catalogue's generation stands still. The generation is looked at again when the last look is
older than `LOOK_AGAIN_S`, so a revoked key or a new version is seen within that time, in every worker.
"""

import asyncio
import random
import time
from typing import Any

import msgspec

from serai.ipc.messages import VersionSpec
from serai.ipc.secrets import Secrets
from serai_gateway.build.spec import to_spec
from serai_gateway.catalogue import Account, Caller, Catalogue, Key, Permissions, Version
from serai_gateway.catalogue import NotFound as NotInCatalogue
from serai_gateway.errors import Internal, InvalidRequest, NotFound
from serai_gateway.logs import get_logger
from serai_gateway.settings import Settings
from serai_gateway.traffic import most, pick
from serai_gateway.vault import Unreadable, Vault, open_secrets
from serai_gateway.versions import InvalidVersion

#: How old a look at the generation may be. Far below the 5 s that a revocation may take.
LOOK_AGAIN_S = 0.1

#: Most entries of one kind; past it the cache starts afresh. Keys that do not exist are remembered too.
MAX_ENTRIES = 20_000

#: What a running algorithm may do in the name of who pays. Which of their files it may touch, the data store must say.
_LENT = Permissions(call=True, manage=False, data="none")

Route = tuple[Version, VersionSpec]

_log = get_logger("gateway")


class _Seen:
    """What was read at one generation.

    A read that was on its way when the generation moved may have seen the old state. It writes into the `_Seen` that it
    began with, which nobody looks at any more: a revoked key could otherwise be remembered as a good one.
    """

    def __init__(self, generation: int | None) -> None:
        self.generation = generation
        self.callers: dict[str, Caller | None] = {}
        self.calls: dict[tuple[str, str], Caller | None] = {}
        self.versions: dict[tuple[object, ...], Route] = {}
        self.divided: dict[tuple[object, ...], tuple[tuple[Route, int], ...]] = {}  # with the part of each in percent
        self.names: dict[str, tuple[str, str] | None] = {}  # by the algorithm's id
        self.secrets: dict[str, Secrets] = {}  # by algorithm


class CatalogueCache:
    """Accounts by key and versions by name, as this worker last saw them."""

    def __init__(self, catalogue: Catalogue, vault: Vault, settings: Settings) -> None:
        self._catalogue = catalogue
        self._vault = vault
        self._settings = settings
        self._seen = _Seen(None)
        self._looked_at = 0.0

    async def caller_of_key(self, key: str) -> Caller | None:
        """Who holds this key; None for nobody."""
        if time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            await self._look()
        callers = self._seen.callers
        try:
            return callers[key]
        except KeyError:
            caller = await asyncio.to_thread(self._catalogue.caller_of_key, key)
            _remember(callers, key, caller)
            return caller

    async def caller_of_call(self, payer: str, owner: str) -> Caller | None:
        """Who asks, where an algorithm of `owner` runs for `payer`; None when there is no such payer."""
        if time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            await self._look()
        calls = self._seen.calls
        try:
            return calls[payer, owner]
        except KeyError:
            caller = await asyncio.to_thread(_caller_for, self._catalogue, payer, owner)
            _remember(calls, (payer, owner), caller)
            return caller

    async def version(
        self, owner: str, name: str, wanted: str | None, account: Account, *, steady: bool = False
    ) -> Route:
        """What the owner's routing divides is chosen anew for each call; `steady`: always the one with the most calls.

        Raises NotFound for what is unknown and for what the account may not see, alike.
        """
        # Who asks with all that counts for what is seen: the caller may have been read before the generation moved.
        key = (owner, name, wanted, account.id, account.kind, account.memberships)
        seen = self._seen
        try:
            return seen.versions[key]
        except KeyError:
            pass
        if key in seen.divided:
            return _choose(seen.divided[key], steady)
        try:
            parts = await asyncio.to_thread(self._catalogue.find_versions, owner, name, wanted, account)
        except InvalidVersion as error:
            raise InvalidRequest(str(error)) from error
        except NotInCatalogue as error:
            asked = f"{owner}/{name}" + (f"/{wanted}" if wanted else "")
            raise NotFound(f"algorithm algo://{asked} not found") from error
        routes = tuple((self._route(version), percent) for version, percent in parts)
        if len(routes) == 1:
            _remember(seen.versions, key, routes[0][0])
        else:
            _remember(seen.divided, key, routes)
        return _choose(routes, steady)

    def _route(self, version: Version) -> Route:
        # Samples and notes may have a megabyte, and no call looks at them.
        kept = {"settings": version.details.get("settings", {})}
        return msgspec.structs.replace(version, details=kept), to_spec(version, self._settings.home)

    async def name_of(self, algorithm_id: str) -> tuple[str, str] | None:
        """Owner and name of the algorithm with this id, whoever may see it."""
        names = self._seen.names
        try:
            return names[algorithm_id]
        except KeyError:
            found = await asyncio.to_thread(self._catalogue.name_of_algorithm, algorithm_id)
            _remember(names, algorithm_id, found)
            return found

    async def secrets(self, version: Version) -> Secrets:
        """What its processes are given. Raises NotFound when the algorithm is gone, Internal."""
        secrets = self._seen.secrets
        try:
            return secrets[version.algorithm_id]
        except KeyError:
            pass
        try:
            found = await asyncio.to_thread(open_secrets, self._catalogue, self._vault, version.algorithm_id)
        except NotInCatalogue as error:
            raise NotFound(f"algorithm algo://{version.owner}/{version.name} not found") from error
        except Unreadable as error:  # without them it would fail in some other way, or do something else
            _log.error("an algorithm cannot be called", action="secrets", version=version.key, why=str(error))
            name = f"{version.owner}/{version.name}"
            raise Internal(f"the secrets of {name} cannot be read; its owner may set them again") from None
        _remember(secrets, version.algorithm_id, found)
        return found

    def forget(self) -> None:
        """After a write of our own: the next look starts afresh."""
        self._looked_at = 0.0

    async def _look(self) -> None:
        self._looked_at = time.monotonic()
        generation = await asyncio.to_thread(self._catalogue.generation)
        if generation != self._seen.generation:
            self._seen = _Seen(generation)


def _choose(routes: tuple[tuple[Route, int], ...], steady: bool) -> Route:
    return most(routes) if steady else pick(routes, random.random())  # noqa: S311 - nobody gains by guessing it


def _caller_for(catalogue: Catalogue, payer: str, owner: str) -> Caller | None:
    try:
        account = _without_office(catalogue.account_named(payer))
    except NotInCatalogue:
        return None
    try:
        helpers = _without_office(catalogue.account_named(owner))
    except NotInCatalogue:
        helpers = None
    return Caller(account, Key("", account.id, "a running call", "", _LENT, 0.0, None), helpers)


def _without_office(account: Account) -> Account:
    """An operator may see everything; the algorithm that an operator tries out may not."""
    return msgspec.structs.replace(account, kind="user") if account.kind == "operator" else account


def _remember(entries: dict[Any, Any], key: Any, value: Any) -> None:
    if len(entries) >= MAX_ENTRIES:
        entries.clear()
    entries[key] = value
