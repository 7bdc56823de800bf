"""What of a commit is taken in: plain files, byte for byte, whatever the repository says."""

import os
import stat

import pytest

from serai_gateway.build.checkout import export_commit
from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import TreeLimits
from serai_gateway.git import Author, Entry, GitError, Repository
from serai_gateway.git.testing import FILE, FOLDER, LINK, MODULE, PROGRAM, Plumbing, Raw

FILES = {"a.txt": b"one", "src/main.py": b"two", "src/deep/x": b"\0\1", "bin/run": b"#!"}


@pytest.fixture
def repository(home):
    return Repository(home, "a" * 32)


@pytest.fixture
def git(repository):
    return Plumbing(repository)


@pytest.fixture
def export(repository, tmp_path):
    copies = iter(range(1000))

    def run(commit, **options):
        target = tmp_path / f"copy{next(copies)}"
        return export_commit(repository, commit, target, **options), target

    return run


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_commit_is_taken_out_as_it_is_and_read_only(git, export):
    program = Raw(PROGRAM, b"", git.blob(b"#!"))
    tree, folder = export(git.commit_of(FILES | {"bin/run": program}))
    assert (tree.num_files, tree.num_bytes) == (4, 10) and content_of(folder) == FILES
    for path in FILES:
        assert stat.S_IMODE((folder / path).stat().st_mode) == (0o555 if path == "bin/run" else 0o444)


def test_the_hash_depends_on_names_modes_and_contents_and_on_nothing_else(git, repository, export):
    def hashed(files, parent=None):
        return export(git.commit_of(files, parent))[0].sha256

    first = hashed(FILES)
    skipped = {".hg/x": b"", "src/__pycache__/main.cpython-311.pyc": b"y", "old.pyc": b"z", ".venv/x": b""}
    tree, folder = export(git.commit_of(FILES | skipped, parent=git.commit_of({"older": b""})))
    assert tree.sha256 == first and content_of(folder) == FILES
    empty = Raw(FOLDER, b"", git.tree([]))
    assert hashed(FILES | {"empty": empty}) == first
    ours = [Entry(path, content, False) for path, content in FILES.items()]
    assert export(repository.commit(ours, "by us", Author("alice")))[0].sha256 == first
    others = [
        FILES | {"a.txt": b"One"},
        FILES | {"a.txt": Raw(PROGRAM, b"", git.blob(b"one"))},
        FILES | {"b": b""},
        {path.replace("a.txt", "b.txt"): content for path, content in FILES.items()},
        {path.replace("src/deep/x", "src/x"): content for path, content in FILES.items()},
    ]
    assert len({first, *map(hashed, others)}) == 6


def test_nothing_in_a_repository_changes_the_bytes_of_a_file(git, repository, export, tmp_path):
    marker = tmp_path / "marker"
    git.git("config", "filter.evil.smudge", f"touch {marker}; cat")
    git.git("config", "core.autocrlf", "true")
    (repository.path / "info").mkdir(exist_ok=True)
    attributes = b"* filter=evil ident eol=crlf text export-subst working-tree-encoding=UTF-16\n*.py export-ignore\n"
    (repository.path / "info/attributes").write_bytes(attributes)
    files = {
        ".gitattributes": attributes,
        "x.py": b"a\nb\r\n$Id$ $Format:%H$\n",
        "y": b"\xff\xfe\0",
        "sub/.gitignore": b"*",
    }
    files |= {
        ".gitmodules": b'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch marker"\n',
        "-x": b"",
        "x/-rf": b"",
    }
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
    _, folder = export(git.commit_of(files | {"big.bin": lfs}))
    assert content_of(folder) == files | {"big.bin": lfs}
    assert not marker.exists()


def test_replacements_and_grafts_do_not_count(git, repository, export):
    good, other = git.commit_of({"a": b"good"}), git.commit_of({"a": b"other"})
    git.git("update-ref", f"refs/replace/{good}", other)
    (repository.path / "info").mkdir(exist_ok=True)
    (repository.path / "info/grafts").write_text(f"{good} {other}\n")
    assert content_of(export(good)[1]) == {"a": b"good"}


