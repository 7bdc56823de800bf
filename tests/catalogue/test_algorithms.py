"""Algorithms: made once, found by name and id, changed, deleted with all that belongs to them, listed and searched."""

import threading

import pytest
import sqlalchemy as sa

from serai_gateway.catalogue import CallError, InUse, InvalidName, NotFound, Secret, Taken, tables
from serai_gateway.catalogue.algorithms import _BELONGING
from serai_gateway.catalogue.testing import built, new_version, published


def test_a_name_is_taken_once(catalogue, alice, bob):
    made = catalogue.create_algorithm(alice, "Tool", tagline="t", details={"label": "L"}, settings={"license": "mit"})
    assert (made.visibility, made.tagline, made.details, made.settings) == (
        "private",
        "t",
        {"label": "L"},
        {"license": "mit"},
    )
    assert catalogue.find_algorithm("ALICE", "tool", alice) == made == catalogue.algorithm_by_id(made.id, alice)
    with pytest.raises(Taken, match="choose another name"):
        catalogue.create_algorithm(alice, "tOOL")
    assert catalogue.create_algorithm(bob, "tool").id != made.id


@pytest.mark.parametrize("name", ["0" * 32, "a" * 32, "12345678-1234-1234-1234-123456789abc", "1x", "", "a b", "a/b"])
def test_a_name_is_no_id_and_no_nonsense(catalogue, alice, name):
    with pytest.raises(InvalidName):
        catalogue.create_algorithm(alice, name)
    with pytest.raises(InvalidName):
        catalogue.ensure_account(name)


def test_of_many_who_create_one_name_at_once_one_wins(catalogue, alice):
    outcomes, start = [], threading.Barrier(8)

    def create():
        start.wait(30)
        try:
            outcomes.append(catalogue.create_algorithm(alice, "tool"))
        except Taken:
            outcomes.append(None)

    _all_at_once(create, 8)
    assert len([one for one in outcomes if one]) == 1


def test_an_id_says_no_more_than_a_name(catalogue, alice, bob):
    hidden = catalogue.create_algorithm(alice, "hidden")
    for caller in (bob, None):
        with pytest.raises(NotFound) as private:
            catalogue.algorithm_by_id(hidden.id, caller)
        with pytest.raises(NotFound) as missing:
            catalogue.algorithm_by_id("0" * 32, caller)
        assert str(private.value).replace(hidden.id, "0" * 32) == str(missing.value)
    assert catalogue.name_of_algorithm(hidden.id) == ("Alice", "hidden")
    assert catalogue.name_of_algorithm("0" * 32) is None


def test_what_is_given_is_changed_and_nothing_else(catalogue, alice):
    made = catalogue.create_algorithm(
        alice, "tool", details={"label": "a", "summary": "s"}, settings={"license": "apl"}
    )
    changed = catalogue.set_algorithm(made, details={"label": "b"}, settings={"insights_enabled": True})
    assert changed.details == {"label": "b", "summary": "s"}
    assert changed.settings == {"license": "apl", "insights_enabled": True}
    assert catalogue.find_algorithm("alice", "tool", alice) == changed
    before = catalogue.generation()
    assert catalogue.set_algorithm(changed, details={"label": "b"}) == changed
    assert catalogue.generation() == before, "nothing has changed"


def test_all_goes_with_an_algorithm(catalogue, alice):
    algorithm = catalogue.create_algorithm(alice, "tool")
    version = built(catalogue, algorithm, 1)
    catalogue.publish_version(version, "0.1.0", public=False)
    catalogue.add_secret(Secret("5" * 32, algorithm.id, "short", "", "KEY", b"sealed"))
    catalogue.add_call_errors(
        [CallError("req-1", algorithm.id, "0.1.0", "alice", "AlgorithmError", "m", "s", "i", 1.0)]
    )
    catalogue.delete_algorithm(algorithm)
    with pytest.raises(NotFound):
        catalogue.find_algorithm("alice", "tool", alice)
    for table in _BELONGING:
        with catalogue._database.read() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0, table.name
    with pytest.raises(NotFound):
        catalogue.delete_algorithm(algorithm)
    assert catalogue.create_algorithm(alice, "tool").id != algorithm.id


