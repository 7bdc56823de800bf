"""What every catalogue does, whatever it is made of."""

import threading

import msgspec
import pytest

from serai_gateway import versions
from serai_gateway.catalogue import AlreadyPublished, CatalogueError, InvalidName, NotFound, Permissions, Taken, keys
from serai_gateway.catalogue.testing import new_version, published


def test_an_account_keeps_its_spelling_and_is_found_in_any(catalogue, alice):
    assert catalogue.account_named("ALICE") == alice == catalogue.ensure_account("alice")
    assert alice.name == "Alice"
    with pytest.raises(NotFound):
        catalogue.account_named("carol")


def test_a_name_belongs_to_one_account(catalogue, alice, operator):
    with pytest.raises(Taken):
        catalogue.ensure_account("alice", "organization", operator)


@pytest.mark.parametrize("name", ["", "a b", "-a", "1a", "a/b", "..", "a" * 65, "a\n", "é", "a\0", "а"])
def test_what_is_no_name_is_refused(catalogue, operator, name):
    with pytest.raises(InvalidName, match="64 in all"):
        catalogue.ensure_account(name)
    with pytest.raises(InvalidName, match="64 in all"):
        catalogue.ensure_algorithm(operator, name)


def test_a_key_opens_its_account_until_it_is_revoked(catalogue, alice, bob):
    new = catalogue.create_key(alice, "laptop", Permissions(manage=False, algorithms=("vision/*",)))
    assert keys.is_key_text(new.text) and new.text not in (new.key.mask, new.key.id)
    caller = catalogue.caller_of_key(new.text)
    assert caller.account == alice and caller.key == new.key
    assert caller.key.permissions == Permissions(manage=False, algorithms=("vision/*",))
    assert catalogue.account_of_key(new.text) == alice
    with pytest.raises(NotFound):
        catalogue.revoke_key(bob, new.key.id)
    assert catalogue.caller_of_key(new.text) is not None
    revoked = catalogue.revoke_key(alice, new.key.id)
    assert revoked.revoked_at is not None
    assert catalogue.caller_of_key(new.text) is None
    assert catalogue.revoke_key(alice, new.key.id) == revoked
    assert catalogue.keys_of(alice) == (revoked,)


def test_creating_a_key_twice_with_one_text_makes_one_key(catalogue, alice, bob):
    text = keys.new_key_text()
    assert catalogue.create_key(alice, "a", text=text) == catalogue.create_key(alice, "a", text=text)
    assert len(catalogue.keys_of(alice)) == 1
    with pytest.raises(Taken):
        catalogue.create_key(bob, "b", text=text)


@pytest.mark.parametrize(
    "text", ["", "sim", "x" * 28, "sim" + "a" * 26, "sim" + "é" * 25, "sim" + "a" * 1_000_000, "\ud800"]
)
def test_what_is_no_key_opens_nothing(catalogue, alice, text):
    assert catalogue.caller_of_key(text) is None
    with pytest.raises(CatalogueError):
        catalogue.create_key(alice, "x", text=text)


def test_private_and_missing_look_the_same_to_a_stranger(catalogue, alice, bob):
    published(catalogue, alice, "secret", public=False)
    asked = [(None, "Secret"), ("1.0.0", "secret"), (f"{1:040x}", "secret"), ("latestPrivate", "secret")]
    for wanted, name in asked:
        with pytest.raises(NotFound) as private:
            catalogue.find_version("alice", name, wanted, bob)
        with pytest.raises(NotFound) as missing:
            catalogue.find_version("alice", name[:-1] + "x", wanted, bob)
        assert str(private.value)[:-1] == str(missing.value)[:-1]
    with pytest.raises(NotFound) as algorithm:
        catalogue.find_algorithm("alice", "secret", None)
    assert str(algorithm.value) == "no algorithm alice/secret"


def test_a_private_version_of_a_public_algorithm_looks_missing_to_a_stranger(catalogue, alice, bob):
    algorithm, _ = published(catalogue, alice, "tool", "1.0.0")
    hidden = catalogue.add_version(algorithm, new_version(2))
    catalogue.publish_version(hidden, "2.0.0", public=False)
    assert catalogue.find_version("alice", "tool", "2.0.0", alice).semver == "2.0.0"
    for wanted in ("2.0.0", hidden.hash, "latestPrivate", "2"):
        with pytest.raises(NotFound):
            catalogue.find_version("alice", "tool", wanted, bob)
    with pytest.raises(NotFound) as private:
        catalogue.find_version("alice", "tool", "2.0.0", bob)
    with pytest.raises(NotFound) as missing:
        catalogue.find_version("alice", "tool", "3.0.0", bob)
    assert str(private.value) == str(missing.value).replace("3.0.0", "2.0.0")