def put(git, name, mode=FILE, content=b"x"):
    """A commit with one bad entry beside good ones."""
    object = git.tree([Raw(FILE, b"y", git.blob(b""))]) if mode == FOLDER else git.blob(content)
    return git.commit(git.tree([Raw(FILE, b"a.txt", git.blob(b"one")), Raw(mode, name, object)]))


def twice(git):
    one = Raw(FILE, b"evil", git.blob(b"1"))
    return git.commit(git.tree([one, one._replace(object=git.blob(b"2"))]))


def file_and_folder(git):
    below = git.tree([Raw(FILE, b"x", git.blob(b""))])
    return git.commit(git.tree([Raw(FILE, b"evil", git.blob(b"1")), Raw(FOLDER, b"evil", below)]))


def folder_and_file(git):
    below = git.tree([Raw(FILE, b"x", git.blob(b""))])
    return git.commit(git.tree([Raw(FOLDER, b"evil", below), Raw(FILE, b"evil", git.blob(b"1"))]))


def same_name_twice(git):
    return git.commit_of({"evil\u00e9": b"", "evile\u0301": b""})


def same_folder_twice(git):
    return git.commit_of({"evil\u00e9/x": b"", "evile\u0301/x": b""})


def gitlink(git):
    return git.commit(git.tree([Raw(MODULE, b"evil", git.commit_of(FILES))]))


HOSTILE = {
    "symlink to a secret": (lambda git: put(git, b"evil", LINK, b"/etc/passwd"), "a symbolic link"),
    "symlink to a folder": (lambda git: put(git, b"evil", LINK, b"/etc"), "a symbolic link"),
    "symlink inside": (lambda git: put(git, b"evil", LINK, b"a.txt"), "a symbolic link"),
    "symlink as .git": (lambda git: put(git, b".git", LINK, b"/etc"), "a symbolic link"),
    "symlink with a trick name": (lambda git: put(git, b"e\x1b[2Jvil", LINK, b"x"), "a symbolic link"),
    "submodule": (gitlink, "submodules are not supported"),
    "..": (lambda git: put(git, b"..", FOLDER), "lead outside"),
    ".": (lambda git: put(git, b".", FOLDER), "lead outside"),
    "an absolute path": (lambda git: put(git, b"/etc/evil"), "lead outside"),
    "a path as a name": (lambda git: put(git, b"../../evil"), "lead outside"),
    "carriage return": (lambda git: put(git, b"evil\r.py"), "control"),
    "line feed": (lambda git: put(git, b"evil\n.py"), "control"),
    "escape": (lambda git: put(git, b"e\x1b[2Jvil"), "control"),
    "right to left": (lambda git: put(git, "evil\u202etxt.py".encode()), "invisible"),
    "zero width": (lambda git: put(git, "evil\u200b".encode()), "invisible"),
    "not UTF-8": (lambda git: put(git, b"evil\xff"), "not UTF-8"),
    "a long name": (lambda git: put(git, b"e" * 256), "at most 255"),
    "two Unicode forms": (same_name_twice, "two names"),
    "two Unicode forms of a folder": (same_folder_twice, "two names"),
    "a name twice": (twice, "two names"),
    "a file and a folder": (file_and_folder, "below a file|two names"),
    "a folder and a file": (folder_and_file, "below a file|two names"),
}


@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_neither_file_nor_folder_or_has_a_trick_name_is_refused(git, export, tmp_path, make, reason):
    with pytest.raises(UnsafeTree, match=reason) as error:
        export(make(git))
    assert str(error.value).isprintable() and len(str(error.value)) < 400
    assert not any(path.is_symlink() for path in tmp_path.rglob("copy*/**/*"))


def test_names_that_look_bad_on_other_systems_are_names_like_any(git, export):
    files = {"a\\..\\b": b"1", "CON": b"2", "c:x": b"3", "git~1": b"4", ".gitmodules": b"5", ".Git": b"6", "a b": b"7"}
    assert content_of(export(git.commit_of(files))[1]) == files


