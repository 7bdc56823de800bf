"""Publishing, deprecating and routing: immutable numbers, promises kept, and who gets which version."""

import threading

import pytest

from serai_gateway import traffic, versions
from serai_gateway.catalogue import AlreadyPublished, BreaksPromise, NotFound
from serai_gateway.catalogue.testing import built, new_version, published


@pytest.fixture
def tool(catalogue, alice):
    return catalogue.create_algorithm(alice, "tool", settings={"license": "apl"})


def test_the_last_build_is_published_once_until_it_is_built_again(catalogue, tool, alice):
    with pytest.raises(NotFound, match="compile it first"):
        catalogue.publish_latest(tool, "minor", public=False)
    built(catalogue, tool, 1)
    first = catalogue.publish_latest(tool, "minor", public=False, details={"release_notes": "n"})
    assert (first.semver, first.public, first.git_hash) == ("0.1.0", False, f"{1:040x}")
    assert first.details["release_notes"] == "n" and first.details["settings"] == {"license": "apl"}
    with pytest.raises(AlreadyPublished, match="compile it again"):
        catalogue.publish_latest(tool, "minor", public=True)
    built(catalogue, tool, 1)
    second = catalogue.publish_latest(tool, "minor", public=True)
    assert (second.semver, second.git_hash, second.commit) == ("0.2.0", first.hash, first.hash)
    assert second.hash != first.hash and second.code_sha == first.code_sha
    with pytest.raises(AlreadyPublished):
        catalogue.publish_latest(tool, "minor", public=True)
    built(catalogue, tool, 1)
    third = catalogue.publish_latest(tool, "revision", public=True)
    assert third.semver == "0.2.1" and len({first.hash, second.hash, third.hash}) == 3
    assert catalogue.find_version("alice", "tool", first.hash, alice) == first
    assert catalogue.find_build_version(tool, first.hash) == third


def test_what_the_algorithm_says_changes_with_the_version_or_not_at_all(catalogue, tool, alice):
    said = {"tagline": "new", "texts": {"label": "L"}, "details": {"settings": {"insights_enabled": True}}}
    with pytest.raises(NotFound):
        catalogue.publish_latest(tool, "minor", public=True, **said)
    assert catalogue.find_algorithm("alice", "tool", alice) == tool
    built(catalogue, tool, 1)
    catalogue.publish_latest(tool, "minor", public=True, **said)
    changed = catalogue.find_algorithm("alice", "tool", None)
    assert (changed.tagline, changed.details, changed.visibility) == ("new", {"label": "L"}, "public")
    assert changed.settings == {"license": "apl", "insights_enabled": True}


def test_a_build_that_failed_or_still_runs_is_not_what_is_published(catalogue, tool):
    built(catalogue, tool, 1)
    failed = catalogue.start_build(tool, f"{2:040x}", "a test")
    catalogue.finish_build(failed.id, "failed", "no")
    catalogue.start_build(tool, f"{3:040x}", "a test")
    assert catalogue.publish_latest(tool, "revision", public=False).hash == f"{1:040x}"
    with pytest.raises(AlreadyPublished):
        catalogue.publish_latest(tool, "revision", public=False)


def test_what_was_published_while_it_was_built_is_published(catalogue, tool):
    build = catalogue.start_build(tool, f"{1:040x}", "a test")
    catalogue.publish_version(catalogue.add_version(tool, new_version(1)))
    catalogue.finish_build(build.id, "succeeded", "")
    with pytest.raises(AlreadyPublished):
        catalogue.publish_latest(tool, "next", public=True)


@pytest.mark.parametrize(
    ("number", "semver"), [("major", "1.0.0"), ("minor", "0.1.0"), ("revision", "0.0.1"), ("next", "0.0.1")]
)
def test_the_first_number(catalogue, tool, number, semver):
    built(catalogue, tool, 1)
    assert catalogue.publish_latest(tool, number, public=False).semver == semver


def test_of_twenty_who_publish_one_build_at_once_one_wins(catalogue, tool):
    built(catalogue, tool, 1)
    won, lost = _race(20, lambda at: catalogue.publish_latest(tool, "minor", public=bool(at % 2)))
    assert [version.semver for version in won] == ["0.1.0"]
    assert [type(error) for error in lost] == [AlreadyPublished] * 19


