"""Archives from authors, honest and hostile, made by Python's tarfile and by hand."""

import gzip
import io
import os
import random
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway.build.archive import extract
from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.paths import TreeLimits
from serai_gateway.build.testing import write_tree


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def pack(*members, format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=format, compresslevel=1) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(data, target, limits=None):
    extract(io.BytesIO(data), target, limits)
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


LONG = "long/" * 30 + "näme" * 20 + ".txt"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_all_usual_formats_come_out_as_they_went_in(tmp_path, format):
    files = {"algorithm.toml": b"x", "src/a.py": b"y" * 5000, "empty": b"", "./dot/b": b"z"}
    if format != tarfile.USTAR_FORMAT:
        files[LONG] = b"long"
    data = pack(member("./", type=tarfile.DIRTYPE), *(member(*item) for item in files.items()), format=format)
    assert unpack(data, tmp_path / "out") == {name.removeprefix("./"): content for name, content in files.items()}


def test_what_gnu_tar_packs_is_understood(tmp_path):
    source = write_tree(tmp_path / "source", {LONG: "1", "bin/run": "2"})
    (source / "bin/run").chmod(0o755)
    subprocess.run(["tar", "czf", tmp_path / "x.tgz", "-C", source, "."], check=True)
    assert unpack((tmp_path / "x.tgz").read_bytes(), tmp_path / "out") == {LONG: b"1", "bin/run": b"2"}
    assert os.access(tmp_path / "out/bin/run", os.X_OK) and not os.access(tmp_path / f"out/{LONG}", os.X_OK)


HOSTILE = {
    "parent": [member("../evil", b"x")],
    "deep parent": [member("a/../../evil", b"x")],
    "absolute": [member("/tmp/evil", b"x")],
    "symlink": [member("evil", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "symlink then file": [member("d", type=tarfile.SYMTYPE, linkname="/tmp"), member("d/evil", b"x")],
    "hard link": [member("a", b"x"), member("evil", type=tarfile.LNKTYPE, linkname="a")],
    "device": [member("evil", type=tarfile.CHRTYPE, devmajor=1, devminor=5)],
    "block device": [member("evil", type=tarfile.BLKTYPE)],
    "pipe": [member("evil", type=tarfile.FIFOTYPE)],
    "contiguous": [member("evil", type=tarfile.CONTTYPE)],
    "twice": [member("evil", b"1"), member("evil", b"2")],
    "twice by unicode": [member("evil\u00e9", b"1"), member("evile\u0301", b"2")],
    "twice by dot": [member("evil", b"1"), member("./evil", b"2")],
    "file, then below it": [member("evil", b"1"), member("evil/x", b"2")],
    "folder, then file": [member("evil/x", b"1"), member("evil", b"2")],
    "no name": [member(".", b"1")],
    "control characters": [member("evil\x1b[2J", b"1")],
    "sparse": [member("evil", b"1", pax_headers={"GNU.sparse.map": "0,1"})],
    "size twice": [member("evil", b"1", pax_headers={"size": "100000"})],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_hostile_entries_are_refused_and_nothing_lies_outside(tmp_path, members):
    with pytest.raises(UnsafeTree) as error:
        unpack(pack(*members), tmp_path / "in/out")
    assert str(error.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"out"}
    assert not os.path.exists("/tmp/evil")


@pytest.fixture(autouse=True)
def folders(tmp_path):
    (tmp_path / "in").mkdir()


def test_bombs_are_stopped_by_ratio_long_before_the_size_limit(tmp_path):
    data = pack(member("zeros", bytes(90 << 20)))
    assert len(data) < 1 << 20
    with pytest.raises(UnsafeTree, match="100 times its size"):
        unpack(data, tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*"))
    assert written < 60 << 20
    nested = gzip.compress(data)
    with pytest.raises(UnsafeTree):
        unpack(nested, tmp_path / "out2")


def test_small_files_may_pack_as_well_as_they_like(tmp_path):
    assert unpack(pack(member("zeros", bytes(9 << 20))), tmp_path / "out")["zeros"] == bytes(9 << 20)


@pytest.mark.parametrize(
    ("limit", "word"),
    [("num_files", "files and folders"), ("depth", "deep"), ("total_bytes", "in all"), ("file_bytes", "larger")],
)
def test_each_limit_holds_to_the_file_folder_and_byte(tmp_path, limit, word):
    data = pack(member("a/b/c", b"123"), member("d", b"4567"))
    reached = {"num_files": 4, "depth": 3, "total_bytes": 7, "file_bytes": 4}
    unpack(data, tmp_path / "fits", TreeLimits(**reached))
    with pytest.raises(UnsafeTree, match=word):
        unpack(data, tmp_path / "not", TreeLimits(**(reached | {limit: reached[limit] - 1})))


def test_a_million_headers_without_files_do_not_keep_us_busy(tmp_path):
    block = gzip.decompress(pack(member("x", pax_headers={"comment": "y" * 10})))[:1024]
    with pytest.raises(UnsafeTree, match="files and folders"):
        unpack(gzip.compress(block * 3000, 1), tmp_path / "out", TreeLimits(num_files=100))


VALID = pack(member("algorithm.toml", b"name" * 500), member("src/x.py", os.urandom(3000)))


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    for end in range(0, len(VALID), 7):
        with pytest.raises(UnsafeTree):
            unpack(VALID[:end], tmp_path / f"out{end}")


def test_something_after_the_end_is_refused(tmp_path):
    for number, rest in enumerate((b"x", gzip.compress(b"more"), VALID)):
        with pytest.raises(UnsafeTree, match="follows the end"):
            unpack(VALID + rest, tmp_path / f"out{number}")
    hidden = gzip.compress(gzip.decompress(VALID).rstrip(b"\0") + bytes(2048) + b"hidden")
    with pytest.raises(UnsafeTree):
        unpack(hidden, tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"PK\3\4zip", b"BZh91AY", b"\x1f\x8b", gzip.compress(b""), gzip.compress(b"x" * 512)]
)
def test_what_is_no_archive_is_refused(tmp_path, data):
    with pytest.raises(UnsafeTree):
        unpack(data, tmp_path / "out")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_damage_gets_anything_outside_or_any_other_error(tmp_path_factory, seed):
    rng = random.Random(seed)
    raw = bytearray(gzip.decompress(VALID))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(raw))
        raw[at] = rng.choice((0, 0xFF, rng.randrange(256), ord("."), ord("/")))
    if rng.random() < 0.7:  # a checksum that is right again lets the damage through to the fields
        for start in range(0, len(raw) - 512, 512):
            if raw[start + 257 : start + 262] == b"ustar":
                raw[start + 148 : start + 156] = b" " * 8
                raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + 512])
    base = tmp_path_factory.mktemp("damage")
    try:
        unpack(gzip.compress(bytes(raw), 1), base / "out")
    except UnsafeTree as error:
        assert str(error)
    assert {path.name for path in base.iterdir()} <= {"out"}
    assert not any(path.is_symlink() for path in base.rglob("*"))