@pytest.mark.parametrize("name", [b".git", b"__pycache__", b".venv"])
def test_history_and_caches_are_left_out(git, export, name):
    assert content_of(export(put(git, name, FOLDER))[1]) == {"a.txt": b"one"}


def test_a_composed_name_is_what_is_written(git, export):
    assert os.listdir(export(git.commit_of({"e\u0301": b""}))[1]) == ["\u00e9"]


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        ("num_files", "files and folders"),
        ("depth", "folders deep"),
        ("total_bytes", "in all"),
        ("file_bytes", "larger"),
    ],
)
def test_each_limit_holds_to_the_file_folder_and_byte(git, export, limit, word):
    reached = {"num_files": 7, "depth": 3, "total_bytes": 10, "file_bytes": 3}
    commit = git.commit_of(FILES | {"bin/run": b"#!"})
    export(commit, limits=TreeLimits(**reached))
    export(commit, limits=TreeLimits(**(reached | {limit: reached[limit] + 1})))
    with pytest.raises(UnsafeTree, match=word):
        export(commit, limits=TreeLimits(**(reached | {limit: reached[limit] - 1})))


def test_more_files_than_the_limit_are_refused_before_one_is_written(git, export, tmp_path):
    empty = git.blob(b"")
    commit = git.commit(git.tree(Raw(FILE, b"%05d" % number, empty) for number in range(50_001)))
    with pytest.raises(UnsafeTree, match="more than 50,000 files"):
        export(commit)
    assert not list(tmp_path.glob("copy*/*"))


def test_many_small_files_come_out_whole(git, export):
    files = {f"{number % 7}/{number}": b"%d" % number for number in range(1100)}
    assert content_of(export(git.commit_of(files))[1]) == files


def test_a_huge_file_is_refused_before_it_is_read(git, export, tmp_path):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(101 << 20)
    commit = git.commit(git.tree([Raw(FILE, b"huge", git.git("hash-object", "-w", str(huge)))]))
    with pytest.raises(UnsafeTree, match="huge: larger than 100 MiB"):
        export(commit)
    assert not list(tmp_path.glob("copy*/*"))


def test_a_tree_deeper_than_any_is_refused(git, export):
    tree = git.tree([Raw(FILE, b"x", git.blob(b""))])
    for _ in range(60):
        tree = git.tree([Raw(FOLDER, b"d", tree)])
    with pytest.raises(UnsafeTree, match="nested more than 50 folders deep"):
        export(git.commit(tree))


def test_a_tree_that_blows_up_is_refused(git, export):
    """Each level lists the one below ten times: few objects, 10^9 files."""
    tree = git.tree(Raw(FILE, b"%d" % number, git.blob(b"")) for number in range(10))
    for _ in range(8):
        tree = git.tree(Raw(FOLDER, b"%d" % number, tree) for number in range(10))
    with pytest.raises(GitError, match="git answered with more than 32 MiB and was stopped"):
        export(git.commit(tree))


@pytest.mark.parametrize("commit", ["1" * 40, "HEAD", "--help", "-x", "a\nb", ""])
def test_what_is_no_commit_is_an_error_of_git(git, export, commit):
    with pytest.raises(GitError):
        export(commit)


def test_missing_objects_are_an_error_of_git(git, export):
    lost = "1" * 40
    for commit in (
        git.commit(lost),
        put(git, b"", FOLDER),
        git.commit(git.tree([Raw(FILE, b"lost", lost)])),
        git.commit(git.tree([Raw(FOLDER, b"lost", lost)])),
        git.commit(git.tree([Raw(FILE, b"tree", git.tree([]))])),
    ):
        with pytest.raises(GitError):
            export(commit)


def test_a_damaged_object_is_an_error_of_git(git, repository, export):
    blob = git.blob(os.urandom(100_000))
    commit = git.commit(git.tree([Raw(FILE, b"a", blob)]))
    place = repository.path / "objects" / blob[:2] / blob[2:]
    place.chmod(0o644)
    whole = place.read_bytes()
    for damaged in (whole[:50_000], whole[:50_000] + b"\0" * 100 + whole[50_100:], b""):
        place.write_bytes(damaged)
        with pytest.raises(GitError):
            export(commit)