def test_of_twenty_who_want_one_number_at_once_one_gets_it(catalogue, tool):
    made = [built(catalogue, tool, number) for number in range(20)]
    won, lost = _race(20, lambda at: catalogue.publish_version(made[at], "1.0.0"))
    assert [version.semver for version in won] == ["1.0.0"] and len(lost) == 19
    assert all("take another number" in str(error) for error in lost)
    won, lost = _race(19, _rest(catalogue, made, won[0]))
    assert sorted(versions.parse_semver(version.semver).minor for version in won) == list(range(1, 20)) and lost == []


def _rest(catalogue, made, published_one):
    left = [version for version in made if version.id != published_one.id]
    return lambda at: catalogue.publish_version(left[at], "minor")


def _race(times, work):
    """What each returned, and what each raised."""
    won, lost, start = [], [], threading.Barrier(times)

    def run(at):
        start.wait(30)
        try:
            won.append(work(at))
        except Exception as error:
            lost.append(error)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return won, lost


def test_numbers_do_not_grow_past_their_limit_nor_back(catalogue, tool):
    catalogue.publish_version(built(catalogue, tool, 1), f"0.0.{versions.MAX_NUMBER}")
    with pytest.raises(versions.InvalidVersion, match="can follow"):
        catalogue.publish_version(built(catalogue, tool, 2), "revision")
    for number in ("9223372036854775808.0.0", f"{versions.MAX_NUMBER + 1}.0.0", "1.0", "1.0.0-beta", "-1.0.0"):
        with pytest.raises(versions.InvalidVersion):
            catalogue.publish_version(built(catalogue, tool, 2), number)


def test_code_does_not_get_more_rights_without_a_new_major_number(catalogue, tool):
    catalogue.publish_version(built(catalogue, tool, 1), "1.0.0")
    networked = built(catalogue, tool, 2, network=True)
    for number in ("revision", "minor", "1.0.1", "1.9.0"):
        with pytest.raises(
            BreaksPromise, match=r"after 1\.0\.0, a (revision|minor) version .*network instead of nothing.*major"
        ):
            catalogue.publish_version(networked, number)
    assert catalogue.publish_version(networked, "next").semver == "2.0.0"
    assert catalogue.publish_version(built(catalogue, tool, 3), "next").semver == "2.1.0", "less is a minor change"
    # A fix of the old line is compared with the old line.
    assert catalogue.publish_version(built(catalogue, tool, 4), "1.0.1").semver == "1.0.1"


def test_visibility_and_royalty_change_with_a_minor_number_and_free_stays_free(catalogue, tool):
    catalogue.publish_version(built(catalogue, tool, 1), "1.0.0", public=False)
    with pytest.raises(BreaksPromise, match="public or private"):
        catalogue.publish_version(built(catalogue, tool, 2), "revision")
    catalogue.publish_version(built(catalogue, tool, 2), "minor")
    paid = {"settings": {"royalty_microcredits": 5}}
    with pytest.raises(BreaksPromise, match="a free algorithm"):
        catalogue.publish_version(built(catalogue, tool, 3), "minor", details=paid)
    catalogue.publish_version(built(catalogue, tool, 3), "major", details=paid)
    catalogue.set_algorithm(tool, settings={"royalty_microcredits": 7})
    with pytest.raises(BreaksPromise, match="royalty"):
        catalogue.publish_version(built(catalogue, tool, 4), "revision")
    assert catalogue.publish_version(built(catalogue, tool, 4), "next").semver == "2.1.0"


def test_what_was_not_built_is_not_published_as_if(catalogue, tool):
    built(catalogue, tool, 1, network=True)
    with pytest.raises(BreaksPromise, match='network_access was "full" when this was built'):
        catalogue.publish_latest(tool, "major", public=False, details={"settings": {"network_access": "isolated"}})
    more = {"network_access": "full", "pipeline_enabled": True}
    version = catalogue.publish_latest(tool, "major", public=False, details={"settings": more})
    assert version.manifest["permissions"] == {"network": True}, "more is not given"