def test_no_table_that_belongs_to_an_algorithm_is_forgotten():
    pointing = {
        table
        for table in tables.metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name == "algorithms"
    }
    assert pointing == set(_BELONGING)


def test_what_others_call_is_not_deleted_but_by_the_operator(catalogue, alice, bob):
    algorithm, _ = published(catalogue, alice, "tool")
    with pytest.raises(InUse, match="has public versions"):
        catalogue.delete_algorithm(algorithm)
    assert catalogue.find_version("alice", "tool", None, bob).semver == "1.0.0"
    catalogue.delete_algorithm(algorithm, even_if_public=True)
    with pytest.raises(NotFound):
        catalogue.find_version("alice", "tool", None, bob)


def test_what_is_written_to_a_deleted_algorithm_is_refused_and_nothing_of_it_is_left(catalogue, alice):
    algorithm = catalogue.create_algorithm(alice, "tool")
    version = built(catalogue, algorithm, 1)
    catalogue.delete_algorithm(algorithm)
    for write in (
        lambda: catalogue.start_build(algorithm, "0" * 40, "late"),
        lambda: catalogue.add_version(algorithm, new_version(2)),
        lambda: catalogue.publish_version(version),
        lambda: catalogue.publish_latest(algorithm, "minor", public=True),
        lambda: catalogue.repeat_version(version),
        lambda: catalogue.deprecate_version(version, "x"),
        lambda: catalogue.set_algorithm(algorithm, tagline="x"),
        lambda: catalogue.set_routing(algorithm, (("1.0.0", 100),)),
    ):
        with pytest.raises(NotFound):
            write()
    assert catalogue.versions_of(algorithm) == () and catalogue.builds_of(algorithm) == ()


def test_deleting_while_others_build_and_publish_leaves_all_or_nothing(catalogue, alice):
    for turn in range(12):
        algorithm = catalogue.create_algorithm(alice, f"tool{turn}")
        built(catalogue, algorithm, 1)
        start = threading.Barrier(3)

        def push(algorithm=algorithm, start=start):
            start.wait(30)
            for number in range(2, 6):
                built(catalogue, algorithm, number)

        def publish(algorithm=algorithm, start=start):
            start.wait(30)
            catalogue.publish_latest(algorithm, "minor", public=True)

        def delete(algorithm=algorithm, start=start):
            start.wait(30)
            catalogue.delete_algorithm(algorithm)

        ended = _outcomes(push, publish, delete)
        is_gone = ended[2] is None
        try:
            catalogue.algorithm_by_id(algorithm.id, alice)
            assert not is_gone
        except NotFound:
            assert is_gone
        assert all(error is None or isinstance(error, NotFound | InUse) for error in ended), ended
        if is_gone:
            assert catalogue.versions_of(algorithm) == () and catalogue.builds_of(algorithm) == ()
        else:
            assert isinstance(ended[2], InUse) and catalogue.find_version("alice", algorithm.name, "0.1", None).public


def test_a_list_is_in_order_of_owner_and_name_whatever_they_are(catalogue, alice):
    names = ["b", "B-2", "a", "a_1", "a-1", "aa", "A1", "z", "ab"]
    owners = [alice, *(catalogue.ensure_account(name) for name in ("Alice-2", "alice_3", "alice4", "al", "zoe"))]
    for owner in owners:
        for name in names:
            catalogue.ensure_algorithm(owner, name, "public")
    expected = sorted((owner.name.lower(), name.lower()) for owner in owners for name in names)
    seen, marker = [], None
    while True:
        page = catalogue.list_algorithms(None, limit=7, marker=marker)
        seen += [(one.algorithm.owner.lower(), one.algorithm.name.lower()) for one in page.results]
        marker = page.marker
        if marker is None:
            break
    assert seen == expected
    mine = catalogue.list_algorithms(None, owner="ALICE").results
    assert [one.algorithm.name.lower() for one in mine] == sorted(name.lower() for name in names)
    assert {one.algorithm.owner for one in mine} == {"Alice"}


