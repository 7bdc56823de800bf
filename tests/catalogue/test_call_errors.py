"""What every catalogue does with errors of calls and with insights."""

import time
import uuid

import msgspec
import pytest

from serai_gateway.catalogue import CallError, Reported
from serai_gateway.catalogue.call_errors import KEPT_S, MAX_CALL_ERRORS
from serai_gateway.catalogue.insights import MAX_INSIGHTS
from serai_gateway.catalogue.testing import new_version


@pytest.fixture
def algorithm(catalogue, alice):
    return catalogue.ensure_algorithm(alice, "tool")


def error(algorithm, number=0, caller="bob", age_s=0.0):
    at = time.time() - age_s + number * 1e-3
    return CallError(
        f"req-{uuid.uuid4()}", algorithm.id, "1.0.0", caller, "AlgorithmError", f"{number}", "trace", "in", at
    )


def messages(listed):
    return [one.error.message for one in listed]


def test_errors_are_listed_newest_first_with_what_they_are_about(catalogue, algorithm, alice, reopen):
    errors = [error(algorithm, number) for number in range(3)]
    catalogue.add_call_errors(errors)
    listed = reopen().errors_of_algorithm(algorithm.id)
    assert [one.error for one in listed] == errors[::-1]
    assert {(one.owner, one.name) for one in listed} == {("Alice", "tool")}
    assert catalogue.errors_of_owner(alice.id) == listed
    assert catalogue.errors_of_owner("0" * 32) == catalogue.errors_of_algorithm("0" * 32) == ()


def test_the_newest_are_kept_of_each_algorithm_by_itself(catalogue, algorithm, alice):
    other = catalogue.ensure_algorithm(alice, "other")
    catalogue.add_call_errors([error(other, 1)])
    for first in range(0, MAX_CALL_ERRORS + 100, 50):
        catalogue.add_call_errors([error(algorithm, first + number) for number in range(50)])
    kept = messages(catalogue.errors_of_algorithm(algorithm.id))
    assert kept == [str(number) for number in range(MAX_CALL_ERRORS + 99, 99, -1)]
    assert messages(catalogue.errors_of_algorithm(other.id)) == ["1"]
    assert len(catalogue.errors_of_owner(alice.id)) == MAX_CALL_ERRORS


def test_old_ones_are_not_listed_and_forgotten(catalogue, algorithm):
    catalogue.add_call_errors([error(algorithm, 1, age_s=KEPT_S + 60), error(algorithm, 2)])
    assert messages(catalogue.errors_of_algorithm(algorithm.id)) == ["2"]
    catalogue.forget_old_call_errors()
    assert messages(catalogue.errors_of_algorithm(algorithm.id)) == ["2"]


def test_what_is_about_an_algorithm_that_is_gone_does_not_harm_the_rest(catalogue, algorithm):
    gone = msgspec.structs.replace(algorithm, id="0" * 32)
    catalogue.add_call_errors([error(gone, 1), error(algorithm, 2)])
    assert messages(catalogue.errors_of_algorithm(algorithm.id)) == ["2"]


def test_neither_moves_the_generation(catalogue, algorithm):
    before = catalogue.generation()
    catalogue.add_call_errors([error(algorithm)])
    catalogue.add_insights([report(f"{1:040x}")])
    assert catalogue.generation() == before


def report(hash, number=0):
    return Reported("alice", "TOOL", hash, f"req-{number}", {"n": number}, 0.25, time.time() + number * 1e-3)


@pytest.fixture
def enabled(catalogue, algorithm):
    """Hash of a version that was published with insights."""
    version = catalogue.add_version(algorithm, new_version(1))
    catalogue.publish_version(version, "1.0.0", details={"settings": {"insights_enabled": True}})
    return version.hash


def test_insights_are_kept_of_versions_that_want_it(catalogue, algorithm, enabled):
    catalogue.add_version(algorithm, new_version(2))
    reports = [report(enabled, 1), report(f"{2:040x}", 2), report("nothing", 3)]
    assert catalogue.add_insights(reports) == 1
    [kept] = catalogue.insights_of(algorithm.id).results
    assert (kept.metrics, kept.version, kept.call_id, kept.duration_s) == ({"n": 1}, "1.0.0", "req-1", 0.25)


def test_insights_are_paged_without_gaps(catalogue, algorithm, enabled):
    same_time = [msgspec.structs.replace(report(enabled, number), created_at=1.5e9) for number in range(7)]
    catalogue.add_insights([*same_time, *(report(enabled, number) for number in range(7, 20))])
    seen, marker = [], None
    while True:
        page = catalogue.insights_of(algorithm.id, limit=3, marker=marker)
        seen += [one.metrics["n"] for one in page.results]
        marker = page.marker
        if marker is None:
            break
    assert seen[:13] == list(range(19, 6, -1)) and sorted(seen) == list(range(20))


def test_the_newest_insights_are_kept(catalogue, algorithm, enabled):
    catalogue.add_insights([report(enabled, number) for number in range(MAX_INSIGHTS + 5)])
    page = catalogue.insights_of(algorithm.id, limit=1)
    assert page.results[0].metrics == {"n": MAX_INSIGHTS + 4}
    num = 0
    marker = None
    while True:
        page = catalogue.insights_of(algorithm.id, limit=1000, marker=marker)
        num += len(page.results)
        if (marker := page.marker) is None:
            break
    assert num == MAX_INSIGHTS
