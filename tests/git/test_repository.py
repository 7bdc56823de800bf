"""A repository: made once, moved by one at a time, whole whatever is killed."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serai.box.short_lived import CommandGroups
from serai_gateway.build.testing import die_at
from serai_gateway.git import Author, Entry, GitError, Head, Repository, box, repositories
from serai_gateway.git.testing import Plumbing

ANN = Author("Ann")
FILES = {"algorithm.toml": b"[algorithm]\n", "src/x.py": b"x = 1\n", "bin/run": b"#!", 'odd " \\ \n é': b"\0\xff"}


def left(repository):
    return [one.name for one in repository.path.parent.iterdir() if one.name.startswith(".")]


def test_it_is_made_with_a_first_commit_and_only_once(repository):
    assert not repository.exists
    commit = repository.create(FILES, "first\n\nlines", ANN)
    git = Plumbing(repository)
    assert repository.exists and repository.head() == Head("refs/heads/master", commit)
    assert repository.refs() == {"refs/heads/master": commit}
    (only,) = repository.history(None, None)
    assert only == (commit, "Ann", "first\n\nlines")
    listing = git.git("ls-tree", "-r", "-z", commit).split("\0")
    assert sorted(line.partition("\t")[2] for line in listing if line) == sorted(FILES)
    assert [line for line in listing if line.startswith("100755")] == [line for line in listing if "bin/run" in line]
    assert git.git("cat-file", "commit", commit).splitlines()[1].startswith("author Ann <ann@users.noreply> ")
    with pytest.raises(GitError, match="has commits already"):
        repository.create(FILES, "again", ANN)
    assert repository.head().commit == commit
    git.git("fsck", "--full", "--strict")


def test_many_at_once_make_one(repository):
    start = threading.Barrier(6)

    def run(_):
        start.wait(30)
        repository.ensure()
        return repository.head()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(run, range(6))) == {Head("refs/heads/master", None)}
    assert left(repository) == [] and repositories(repository.home) == ["a" * 32]


def test_a_commit_waits_until_it_is_accepted_and_the_same_files_are_the_same_commit(repository):
    first = repository.create(FILES, "first", ANN)
    entries = [Entry(path, content, path == "bin/run") for path, content in FILES.items()]
    assert repository.commit(entries, "the same", ANN) == first
    second = repository.commit(entries[:1], "fewer", ANN)
    head = repository.head()
    assert head.commit == first and second != first
    repository.accept(head, second)
    assert repository.head().commit == second
    assert [one.hash for one in repository.history(None, None)] == [second, first]


def test_of_two_that_accept_after_the_same_head_one_is_told(repository):
    repository.create({}, "empty", ANN)
    head = repository.head()
    commits = [repository.commit([Entry("a", b"%d" % number, False)], "x", ANN) for number in range(2)]
    repository.accept(head, commits[0])
    with pytest.raises(GitError):
        repository.accept(head, commits[1])
    assert repository.head().commit == commits[0]


def test_of_many_that_accept_at_once_exactly_one_wins(repository):
    repository.create({}, "empty", ANN)
    head = repository.head()
    commits = [repository.commit([Entry("a", b"%d" % number, False)], "x", ANN) for number in range(5)]
    start = threading.Barrier(5)

    def accept(commit):
        start.wait(30)
        try:
            repository.accept(head, commit)
        except GitError:
            return None
        return commit

    with ThreadPoolExecutor(5) as pool:
        won = [commit for commit in pool.map(accept, commits) if commit]
    assert won == [repository.head().commit]


def test_what_entries_raise_leaves_the_head_alone(repository):
    first = repository.create(FILES, "first", ANN)

    def entries():
        yield Entry("a", b"x", False)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        repository.commit(entries(), "never", ANN)
    with pytest.raises(OSError):
        repository.commit([Entry("a", repository.home / "nowhere", False)], "never", ANN)
    assert repository.head().commit == first
    assert repository.commit([Entry("b", b"", False)], "next", ANN) != first


@pytest.mark.parametrize("author", ["Ann <x>\n", "", "a" * 500, "é", "x > y"])
def test_odd_authors_write_no_lines_of_their_own(repository, git, author):
    try:
        commit = repository.create({"a": b""}, "m", Author(author))
    except GitError:
        return
    raw = git.git("cat-file", "commit", commit)
    assert len(raw.split("\n\n")[0].splitlines()) == 3


def test_history_goes_from_one_commit_to_another_and_takes_hashes_only(repository):
    hashes = [repository.create({}, "0", ANN)]
    for number in range(1, 5):
        head = repository.head()
        hashes.append(repository.commit([Entry("a", b"%d" % number, False)], f"{number}", ANN))
        repository.accept(head, hashes[-1])

    def messages(since, until, limit=100):
        return [one.message for one in repository.history(since, until, limit)]

    assert messages(None, None) == ["4", "3", "2", "1", "0"]
    assert messages(hashes[1], hashes[3]) == ["3", "2"]
    assert messages(None, hashes[2], 2) == ["2", "1"] and messages(None, None, 0) == ["4"]
    assert messages(hashes[4], hashes[0]) == []
    for odd in (
        "--all",
        "-1",
        "HEAD",
        "master",
        "--output=/tmp/x",
        "a" * 39,
        "A" * 40,
        "1" * 40 + "\n",
        "",
        "..",
        "^x",
    ):
        for pair in ((odd, None), (None, odd)):
            with pytest.raises(GitError):
                repository.history(*pair)
    with pytest.raises(GitError):
        repository.history(None, "1" * 40)
    assert Repository(repository.home, "b" * 32).exists is False


@pytest.mark.parametrize("id", ["", "a" * 31, "a" * 33, "A" * 32, "../" + "a" * 29, "a" * 32 + "\n", "g" * 32])
def test_what_is_no_id_is_no_repository(home, id):
    with pytest.raises(GitError):
        Repository(home, id)


def test_removed_is_gone_at_once_also_in_use_and_twice(repository):
    repository.create(FILES, "first", ANN)
    reading = (repository.path / "HEAD").open()
    repository.remove()
    assert not repository.exists and left(repository) == [] and repositories(repository.home) == []
    reading.close()
    repository.remove()
    with pytest.raises((GitError, OSError)):
        repository.head()
    assert repository.create({"a": b"new"}, "again", ANN) == repository.head().commit


def test_one_that_is_removed_while_a_commit_is_made_fails_that_commit(repository):
    repository.create(FILES, "first", ANN)

    def entries():
        yield Entry("a", b"x", False)
        repository.remove()
        yield Entry("b", b"y", False)

    with pytest.raises((GitError, OSError)):
        head = repository.head()
        repository.accept(head, repository.commit(entries(), "never", ANN))
    assert not repository.exists


def test_one_that_is_killed_anywhere_is_whole_and_goes_on(repository, git):
    repository.create({"a": b"0"}, "0", ANN)
    killed, moment, number = True, 1, 0

    def change():
        box._groups = CommandGroups("serai-git-of-a-child")
        head = repository.head()
        repository.accept(head, repository.commit([Entry("a", b"%d" % moment, False)], f"{moment}", ANN))

    while killed:
        before = repository.head().commit
        killed = die_at(moment, change)
        after = repository.head().commit
        assert after == before or repository.history(None, None)[0].message == f"{moment}"
        moment += 23
        number += 1
    git.git("fsck", "--full", "--strict")
    assert number > 3


def test_a_first_one_that_is_killed_anywhere_is_not_there_or_whole(home):
    killed, moment = True, 1

    def make():
        box._groups = CommandGroups("serai-git-of-a-child")
        Repository(home, "b" * 32).create({"a": b""}, "first", ANN)

    while killed:
        shutil.rmtree(home / "git", ignore_errors=True)
        killed = die_at(moment, make)
        mine = Repository(home, "b" * 32)
        mine.ensure()
        if mine.head().commit is None:
            mine.create({"a": b""}, "first", ANN)
        assert len(mine.history(None, None)) == 1
        moment += 31


LEFT = (
    "objects/tmp_objdir-incoming-x/pack/tmp_pack_1", "objects/incoming-y/1", "objects/pack/tmp_pack_z", "HEAD.lock",
    "packed-refs.lock", "refs/heads/master.lock", "refs/heads/a/b.lock", "gc.pid",
)  # fmt: skip


def test_what_killed_ones_left_goes_before_the_next_one_writes_and_not_while_one_does(repository):
    repository.create(FILES, "first", ANN)
    for path in LEFT:
        place = repository.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")

    def entries():
        yield Entry("a", b"x", False)
        for path in LEFT[:3]:
            place = repository.path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
        repository.set_branch("refs/heads/master")  # writes, too
        assert all((repository.path / path).exists() for path in LEFT[:3])

    head = repository.head()
    commit = repository.commit(entries(), "next", ANN)
    repository.accept(head, commit)
    assert not any((repository.path / path).exists() for path in LEFT)
    assert repository.head().commit == commit


def test_tidying_packs_many_small_files_and_loses_nothing(repository, git):
    first = repository.create(FILES, "first", ANN)
    blobs = [git.blob(b"%d" % number) for number in range(8)]
    repository.tidy()
    assert repository.head().commit == first
    assert all(git.git("cat-file", "-t", blob) == "blob" for blob in blobs), "they are young"
    assert repository.size_bytes() > 0 and os.path.isdir(repository.path / "objects")
