"""What of an author's folder is taken in."""

import os
import socket
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import TreeLimits, check_path
from serai_gateway.build.testing import write_tree
from serai_gateway.build.tree import copy_tree, make_read_only, remove_tree

FILES = {"a.txt": "one", "src/main.py": "two", "src/deep/x": b"\0\1", "bin/run": "#!"}


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source", FILES)


def test_a_tree_is_copied_as_it_is_and_read_only(source, tmp_path):
    (source / "bin/run").chmod(0o755)
    tree = copy_tree(source, tmp_path / "copy")
    assert (tree.num_files, tree.num_bytes) == (4, 10)
    for path, content in FILES.items():
        copied = tmp_path / "copy" / path
        assert copied.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert stat.S_IMODE(copied.stat().st_mode) == (0o555 if path == "bin/run" else 0o444)
    make_read_only(tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy/src").stat().st_mode) == 0o555
    remove_tree(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_tree_nested_deeper_than_any_path_is_removed(tmp_path):
    outside = write_tree(tmp_path / "outside", {"kept": ""})
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "link").symlink_to(outside)
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d" * 100, dir_fd=descriptor)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=descriptor)
        os.fchmod(descriptor, 0)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    remove_tree(tree)
    assert not tree.exists() and (outside / "kept").exists()


def test_the_hash_depends_on_names_modes_and_contents_and_on_nothing_else(source, tmp_path):
    copies = iter(range(100))

    def hashed():
        return copy_tree(source, tmp_path / f"copy{next(copies)}").sha256

    first = hashed()
    os.utime(source / "a.txt", (1, 1))
    (source / "empty").mkdir()
    write_tree(
        source, {".git/config": "x", "src/__pycache__/main.cpython-311.pyc": b"y", "old.pyc": b"z", ".venv/x": ""}
    )
    assert hashed() == first
    seen = {first}
    (source / "a.txt").write_text("One")
    seen.add(hashed())
    (source / "a.txt").rename(source / "b.txt")
    seen.add(hashed())
    (source / "b.txt").chmod(0o755)
    seen.add(hashed())
    write_tree(source, {"a.txtb": "", "new": "x"})
    seen.add(hashed())
    assert len(seen) == 5
    assert not (tmp_path / "copy1/.git").exists() and not (tmp_path / "copy1/old.pyc").exists()


def symlink_to_a_secret(folder):
    (folder / "evil").symlink_to("/etc/passwd")


def symlink_to_a_folder(folder):
    (folder / "evil").symlink_to("/etc")


def symlink_inside(folder):
    (folder / "evil").symlink_to("a.txt")


def dangling_symlink(folder):
    (folder / "evil").symlink_to("nowhere")


def hard_link(folder):
    os.link(folder / "a.txt", folder / "evil")


def pipe(folder):
    os.mkfifo(folder / "evil")


def unix_socket(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "evil"))


def device(folder):
    try:
        os.mknod(folder / "evil", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def control_character(folder):
    (folder / "e\x1b[2Jvil").write_text("")


def right_to_left(folder):
    (folder / "evil\u202etxt.py").write_text("")


def not_utf8(folder):
    with open(os.fsencode(folder) + b"/evil\xff", "wb"):
        pass


def same_name_twice(folder):
    (folder / "evil\u00e9").write_text("")
    (folder / "evile\u0301").write_text("")


@pytest.mark.parametrize(
    "spoil",
    [symlink_to_a_secret, symlink_to_a_folder, symlink_inside, dangling_symlink, hard_link, pipe, unix_socket, device,
     control_character, right_to_left, not_utf8, same_name_twice],
)  # fmt: skip
def test_what_is_neither_file_nor_folder_or_has_a_trick_name_is_refused(source, tmp_path, spoil):
    spoil(source)
    with pytest.raises(UnsafeTree, match=r"vil|a\.txt") as error:
        copy_tree(source, tmp_path / "copy")
    assert str(error.value).isprintable()


def test_our_own_distribution_may_be_hard_linked(source, tmp_path):
    hard_link(source)
    assert copy_tree(source, tmp_path / "copy", is_ours=True).num_files == 5


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        ("num_files", "files and folders"),
        ("depth", "folders deep"),
        ("total_bytes", "in all"),
        ("file_bytes", "larger"),
    ],
)
def test_each_limit_holds_to_the_file_folder_and_byte(source, tmp_path, limit, word):
    reached = {"num_files": 7, "depth": 3, "total_bytes": 10, "file_bytes": 3}
    copy_tree(source, tmp_path / "fits", TreeLimits(**reached))
    with pytest.raises(UnsafeTree, match=word):
        copy_tree(source, tmp_path / "not", TreeLimits(**(reached | {limit: reached[limit] - 1})))


def test_a_huge_file_is_refused_before_it_is_read(source, tmp_path):
    with open(source / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnsafeTree, match="huge: larger than 100 MiB"):
        copy_tree(source, tmp_path / "copy")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "..", "a/..", "a\0b", "a\nb", "\ud800", "x" * 256, "é" * 128,
     "a/" * 2000 + "b", "a\u200bb", "\u202e"],
)  # fmt: skip
def test_paths_that_lead_elsewhere_or_deceive_are_refused(path):
    with pytest.raises(UnsafeTree):
        check_path(path)


@settings(deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "b.c", "~", "-x"])).map("/".join))
def test_a_path_that_passes_stays_inside(path):
    try:
        parts = check_path(path)
    except UnsafeTree:
        return
    joined = os.path.normpath(os.path.join("/root/tree", *parts))
    assert joined == "/root/tree" or joined.startswith("/root/tree/")
    assert len(joined.split("/")) == 3 + len(parts)
