"""What of a folder of ours is committed."""

import os
import socket
import stat

import pytest

from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.folder import entries_of
from serai_gateway.build.testing import write_tree

FILES = {"a.txt": "one", "src/main.py": "two", "src/deep/x": b"\0\1", "bin/run": "#!"}


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source", FILES)


def test_all_files_but_caches_and_history_are_taken_in_the_same_order_each_time(source):
    (source / "bin/run").chmod(0o755)
    (source / "empty").mkdir()
    write_tree(
        source, {".git/config": "x", "src/__pycache__/main.cpython-311.pyc": b"y", "old.pyc": b"", ".venv/x": ""}
    )
    entries = list(entries_of(source))
    assert [(one.path, one.is_executable) for one in entries] == [
        ("a.txt", False), ("bin/run", True), ("src/main.py", False), ("src/deep/x", False),
    ]  # fmt: skip
    for one in entries:
        assert one.content == source / one.path


def symlink_to_a_secret(folder):
    (folder / "evil").symlink_to("/etc/passwd")


def symlink_to_a_folder(folder):
    (folder / "evil").symlink_to("/etc")


def symlink_inside(folder):
    (folder / "evil").symlink_to("a.txt")


def dangling_symlink(folder):
    (folder / "evil").symlink_to("nowhere")


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


def hidden_by_a_cache(folder):
    (folder / "evil").mkdir()
    (folder / "evil" / "evil").symlink_to("../__pycache__")


@pytest.mark.parametrize(
    "spoil",
    [symlink_to_a_secret, symlink_to_a_folder, symlink_inside, dangling_symlink, pipe, unix_socket, device,
     hidden_by_a_cache],
)  # fmt: skip
def test_what_is_neither_file_nor_folder_is_refused(source, spoil):
    spoil(source)
    with pytest.raises(UnsafeTree, match="evil"):
        list(entries_of(source))