def test_a_deprecated_version_is_called_by_its_number_only(catalogue, alice, bob):
    algorithm, old = published(catalogue, alice, "tool", "1.0.0")
    new = catalogue.publish_version(catalogue.add_version(algorithm, new_version(2)), "1.0.1")
    deprecated = catalogue.deprecate_version(new, "it is wrong")
    assert deprecated.deprecation == "it is wrong"
    for wanted, semver in ((None, "1.0.0"), ("latest", "1.0.0"), ("1", "1.0.0"), ("1.0.1", "1.0.1")):
        assert catalogue.find_version("alice", "tool", wanted, bob).semver == semver
    catalogue.deprecate_version(old, "old")
    assert catalogue.find_version("alice", "tool", None, bob) == deprecated
    assert catalogue.deprecate_version(new, None).deprecation is None
    unpublished = catalogue.add_version(algorithm, new_version(3))
    with pytest.raises(NotFound):
        catalogue.deprecate_version(unpublished, "x")


def test_an_owner_calls_what_he_has_built_and_nobody_else_does(catalogue, tool, alice, bob):
    built(catalogue, tool, 1)
    newest = built(catalogue, tool, 2)
    assert catalogue.find_version("alice", "tool", None, alice) == newest
    for wanted, caller in ((None, bob), (None, None), ("latest", alice)):
        with pytest.raises(NotFound):
            catalogue.find_version("alice", "tool", wanted, caller)


def test_calls_without_a_version_are_divided_as_the_owner_says(catalogue, alice, bob):
    algorithm, _ = published(catalogue, alice, "tool", "1.0.0")
    catalogue.publish_version(catalogue.add_version(algorithm, new_version(2)), "1.1.0")

    def parts(wanted, caller=bob):
        return {
            version.semver: percent for version, percent in catalogue.find_versions("alice", "tool", wanted, caller)
        }

    assert parts(None) == {"1.1.0": 100}
    routed = catalogue.set_routing(algorithm, (("1.0.0", 90), ("1.1.0", 10)))
    assert routed.routing == (("1.1.0", 10), ("1.0.0", 90))
    for caller in (bob, alice, None):
        assert parts(None, caller) == parts("latest", caller) == {"1.0.0": 90, "1.1.0": 10}
    assert parts("1") == {"1.1.0": 100} and parts("1.0.0") == {"1.0.0": 100}
    assert catalogue.find_version("alice", "tool", None, bob).semver == "1.0.0"
    catalogue.publish_version(catalogue.add_version(algorithm, new_version(3)), "2.0.0")
    assert parts(None) == {"1.0.0": 90, "1.1.0": 10}, "what is published later waits"
    catalogue.set_routing(algorithm, (("1.0.0", 100),))
    assert parts(None) == {"1.0.0": 100}
    catalogue.set_routing(algorithm, ())
    assert parts(None) == {"2.0.0": 100}


def test_only_public_versions_are_routed(catalogue, tool):
    catalogue.publish_version(built(catalogue, tool, 1), "1.0.0", public=False)
    before = catalogue.generation()
    for routing, error in (
        ((("1.0.0", 100),), traffic.InvalidRouting),
        ((("7.0.0", 100),), traffic.InvalidRouting),
        (((f"{1:040x}", 100),), versions.InvalidVersion),
    ):
        with pytest.raises(error):
            catalogue.set_routing(tool, routing)
    assert catalogue.generation() == before


def test_all_that_a_routing_sends_calls_to_is_kept_warm(catalogue, alice):
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    for number in range(3):
        new = new_version(number)
        new.manifest["min_replicas"] = number
        catalogue.publish_version(catalogue.add_version(algorithm, new), f"1.0.{number}")
    assert [version.semver for version in catalogue.kept_versions()] == ["1.0.2"]
    catalogue.set_routing(algorithm, (("1.0.1", 50), ("1.0.2", 40), ("1.0.0", 10)))
    assert sorted(version.semver for version in catalogue.kept_versions()) == ["1.0.1", "1.0.2"]
