"""The file store, one behaviour suite for every kind, then what is the directory's own."""

import hashlib
import io
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serai_gateway.build.testing import die_at
from serai_gateway.files import DirectoryStore, NoSuchFile, TooLarge, WrongContent, open_store

CONTENT = b"weights" * 300_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=[open_store])
def store(request, tmp_path):
    return request.param(tmp_path)


def everything(store):
    return sorted(path for path in store._folder.rglob("*") if path.is_file())


def test_what_is_put_comes_back_by_its_content(store, tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    for source in (tmp_path / "source", io.BytesIO(CONTENT), io.BytesIO(CONTENT)):
        assert store.put(source, sha256=DIGEST) == (DIGEST, len(CONTENT))
    assert store.exists(DIGEST)
    with store.open(DIGEST) as file:
        assert file.read() == CONTENT
    assert store.path(DIGEST).is_absolute() and store.path(DIGEST).read_bytes() == CONTENT
    assert store.put(io.BytesIO(b"")).num_bytes == 0


def test_content_other_than_announced_is_not_stored(store):
    with pytest.raises(WrongContent, match=DIGEST):
        store.put(io.BytesIO(CONTENT + b"!"), sha256=DIGEST)
    assert not store.exists(DIGEST) and everything(store) == []


def test_a_file_is_as_large_as_allowed_and_not_a_byte_larger(store):
    assert store.put(io.BytesIO(CONTENT), max_bytes=len(CONTENT)).sha256 == DIGEST
    with pytest.raises(TooLarge, match="2,099,999 bytes"):
        store.put(io.BytesIO(CONTENT), max_bytes=len(CONTENT) - 1)


@pytest.mark.parametrize("name", ["", "abc", "../" * 20 + "etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", "/" * 64])
def test_only_a_digest_names_a_file(store, name):
    for method in (store.open, store.path, store.exists):
        with pytest.raises(NoSuchFile):
            method(name)
    with pytest.raises(NoSuchFile):
        store.put(io.BytesIO(b"x"), sha256=name)


def test_a_missing_file_is_missing(store):
    assert not store.exists("0" * 64)
    for method in (store.open, store.path):
        with pytest.raises(NoSuchFile):
            method("0" * 64)


def test_a_source_that_breaks_off_leaves_nothing(store):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            if not data:
                raise ConnectionResetError("gone")
            return data

    with pytest.raises(ConnectionResetError):
        store.put(Broken(CONTENT))
    assert everything(store) == []


def test_many_at_once_store_it_once(store):
    start = threading.Barrier(8)

    def put(_):
        start.wait(30)
        return store.put(io.BytesIO(CONTENT))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, range(8))) == {(DIGEST, len(CONTENT))}
    assert everything(store) == [store.path(DIGEST)]


def test_a_stored_file_is_read_only(tmp_path):
    store = DirectoryStore(tmp_path)
    store.put(io.BytesIO(CONTENT))
    assert stat.S_IMODE(store.path(DIGEST).stat().st_mode) == 0o444
    assert store.path(DIGEST) == tmp_path / "sha256" / DIGEST[:2] / DIGEST[2:]


def test_a_file_cut_short_on_disk_is_replaced(tmp_path):
    store = DirectoryStore(tmp_path)
    store.put(io.BytesIO(CONTENT))
    place = store.path(DIGEST)
    place.unlink()
    place.write_bytes(CONTENT[:1000])
    store.put(io.BytesIO(CONTENT))
    assert place.read_bytes() == CONTENT


def test_a_writer_that_is_killed_anywhere_leaves_no_half_file(tmp_path):
    class Slow(io.BytesIO):
        """Opens a file at each read, so that there is a moment to die at in the middle of writing."""

        def read(self, size=-1):
            open(os.devnull, "rb").close()
            return super().read(min(size, 500_000))

    moment, killed, left_overs = 1, True, 0
    while killed:
        store = open_store(tmp_path / str(moment))
        killed = die_at(moment, lambda store=store: store.put(Slow(CONTENT)))
        if store.exists(DIGEST):
            assert store.path(DIGEST).read_bytes() == CONTENT
        else:
            assert killed
        left_overs += sum(path.name.startswith(".part-") for path in everything(store))
        assert store.sweep(time.time() - 60) == 0  # what is being written now stays
        store.sweep(time.time() + 2 * 24 * 3600)
        assert everything(store) == ([store.path(DIGEST)] if store.exists(DIGEST) else [])
        assert store.put(io.BytesIO(CONTENT)).sha256 == DIGEST
        moment += 1
    assert moment > 8 and left_overs > 4
