import io
import os
import tarfile
from pathlib import Path

import pytest

from serai._packing import find_files, pack
from serai.errors import FolderError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "algorithm.toml": "[algorithm]\n",
        "src/main.py": "x = 1\n",
        "src/__pycache__/main.pyc": "no",
        ".git/config": "no",
        ".venv/bin/python": "no",
        ".hidden": "yes",
        "models/deep/net.onnx": "\x00" * 1000,
    }
    for name, text in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "folder" / "src" / "main.py").chmod(0o700)
    return tmp_path / "folder"


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    pack(folder, out)
    return out.getvalue()


def test_regular_files_are_packed_and_caches_are_not(folder: Path):
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [
            ".hidden",
            "algorithm.toml",
            "models/deep/net.onnx",
            "src/main.py",
        ]
        assert all(member.isreg() for member in members)
        assert {member.name for member in members if member.mode == 0o755} == {"src/main.py"}
        inside = archive.extractfile("models/deep/net.onnx")
        assert inside is not None
        assert inside.read() == b"\x00" * 1000


def test_links_and_pipes_are_left_out_and_named(folder: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked_folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    out = io.BytesIO()
    assert pack(folder, out).skipped == ("link", "linked_folder", "pipe")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert len(archive.getnames()) == 4


def test_hard_links_are_packed_as_two_files(folder: Path):
    os.link(folder / "algorithm.toml", folder / "again.toml")
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert all(member.isreg() for member in archive.getmembers())


def test_the_same_folder_gives_the_same_bytes(folder: Path):
    first = packed(folder)
    os.utime(folder / "src" / "main.py", (1, 1))
    assert packed(folder) == first
    (folder / "src" / "main.py").write_text("x = 2\n")
    assert packed(folder) != first


def test_long_names_survive(folder: Path):
    name = "/".join(["d" * 60] * 5) + "/ü.txt"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("x")
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert name in archive.getnames()


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    with pytest.raises(FolderError, match=r"no algorithm\.toml or algorithmia\.conf"):
        packed(tmp_path)
    (tmp_path / "algorithmia.conf").write_text("{}")
    assert packed(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(FolderError, match="not a folder"):
        packed(tmp_path / "nothing")


def test_a_file_that_became_a_link_meanwhile_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = find_files(folder)
    monkeypatch.setattr("serai._packing.find_files", lambda root: found)
    (folder / ".hidden").unlink()
    (folder / ".hidden").symlink_to("/etc/hostname")
    with pytest.raises(FolderError, match=r"cannot read .*\.hidden"):
        packed(folder)


def test_a_name_that_is_not_utf8_is_refused(folder: Path):
    try:
        (folder / os.fsdecode(b"bad\xff")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(FolderError, match="rename it"):
        packed(folder)