def test_owner_manager_and_operator_see_private_things(catalogue, alice, operator):
    team = catalogue.ensure_account("team", "organization", alice)
    published(catalogue, team, "secret", public=False)
    for caller in (team, alice, operator):
        assert catalogue.find_version("TEAM", "SECRET", "latestPrivate", caller).key == f"team/secret@{1:040x}"
        assert [entry.algorithm.name for entry in catalogue.list_algorithms(caller).results] == ["secret"]


def test_a_version_comes_back_as_it_went_in(catalogue, alice, reopen):
    _, version = published(catalogue, alice, "Tool", "0.1.0")
    found = reopen().find_version("alice", "tool", "0.1", None)
    assert found == version
    assert (found.owner, found.name, found.manifest, found.public) == ("Alice", "Tool", {"n": 1}, True)
    with pytest.raises(versions.InvalidVersion):
        catalogue.find_version("alice", "tool", "one", None)


def test_adding_a_build_twice_adds_it_once(catalogue, alice):
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    assert catalogue.add_version(algorithm, new_version(1)) == catalogue.add_version(algorithm, new_version(1))
    assert len(catalogue.versions_of(algorithm)) == 1


def test_versions_are_immutable(catalogue, alice):
    algorithm, version = published(catalogue, alice, "tool", "1.0.0")
    other = catalogue.add_version(algorithm, new_version(2))
    with pytest.raises(AlreadyPublished):
        catalogue.publish_version(version, "1.0.1")
    with pytest.raises(AlreadyPublished):
        catalogue.publish_version(other, "1.0.0")
    with pytest.raises(versions.InvalidVersion):
        catalogue.publish_version(other, "1.0.9223372036854775808")
    assert [found.semver for found in catalogue.versions_of(algorithm)].count("1.0.0") == 1
    assert catalogue.publish_version(other, "patch").semver == "1.0.1"


def test_a_repeated_publish_request_has_the_same_answer(catalogue, alice):
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    version = catalogue.add_version(algorithm, new_version(1))
    first = catalogue.publish_version(version, "minor", request_key="r1")
    assert catalogue.publish_version(version, "minor", request_key="r1") == first
    with pytest.raises(AlreadyPublished):
        catalogue.publish_version(version, "minor", request_key="r2")


def test_concurrent_publishing_gives_each_build_its_own_number(catalogue, alice):
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    built = [catalogue.add_version(algorithm, new_version(number)) for number in range(8)]
    threads = [threading.Thread(target=catalogue.publish_version, args=(version,)) for version in built]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    numbers = {version.semver for version in catalogue.versions_of(algorithm)}
    assert numbers == {f"0.0.{number}" for number in range(1, 9)}


def test_a_public_version_makes_its_algorithm_public_and_a_private_one_does_not(catalogue, alice):
    algorithm, _ = published(catalogue, alice, "tool", "0.1.0", public=False)
    assert catalogue.find_algorithm("alice", "tool", alice).visibility == "private"
    catalogue.publish_version(catalogue.add_version(algorithm, new_version(2)), "minor")
    assert catalogue.find_algorithm("alice", "tool", None).visibility == "public"
    assert catalogue.set_algorithm(algorithm, visibility="private", tagline="x").tagline == "x"
    with pytest.raises(NotFound):
        catalogue.find_version("alice", "tool", None, None)


def test_a_list_is_paged_without_gaps_and_shows_the_newest_public_version(catalogue, alice, bob):
    for number in range(7):
        algorithm, _ = published(catalogue, alice, f"tool{number}", "1.9.0")
        catalogue.publish_version(catalogue.add_version(algorithm, new_version(2)), "1.10.0")
        catalogue.publish_version(catalogue.add_version(algorithm, new_version(3)), "2.0.0", public=False)
    published(catalogue, alice, "secret", public=False)
    published(catalogue, bob, "Zoo")
    seen, marker = [], None
    while True:
        page = catalogue.list_algorithms(bob, limit=3, marker=marker)
        seen += page.results
        marker = page.marker
        if marker is None:
            break
        assert len(page.results) == 3
    assert [entry.algorithm.name for entry in seen] == [*(f"tool{number}" for number in range(7)), "Zoo"]
    assert {entry.semver for entry in seen[:-1]} == {"1.10.0"}
    assert seen[0].hash == f"{2:040x}"
    everything = [entry.algorithm.name for entry in catalogue.list_algorithms(alice, owner="ALICE").results]
    assert everything == ["secret", *(f"tool{number}" for number in range(7))]