def test_a_search_finds_words_of_owner_name_tagline_and_label(catalogue, alice, bob):
    catalogue.create_algorithm(alice, "Faces", tagline="Finds them ÄÖ", details={"label": "Detector 100%"})
    catalogue.create_algorithm(alice, "other")

    def found(query):
        return [one.algorithm.name for one in catalogue.list_algorithms(alice, query=query).results]

    for query in ("face", "FINDS", "detector face alice", "äö", "100%", "alice/faces", "s"):
        assert "Faces" in found(query), query
    for query in ("fax", "face nothing", "1_0", "100_", "bob"):
        assert found(query) == [], query
    catalogue.set_algorithm(catalogue.find_algorithm("alice", "faces", alice), details={"label": "Recognizer"})
    assert found("recognizer") == ["Faces"] and found("detector") == []
    assert catalogue.list_algorithms(bob, query="face").results == ()


def test_a_list_shows_what_a_call_would_get(catalogue, alice):
    algorithm, first = published(catalogue, alice, "tool", "1.0.0")
    second = catalogue.publish_version(catalogue.add_version(algorithm, new_version(2)), "1.1.0")

    def shown():
        (entry,) = catalogue.list_algorithms(None).results
        assert entry.hash == catalogue.find_version("alice", "tool", None, None).hash
        return entry.semver

    assert shown() == "1.1.0"
    catalogue.deprecate_version(second, "broken")
    assert shown() == "1.0.0"
    catalogue.deprecate_version(first, "broken, too")
    assert shown() == "1.1.0"
    catalogue.set_routing(algorithm, (("1.0.0", 60), ("1.1.0", 40)))
    assert shown() == "1.0.0"


def test_builds_are_found_by_commit_and_the_one_that_succeeded_counts(catalogue, alice):
    algorithm = catalogue.create_algorithm(alice, "tool")
    built(catalogue, algorithm, 1)
    again = catalogue.start_build(algorithm, f"{1:040x}", "a test")
    catalogue.finish_build(again.id, "failed", "no")
    found = catalogue.builds_of_commits(algorithm, [f"{1:040x}", f"{2:040x}"], with_logs=True)
    assert [(commit, build.status, build.log) for commit, build in found.items()] == [
        (f"{1:040x}", "succeeded", "built 1")
    ]
    assert catalogue.builds_of_commits(algorithm, [f"{1:040x}"])[f"{1:040x}"].log == ""


def test_versions_come_in_pages_newest_first(catalogue, alice):
    algorithm = catalogue.create_algorithm(alice, "tool")
    made = [built(catalogue, algorithm, number) for number in range(7)]
    catalogue.publish_version(made[2], "1.0.0")
    catalogue.publish_version(made[3], "1.1.0", public=False)
    seen, marker = [], None
    while True:
        page = catalogue.list_versions(algorithm, limit=3, marker=marker)
        seen += page.results
        marker = page.marker
        if marker is None:
            break
    assert [version.hash for version in seen] == [version.hash for version in reversed(made)]
    for published_only, public_only, hashes in ((True, False, [3, 2]), (None, True, [2]), (False, True, [])):
        found = catalogue.list_versions(algorithm, published=published_only, public_only=public_only).results
        assert [version.hash for version in found] == [made[number].hash for number in hashes]
    with pytest.raises(NotFound):
        catalogue.list_versions(algorithm, marker="0" * 32)


def _all_at_once(work, times):
    threads = [threading.Thread(target=work) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def _outcomes(*works):
    """The exception that each ended with, None where there was none."""
    ended = [None] * len(works)

    def run(at):
        try:
            works[at]()
        except Exception as error:
            ended[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return ended
