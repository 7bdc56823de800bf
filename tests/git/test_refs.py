"""Which branches and tags a push may change, and what of it is built."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gateway.api.git.refs import Update, parse_updates, plan
from serai_gateway.git import NO_COMMIT, Head, PushRefused
from serai_gateway.git.limits import LIMITS

A, B = "a" * 40, "b" * 40
EMPTY = Head("refs/heads/master", None)
MAIN = Head("refs/heads/main", A)
HAS = {"refs/heads/main": A, "refs/tags/v1": A, "refs/heads/x": A}


def pushed(ref, old=NO_COMMIT, new=B):
    return Update(ref, old, new)


@pytest.mark.parametrize(
    "ref",
    ["refs/heads/main", "refs/tags/v1.0", "refs/heads/feature/x_1", "refs/heads/a@b",
     "refs/heads/a+b", "refs/tags/" + "x" * 189],
)  # fmt: skip
def test_plain_names_are_taken(ref):
    assert parse_updates([f"{A} {B} {ref}"]) == (Update(ref, A, B),)


@pytest.mark.parametrize(
    "line",
    ["", "x", f"{A} {B}", f"{A} {B} ", f"{A} {B} main", f"{A[:-1]} {B} refs/heads/x", f"{A} {B.upper()} refs/heads/x",
     *(f"{A} {B} {ref}" for ref in (
         "refs/heads/", "refs/heads/-x", "refs/heads/.x", "refs/heads/a..b", "refs/heads/a//b", "refs/heads/a/",
         "refs/heads/a.", "refs/heads/a.lock", "refs/heads/a@{1}", "refs/heads/a b", "refs/heads/a\nb", "refs/heads/:",
         "refs/heads/a~1", "refs/heads/a^", "refs/heads/a*", "refs/heads/a[", "refs/heads/a\\b", "refs/heads/é",
         "refs/heads/\x1b[2J", "refs/hidden/x", "refs/serai/waiting", "refs/notes/x", "refs/heads", "HEAD", "../x",
         "refs/replace/" + A, "refs/heads/" + "x" * 190, "refs/heads/" + "x" * 10_000, "Refs/x", "refs/heads/\udcff",
     ))],
)  # fmt: skip
def test_odd_names_are_refused_in_words_that_can_be_shown(line):
    with pytest.raises(PushRefused) as error:
        parse_updates([line])
    assert str(error.value).isprintable() and len(str(error.value)) < 300


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_push_changes_so_many_at_most(more):
    lines = [f"{NO_COMMIT} {A} refs/heads/b{number}" for number in range(LIMITS.refs_per_push + more)]
    if more <= 0:
        assert len(parse_updates(lines)) == len(lines)
    else:
        with pytest.raises(PushRefused, match="101 branches and tags in one push; at most 100"):
            parse_updates(lines)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_repository_has_so_many_at_most(more):
    existing = {f"refs/heads/b{number}": A for number in range(LIMITS.num_refs - 1 + more)}
    if more <= 0:
        plan([pushed("refs/heads/new")], MAIN, existing)
    else:
        with pytest.raises(PushRefused, match="1001 branches and tags in all; at most 1000: delete some"):
            plan([pushed("refs/heads/new")], MAIN, existing)
        plan([pushed("refs/heads/new"), pushed("refs/heads/b1", A, NO_COMMIT)], MAIN, existing)
        plan([pushed("refs/heads/b1", A, B)], MAIN, existing)


@pytest.mark.parametrize(
    ("refs", "branch"),
    [
        (["refs/heads/main"], "refs/heads/main"),
        (["refs/heads/master"], "refs/heads/master"),
        (["refs/heads/master", "refs/heads/main"], "refs/heads/main"),
        (["refs/heads/x", "refs/heads/master"], "refs/heads/master"),
        (["refs/heads/y", "refs/heads/x"], "refs/heads/y"),
        (["refs/tags/v1"], "refs/heads/master"),
    ],
)
def test_a_first_push_says_which_branch_is_built(refs, branch):
    decided = plan([pushed(ref) for ref in refs], EMPTY, {})
    assert decided.branch == branch
    assert decided.built == (pushed(branch) if branch in refs else None)


def test_later_only_the_default_branch_is_built():
    assert plan([pushed("refs/heads/x", A), pushed("refs/tags/v2")], MAIN, HAS).built is None
    moved = pushed("refs/heads/main", A)
    assert plan([pushed("refs/heads/x", A), moved], MAIN, HAS).built == moved
    assert plan([pushed("refs/heads/master")], MAIN, HAS).branch == "refs/heads/main"


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (pushed("refs/heads/main", A, NO_COMMIT), "default branch cannot be deleted"),
        (pushed("refs/tags/v1", A, B), "a tag stays where it is"),
    ],
)
def test_what_others_rely_on_stays(update, why):
    with pytest.raises(PushRefused, match=why):
        plan([pushed("refs/heads/x", A), update], MAIN, HAS)
    plan([pushed("refs/tags/v1", A, NO_COMMIT), pushed("refs/heads/x", A, NO_COMMIT)], MAIN, HAS)


_REFS = st.sampled_from([*HAS, "refs/heads/new", "refs/tags/new", "refs/heads/master"])
_COMMITS = st.sampled_from([NO_COMMIT, A, B])


@given(
    st.lists(st.builds(Update, _REFS, _COMMITS, _COMMITS), unique_by=lambda update: update.ref),
    st.sampled_from([EMPTY, MAIN]),
)
def test_whatever_is_taken_builds_at_most_a_commit_of_the_default_branch(updates, head):
    try:
        decided = plan(updates, head, HAS if head.commit else {})
    except PushRefused:
        return
    assert decided.branch.startswith("refs/heads/")
    assert not head.commit or decided.branch == head.branch
    named = [update for update in updates if update.ref == decided.branch and update.new != NO_COMMIT]
    assert [decided.built] == (named or [None])


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_any_line_is_taken_or_refused(text):
    for line in (text, f"{A} {B} {text}", f"{A} {B} refs/heads/{text}"):
        try:
            (update,) = parse_updates([line])
        except PushRefused:
            continue
        assert update.ref.isascii() and not set(update.ref) & set(" ~^:?*[\\\n\t\0") and "/-" not in update.ref[:12]
