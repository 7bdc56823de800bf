"""Which paths are taken in, and what becomes of the folders that are ours then."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import check_path
from serai_gateway.build.testing import write_tree
from serai_gateway.build.tree import make_read_only, remove_tree

FILES = {"a.txt": "one", "src/main.py": "two", "src/deep/x": b"\0\1", "bin/run": "#!"}


def test_a_tree_is_made_read_only_and_removed_all_the_same(tmp_path):
    tree = write_tree(tmp_path / "tree", FILES)
    (tree / "bin/run").chmod(0o755)
    make_read_only(tree)
    for path in (tree, *tree.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o222 and (mode == 0o555) == (path.is_dir() or path.name == "run")
    remove_tree(tree)
    assert not tree.exists()


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