def test_search_looks_for_words_and_takes_wildcards_literally(catalogue, alice):
    for name, tagline in (("classify", "What is in this Photo?"), ("cutout", "100% clean photo edges"), ("speech", "")):
        algorithm, _ = published(catalogue, alice, name)
        catalogue.set_algorithm(algorithm, tagline=tagline)

    def names(query):
        return [entry.algorithm.name for entry in catalogue.list_algorithms(None, query=query).results]

    assert names("photo") == ["classify", "cutout"]
    assert names("PHOTO clean") == ["cutout"]
    assert names("%") == ["cutout"] and names("_") == [] and names("' OR 1=1 --") == []
    assert names("alice sp") == ["speech"]
    assert names("") == names(" ") == ["classify", "cutout", "speech"]


def test_a_build_ends_once(catalogue, alice):
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    build = catalogue.start_build(algorithm, f"{1:040x}", "me", build_id="b1")
    assert catalogue.start_build(algorithm, f"{1:040x}", "me", build_id="b1") == build
    assert [running.id for running in catalogue.running_builds()] == ["b1"]
    ended = catalogue.finish_build("b1", "failed", "line\n" * 3)
    assert (ended.status, ended.log) == ("failed", "line\n" * 3) and ended.finished_at >= ended.started_at
    assert catalogue.finish_build("b1", "succeeded", "") == ended == catalogue.find_build("b1")
    assert catalogue.running_builds() == ()
    assert [listed.status for listed in catalogue.builds_of(algorithm)] == ["failed"]
    with pytest.raises(NotFound):
        catalogue.find_build("b2")


def test_the_generation_moves_with_every_change_and_with_nothing_else(catalogue, reopen):
    other = reopen()  # as another process would have it open

    def moves(change):
        before = catalogue.generation(), other.generation()
        result = change()
        after = catalogue.generation(), other.generation()
        assert (before[0] != after[0]) == (before[1] != after[1])
        return before != after, result

    moved, alice = moves(lambda: catalogue.ensure_account("alice"))
    assert moved
    moved, new = moves(lambda: other.create_key(alice, "x"))
    assert moved
    moved, algorithm = moves(lambda: catalogue.ensure_algorithm(alice, "tool"))
    assert moved
    moved, version = moves(lambda: other.add_version(algorithm, new_version(1)))
    assert moved
    assert moves(lambda: other.publish_version(version))[0]
    assert moves(lambda: catalogue.set_algorithm(algorithm, tagline="y"))[0]
    assert moves(lambda: catalogue.revoke_key(alice, new.key.id))[0]
    quiet = [
        lambda: catalogue.ensure_account("alice"),
        lambda: catalogue.ensure_algorithm(alice, "tool"),
        lambda: catalogue.add_version(algorithm, new_version(1)),
        lambda: catalogue.set_algorithm(algorithm, tagline="y"),
        lambda: catalogue.revoke_key(alice, new.key.id),
        lambda: catalogue.find_version("alice", "tool", None, None),
        lambda: catalogue.start_build(algorithm, f"{1:040x}", "me", build_id="b"),
        lambda: other.finish_build("b", "succeeded", ""),
    ]
    assert [moves(change)[0] for change in quiet] == [False] * len(quiet)


def test_kept_versions_are_those_that_an_owner_calls_by_default_and_ask_for_it(catalogue, alice):
    def add(name: str, *minima: int, public: bool = True) -> None:
        algorithm = catalogue.ensure_algorithm(alice, name)
        for number, least in enumerate(minima):
            new = msgspec.structs.replace(new_version(number), manifest={"min_replicas": least})
            catalogue.publish_version(catalogue.add_version(algorithm, new), public=public)

    add("always", 0, 2)
    add("no-more", 2, 0)
    add("never", 0)
    add("private", 1, public=False)
    unpublished = catalogue.ensure_algorithm(alice, "unpublished")
    catalogue.add_version(unpublished, msgspec.structs.replace(new_version(9), manifest={"min_replicas": 3}))
    kept = {version.name: version.manifest["min_replicas"] for version in catalogue.kept_versions()}
    assert kept == {"always": 2, "private": 1}
