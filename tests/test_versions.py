"""Version resolution against a slow, obvious model of the table in its docstring."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway import versions


class Built(NamedTuple):
    hash: str
    semver: str | None
    public: bool
    deprecation: str | None = None
    created_at: float = 0.0


NUMBERS = st.integers(0, 3)
HISTORIES = st.lists(
    st.tuples(st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS), st.booleans(), st.booleans()),
    max_size=12,
    unique_by=lambda item: item[0] or object(),
).map(
    lambda items: [
        Built(
            f"{at:040x}",
            ".".join(map(str, number)) if number else None,
            bool(number) and public,
            "use another one" if number and is_deprecated else None,
            float(at),
        )
        for at, (number, public, is_deprecated) in enumerate(items)
    ]
)
SPECS = st.one_of(
    st.none(),
    st.sampled_from(["", "latest", "latestPrivate", "1", "1.*", "1.x.x", "2.x", f"{3:040x}", f"{900:040x}"]),
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.tuples(NUMBERS, NUMBERS, st.sampled_from("*xX")).map(lambda spec: f"{spec[0]}.{spec[1]}.{spec[2]}"),
    st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda spec: f"{spec[0]}.{spec[1]}.{spec[2]}"),
)


def chosen(spec, history, is_owner):
    try:
        return versions.resolve(versions.parse(spec), history, is_owner=is_owner)
    except versions.NoSuchVersion:
        return None


@settings(deadline=None)
@given(SPECS, HISTORIES, st.booleans())
def test_resolution_is_what_the_table_says(spec, history, is_owner):
    def number(built):
        return built.deprecation is None, *map(int, built.semver.split("."))

    public = sorted((built for built in history if built.public), key=number)
    private = sorted((built for built in history if built.semver and not built.public), key=number)
    if spec in (None, ""):
        expected = public or ((private or history) if is_owner else [])
    elif spec == "latest":
        expected = public
    elif spec == "latestPrivate":
        expected = private if is_owner else []
    elif len(spec) == 40:
        expected = [built for built in history if built.hash == spec and is_owner]
    else:
        given_numbers = [part for part in spec.split(".") if part not in "*xX"]
        pool = public + (private if is_owner and len(given_numbers) == 3 else [])
        expected = [built for built in pool if built.semver.split(".")[: len(given_numbers)] == given_numbers]
    assert chosen(spec, history, is_owner) == (expected[-1] if expected else None)


@settings(deadline=None)
@given(SPECS, HISTORIES)
def test_a_stranger_sees_nothing_that_depends_on_private_versions(spec, history):
    without = [built for built in history if built.public]

    def seen(facts):
        try:
            return versions.resolve(versions.parse(spec), facts, is_owner=False)
        except versions.NoSuchVersion as error:
            return str(error)

    assert seen(history) == seen(without)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_version_or_refused_with_the_ways_to_write_one(text):
    try:
        wanted = versions.parse(text)
    except versions.InvalidVersion as error:
        assert "1.2.0" in str(error) and len(str(error)) < 400
    else:
        assert isinstance(wanted, versions.Wanted)


@pytest.mark.parametrize(
    "text",
    ["1.2.3.4", "01.2.0", "1.*.3", "*", "x.1", "v1.0.0", "-1.0.0", "1..2", "1.", ".1", "1.2.3 ", "1.2.3\n", "١.٢.٣",
     "9223372036854775808.0.0", "2147483648.0.0", "a" * 40 + "g", "g" * 40, "1" * 5000, "1.2.0-beta", "../1", "\0"],
)  # fmt: skip
def test_what_is_no_version_is_refused(text):
    with pytest.raises(versions.InvalidVersion):
        versions.parse(text)


def test_versions_are_ordered_by_number_not_by_text_or_by_age():
    history = [Built("a" * 40, "1.10.0", True), Built("b" * 40, "1.9.0", True), Built("c" * 40, "0.99.99", True)]
    assert chosen(None, history, False).semver == "1.10.0"
    assert versions.newest(built.semver for built in history) == "1.10.0"
    assert versions.newest([None]) is None


def test_an_owner_without_published_versions_gets_his_newest_build_if_he_says_nothing():
    history = [Built("a" * 40, None, False, None, 2.0), Built("b" * 40, None, False, None, 1.0)]
    assert chosen(None, history, True).hash == "a" * 40
    assert chosen(None, history, False) is chosen("latest", history, True) is None


def test_an_owner_without_public_versions_gets_his_newest_private_one_if_he_says_nothing():
    history = [Built("a" * 40, "0.1.0", False), Built("b" * 40, "0.2.0", False), Built("c" * 40, None, False)]
    assert chosen(None, history, True).semver == "0.2.0"
    assert chosen(None, history, False) is None
    assert chosen(None, [*history, Built("d" * 40, "0.0.1", True)], True).semver == "0.0.1"


def test_an_owner_without_public_versions_is_told_how_to_call_his_own():
    history = [Built("a" * 40, "0.1.0", False)]
    with pytest.raises(versions.NoSuchVersion, match="latestPrivate"):
        versions.resolve(versions.parse("latest"), history, is_owner=True)
    with pytest.raises(versions.NoSuchVersion, match="push one"):
        versions.resolve(versions.parse(None), [], is_owner=True)
    for wanted in (None, "latest"):
        with pytest.raises(versions.NoSuchVersion) as error:
            versions.resolve(versions.parse(wanted), history, is_owner=False)
        assert "latestPrivate" not in str(error.value) and "hash" not in str(error.value)


def test_a_deprecated_version_is_chosen_where_it_is_named_or_nothing_else_is_there():
    history = [Built("a" * 40, "1.2.0", True), Built("b" * 40, "1.2.1", True, "it is wrong")]
    assert [chosen(spec, history, False).semver for spec in (None, "latest", "1", "1.2.*", "1.2.1")] == [
        "1.2.0",
        "1.2.0",
        "1.2.0",
        "1.2.0",
        "1.2.1",
    ]
    assert chosen("1.2", history[1:], False).semver == "1.2.1"


@settings(deadline=None)
@given(st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_a_stored_number_reads_as_it_was_written(number):
    text = ".".join(map(str, number))
    assert versions.stored_semver(text) == versions.parse_semver(text)


@settings(deadline=None)
@given(st.tuples(NUMBERS, NUMBERS, NUMBERS), st.sampled_from(["major", "minor", "revision", "patch"]))
def test_the_next_version_is_the_smallest_greater_one_of_its_kind(current, increment):
    following = versions.parse_semver(versions.next_version(".".join(map(str, current)), increment))
    kept = {"major": 0, "minor": 1, "revision": 2, "patch": 2}[increment]
    assert following > current
    assert following[:kept] == current[:kept]
    assert following[kept] == current[kept] + 1
    assert all(number == 0 for number in following[kept + 1 :])


def test_the_first_numbers_are_those_of_algorithmia():
    assert [versions.next_version(None, kind) for kind in ("major", "minor", "revision", "patch")] == [
        "1.0.0",
        "0.1.0",
        "0.0.1",
        "0.0.1",
    ]


def test_numbers_do_not_grow_past_their_limit():
    assert versions.next_version("0.0.2147483646", "patch") == "0.0.2147483647"
    with pytest.raises(versions.InvalidVersion, match="2147483647"):
        versions.next_version("0.0.2147483647", "patch")
    with pytest.raises(versions.InvalidVersion, match="major, minor or revision"):
        versions.next_version("1.0.0", "huge")  # pyright: ignore[reportArgumentType]
