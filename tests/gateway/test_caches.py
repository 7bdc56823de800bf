"""What a worker remembers of the catalogue: never what was true only before the last change that it has seen."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_gateway.caches import LOOK_AGAIN_S, CatalogueCache
from serai_gateway.catalogue import Account, Caller, Catalogue, NewVersion, open_catalogue
from serai_gateway.catalogue.testing import built
from serai_gateway.errors import NotFound
from serai_gateway.settings import Settings
from serai_gateway.vault import open_vault


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = open_catalogue(tmp_path)
    yield catalogue
    catalogue.close()


@pytest.fixture
def alice(catalogue: Catalogue) -> Account:
    return catalogue.ensure_account("alice")


class SlowReader:
    """A catalogue whose look-ups of keys are held up after they have read."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.has_read = threading.Event()
        self.may_answer = threading.Event()

    def generation(self) -> int:
        return self._catalogue.generation()

    def account_named(self, name: str) -> Account:
        return self._catalogue.account_named(name)

    def caller_of_key(self, key: str) -> Caller | None:
        caller = self._catalogue.caller_of_key(key)
        self.has_read.set()
        assert self.may_answer.wait(20)
        return caller


def test_a_look_up_that_was_overtaken_by_a_revocation_is_not_remembered(
    catalogue: Catalogue, alice: Account, tmp_path: Path
) -> None:
    new = catalogue.create_key(alice, "laptop")
    slow = SlowReader(catalogue)
    cache = CatalogueCache(slow, open_vault(tmp_path), Settings(tmp_path))  # pyright: ignore[reportArgumentType]

    async def ask() -> Caller | None:
        overtaken = asyncio.create_task(cache.caller_of_key(new.text))
        await asyncio.to_thread(slow.has_read.wait, 20)
        catalogue.revoke_key(alice, new.key.id)
        cache.forget()
        assert await cache.caller_of_call("nobody", "nobody") is None  # looks, and sees that something has changed
        slow.may_answer.set()
        await overtaken
        return await cache.caller_of_key(new.text)

    assert asyncio.run(ask()) is None


def test_what_a_member_saw_is_not_what_somebody_sees_who_has_left(
    catalogue: Catalogue, alice: Account, tmp_path: Path
) -> None:
    bob = catalogue.ensure_account("bob")
    team = catalogue.create_organization("team", alice, {})
    catalogue.set_member(team, bob)
    key = catalogue.create_key(bob, "laptop").text
    new = NewVersion("1" * 40, "python", {"owner": "team", "name": "secret", "kind": "python"}, "2" * 64)
    secret = catalogue.ensure_algorithm(team, "secret")
    catalogue.publish_version(catalogue.add_version(secret, new), public=False)
    cache = CatalogueCache(catalogue, open_vault(tmp_path), Settings(tmp_path))

    async def ask() -> None:
        before = await cache.caller_of_key(key)
        assert before is not None
        assert (await cache.version("team", "secret", None, before.account))[0].name == "secret"
        catalogue.remove_member(team, bob)
        await asyncio.sleep(LOOK_AGAIN_S * 1.5)
        after = await cache.caller_of_key(key)
        assert after is not None
        await cache.version("team", "secret", None, before.account)  # a request that began when he belonged to it
        with pytest.raises(NotFound):
            await cache.version("team", "secret", None, after.account)

    asyncio.run(ask())


def test_calls_are_divided_anew_each_time_and_logs_are_of_one_version(
    catalogue: Catalogue, alice: Account, tmp_path: Path
) -> None:
    tool = catalogue.create_algorithm(alice, "tool")
    for number in (1, 2):
        catalogue.publish_version(built(catalogue, tool, number), "minor", details={"sample_input": "x" * 1000})
    catalogue.set_routing(tool, (("0.1.0", 75), ("0.2.0", 25)))
    cache = CatalogueCache(catalogue, open_vault(tmp_path), Settings(tmp_path))

    async def ask() -> None:
        got = [(await cache.version("alice", "tool", None, alice))[0] for _ in range(2000)]
        numbers = [version.semver for version in got]
        assert 350 < numbers.count("0.2.0") < 650 and set(numbers) == {"0.1.0", "0.2.0"}
        assert all("sample_input" not in version.details for version in got), "samples are large"
        steady = {(await cache.version("alice", "tool", None, alice, steady=True))[0].semver for _ in range(100)}
        assert steady == {"0.1.0"}
        catalogue.set_routing(tool, (("0.2.0", 100),))
        await asyncio.sleep(LOOK_AGAIN_S * 1.5)
        await cache.caller_of_key("nobody's")  # looks
        assert (await cache.version("alice", "tool", "latest", alice))[0].semver == "0.2.0"
        assert (await cache.version("alice", "tool", None, alice))[0].semver == "0.2.0"

    asyncio.run(ask())
