"""What reaches /git/ without a git client behind it, or with one that asks for odd things."""

import base64
import gzip
import hashlib
import http.client
import os
import socket
import struct
import zlib
from pathlib import Path

import pytest

from serai_gateway.catalogue import open_catalogue
from serai_gateway.git import Repository
from serai_gateway.testing import Answer, Service, commit_all, run_git, until, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

NAME = "operator/git_protocol"
UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
FLUSH, ZERO = b"0000", b"0" * 40


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three commits that was pushed."""
    folder = write_algorithm(tmp_path_factory.mktemp("git") / "git_protocol", "def apply(input):\n    return 'ok'\n")
    for number in range(3):
        (folder / "README.md").write_text(f"{number}\n")
        commit_all(folder)
    done = service.push(folder, NAME)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def canary(service: Service, folder: Path):
    """After every case the branch is where it was, and what it built answers."""
    head = run_git(folder, "rev-parse", "HEAD").stdout.strip()
    yield
    assert run_git(folder, "ls-remote", service.remote(NAME), "refs/heads/*").stdout.split() == [
        head,
        "refs/heads/main",
    ]
    assert service.call(NAME, b'"x"').json()["result"] == "ok"


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"me:{key}".encode()).decode()


def ask(service: Service, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        return service.request(method, path, body, {"Authorization": basic(service.key)} | given)
    except (ConnectionResetError, http.client.IncompleteRead):
        return Answer(200, {}, b"")  # git ended before its answer did, and nobody may take that for one


def line(text: bytes) -> bytes:
    return b"%04x%s" % (len(text) + 4, text)


def pack_of(*objects: tuple[int, bytes]) -> bytes:
    """A pack of whole objects: type (1 commit, 2 tree, 3 blob) and content."""
    raw = b"PACK" + struct.pack(">II", 2, len(objects))
    for kind, content in objects:
        size, header = len(content), bytearray()
        byte, size = kind << 4 | size & 15, size >> 4
        while size:
            header.append(byte | 0x80)
            byte, size = size & 0x7F, size >> 7
        raw += bytes((*header, byte)) + zlib.compress(content)
    return raw + hashlib.sha1(raw).digest()


def push_body(pack: bytes, new: bytes, ref: bytes = b"refs/heads/x", old: bytes = ZERO) -> bytes:
    return line(b"%s %s %s\0report-status side-band-64k agent=test" % (old, new, ref)) + FLUSH + pack


def push(service: Service, body: bytes, **headers: str) -> Answer:
    kind = f"application/x-{RECEIVE}-request"
    return ask(service, "POST", f"/git/{NAME}.git/{RECEIVE}", body, Content_Type=kind, **headers)


@pytest.mark.parametrize(
    "path",
    [
        "config", "HEAD", "objects/info/alternates", "objects/info/packs", "info/refs", "info/refs?service=git-evil",
        "info/refs?service=git-upload-pack&service=git-receive-pack", "info/refs?service=git-upload-pack%00", "hooks/x",
        "objects/pack/", "refs/heads/main", "../../serai.db", "..%2f..%2fserai.db", "%2e%2e/%2e%2e/operator.key",
        "info/refs/", "/info/refs?service=git-upload-pack", "info//refs?service=git-upload-pack", "writers", "",
        "git-upload-archive", "info/refs?service=git-upload-archive", "git-upload-pack/../config", "info/refs%00",
    ],
)  # fmt: skip
def test_files_of_a_repository_are_served_to_nobody(service: Service, path: str) -> None:
    answer = ask(service, "GET", f"/git/{NAME}.git/{path}")
    assert answer.status in (400, 404), (answer.status, answer.body)
    assert b"ref:" not in answer.body and b"core" not in answer.body


@pytest.mark.parametrize(
    "name",
    ["-x/y", "operator/-x", "operator/../demo", "operator/.git", "operator", "%2e%2e/x", "operator//git_protocol",
     "operator/git_protocol%00", "a" * 65 + "/x", "operator/" + "a" * 65, "operator%2fgit_protocol", "opérator/x",
     "operator/git_protocol.git/../git_protocol"],
)  # fmt: skip
def test_names_that_are_none_are_not_found(service: Service, name: str) -> None:
    path = f"/git/{name}.git/info/refs?service=git-upload-pack".encode()
    with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
        who = basic(service.key).encode()
        connection.sendall(
            b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nConnection: close\r\n\r\n" % (path, who)
        )
        answer = connection.makefile("rb").read()
    assert answer.split(b" ")[1] in (b"400", b"404"), answer[:200]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "MKCOL"])
def test_other_methods_are_not_served(service: Service, method: str) -> None:
    for path in (f"info/refs?service={UPLOAD}", UPLOAD, RECEIVE):
        assert ask(service, method, f"/git/{NAME}.git/{path}").status in (400, 404, 405, 501)
    assert ask(service, "POST", f"/git/{NAME}.git/info/refs?service={UPLOAD}", b"").status == 404
    assert ask(service, "GET", f"/git/{NAME}.git/{UPLOAD}").status == 404


@pytest.mark.parametrize(
    "value",
    ["Basic", "Basic !!!", "Basic " + base64.b64encode(b"me").decode(), "Simple x", "Bearer x", "Basic " + "A" * 5000,
     "Basic " + base64.b64encode(b"me:\xff\xfe").decode(), "Basic " + base64.b64encode(b"me:sim0").decode(), ""],
)  # fmt: skip
def test_a_wrong_key_is_asked_for_again_and_never_taken_for_none(service: Service, value: str) -> None:
    for path in (NAME, "demo/hello", "nobody/nothing"):
        url = f"/git/{path}.git/info/refs?service={UPLOAD}"
        answer = service.request("GET", url, headers={"Authorization": value})
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Basic realm=")
    without = service.request("GET", f"/git/{NAME}.git/info/refs?service={RECEIVE}")
    assert without.status == 401


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_protocol_clones_whole_and_shallow(service: Service, folder: Path, tmp_path: Path, version: int) -> None:
    for words in ([], ["--depth=1"], ["--depth=1000000000"], ["--filter=blob:none"], ["--single-branch"]):
        copy = tmp_path / "-".join(["copy", *words])
        options = ["-c", f"protocol.version={version}"]
        done = run_git(tmp_path, *options, "clone", *words, service.remote(NAME), str(copy))
        assert done.returncode == 0, done.stderr
        assert (copy / "README.md").read_text() == "2\n"
        num_commits = run_git(copy, "rev-list", "--count", "HEAD").stdout.strip()
        assert num_commits == ("1" if words == ["--depth=1"] else "3")
    copy = tmp_path / "copy---depth=1"
    assert run_git(copy, "fetch", "--unshallow").returncode == 0
    assert run_git(copy, "fsck", "--strict").returncode == 0


@pytest.mark.parametrize("version", [0, 2])
def test_what_no_branch_leads_to_is_not_handed_out(
    service: Service, folder: Path, tmp_path: Path, version: int
) -> None:
    run_git(tmp_path, "init", "--quiet")
    middle = run_git(folder, "rev-parse", "HEAD~1").stdout.strip()
    blob = run_git(folder, "rev-parse", "HEAD:README.md").stdout.strip()
    options = ["-c", f"protocol.version={version}", "fetch", service.remote(NAME)]
    assert run_git(tmp_path, *options, "1" * 40).returncode != 0
    assert run_git(tmp_path, *options, "refs/serai/waiting").returncode != 0
    if version == 0:
        assert run_git(tmp_path, *options, middle).returncode != 0
        assert run_git(tmp_path, *options, blob).returncode != 0


def test_a_request_may_be_compressed_and_a_bomb_is_refused(service: Service, folder: Path) -> None:
    head = run_git(folder, "rev-parse", "HEAD").stdout.strip().encode()
    wants = line(b"want %s agent=test\n" % head) + FLUSH + line(b"done\n")
    kind = f"application/x-{UPLOAD}-request"
    path = f"/git/{NAME}.git/{UPLOAD}"
    for encoding in ("gzip", "x-gzip"):
        answer = ask(service, "POST", path, gzip.compress(wants), Content_Type=kind, Content_Encoding=encoding)
        assert answer.status == 200 and b"PACK" in answer.body
    bomb = gzip.compress(line(b"have %s\n" % (b"1" * 40)) * 3_000_000)
    for where, what in ((UPLOAD, bomb), (UPLOAD, gzip.compress(b"0032want" * 5_000_000)), (RECEIVE, bomb)):
        headers = {"Content_Type": f"application/x-{where}-request", "Content_Encoding": "gzip"}
        answer = ask(service, "POST", f"/git/{NAME}.git/{where}", what, **headers)
        assert len(answer.body) < 10_000 and b"PACK" not in answer.body
    ask(service, "POST", path, b"no gzip at all", Content_Type=kind, Content_Encoding="gzip")
    ask(service, "POST", path, wants, Content_Type="text/plain")
    ask(service, "POST", path, b"", Content_Type=kind)


def test_packs_that_are_broken_or_bombs_move_nothing(service: Service, folder: Path) -> None:
    blob = b"x" * 1000
    good = pack_of((3, blob), (3, b"y"))
    new = hashlib.sha1(b"blob %d\0%s" % (len(blob), blob)).hexdigest().encode()
    zeros = zlib.compress(bytes(400 << 20), 1)  # 400 MiB in one object that says it has 100 bytes
    lying = b"PACK" + struct.pack(">II", 2, 1) + bytes((0xB4, 0x06)) + zeros
    odd = [
        b"", b"PACK", good[:-1], good[: len(good) // 2], good[:-20] + b"\0" * 20, good.replace(b"PACK", b"KCAP"),
        b"PACK" + struct.pack(">II", 9, 2) + good[12:], b"PACK" + struct.pack(">II", 2, 0xFFFFFFFF) + good[12:],
        lying + hashlib.sha1(lying).digest(), os.urandom(2000), good + b"more", pack_of((2, b"100644 \0" + b"1" * 20)),
        good,  # whole, but a branch leads to a commit
    ]  # fmt: skip
    for pack in odd:
        answer = push(service, push_body(pack, new))
        assert answer.status in (200, 400, 500), answer.status
        assert b"ok refs/heads/x" not in answer.body, pack[:20]
        if pack[4:12] == good[4:12]:
            assert b"ng refs/heads/x" in answer.body or b"unpack" in answer.body, "a client is told what is wrong"
    tree = pack_of((2, b"100644 ..\0" + bytes(20)), (2, b"40000 .git\0" + bytes(20)))
    assert b"ok refs" not in push(service, push_body(tree, b"1" * 40)).body
    for ref in (
        b"refs/heads/-x",
        b"refs/hidden/x",
        b"refs/serai/waiting",
        b"HEAD",
        b"config",
        b"../x",
        b"refs/heads/a\nb",
    ):
        answer = push(service, push_body(good, new, ref))
        assert b"\x00ok " not in answer.body and b"ok " + ref not in answer.body
    for body in (
        b"",
        b"zzzz",
        b"ffff",
        FLUSH,
        line(b"x"),
        b"0003",
        line(b"shallow " + b"1" * 40) + FLUSH,
        b"0" * 100_000,
    ):
        assert push(service, body).status in (200, 400, 500)
    assert service.is_ready()


def test_a_client_that_goes_anywhere_leaves_the_repository_whole(service: Service, folder: Path) -> None:
    blob = os.urandom(50_000)
    pack = pack_of((3, blob))
    new = hashlib.sha1(b"blob %d\0%s" % (len(blob), blob)).hexdigest().encode()
    body = push_body(pack, new)
    head = (
        f"POST /git/{NAME}.git/{RECEIVE} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(service.key)}\r\n"
        f"Content-Type: application/x-{RECEIVE}-request\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for num_bytes in (0, 1, 4, 50, 100, 150, 200, 1000, 30_000, len(body) - 1, len(body)):
        with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
            connection.sendall(head + body[:num_bytes])
            if num_bytes % 2:  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    copy = folder.parent / "after"
    clone = ["clone", service.remote(NAME), str(copy)]
    until(lambda: run_git(folder.parent, *clone).returncode == 0, "those that have gone make room", 10)
    assert run_git(copy, "fsck", "--strict").returncode == 0
    algorithm = repository_of(service)
    until(lambda: not left_in(algorithm), "what they sent is gone", 10)
    assert run_git(algorithm, "fsck", "--full", "--strict").returncode == 0


def repository_of(service: Service) -> Path:
    catalogue = open_catalogue(service.home)
    try:
        algorithm = catalogue.find_algorithm(*NAME.split("/"), catalogue.account_named("operator"))
        return Repository(service.home, algorithm.id).path
    finally:
        catalogue.close()


def left_in(repository: Path) -> list[Path]:
    patterns = ("objects/tmp_objdir*", "objects/incoming*", "objects/pack/tmp_*", "**/*.lock")
    return [path for pattern in patterns for path in repository.glob(pattern)]
