"""Running git: in a box with one repository and nothing else, for a limited time, with limited answers."""

import os
import socket
import struct
import subprocess
import time
import zlib
from hashlib import sha1

import pytest

from serai_gateway.git import GitError, command
from serai_gateway.git.box import git_box, has_box
from serai_gateway.git.command import check_quarantine, explain, run_git, talk_to_git
from serai_gateway.git.limits import MEMORY_BYTES


@pytest.fixture
def sh(repository, git):
    """Run a shell script where git would run."""
    return lambda script, **options: run_git(repository.home, repository.path, script, script=True, **options).decode()


@pytest.fixture
def boxed(repository, git):
    if not has_box(repository.home):
        pytest.skip("without a box nothing is contained")


@pytest.mark.parametrize("name", ["", "tmp_objdir-incoming-ab12CD", "incoming-XyZ123"])
def test_a_quarantine_is_called_as_git_calls_it(name):
    assert check_quarantine(name) == name


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "pack", "incoming-", "incoming-a/b", "incoming-a\n", "/tmp", "incoming-" + "a" * 41, "xincoming-a"],
)
def test_nothing_else_is_a_quarantine(repository, git, name):
    with pytest.raises(GitError, match="unknown place"):
        check_quarantine(name)
    with pytest.raises(GitError, match="unknown place"):
        run_git(repository.home, repository.path, "rev-parse", "HEAD", quarantine=name)


def test_what_is_in_quarantine_is_seen_by_those_who_ask_for_it(repository, git):
    place = repository.path / "objects/tmp_objdir-incoming-abc"
    (place / "pack").mkdir(parents=True)
    variables = {**os.environ, "GIT_OBJECT_DIRECTORY": str(place), "GIT_DIR": str(repository.path)}
    hashed = subprocess.run(["git", "hash-object", "-w", "--stdin"], input=b"x", env=variables, capture_output=True)
    blob = hashed.stdout.decode().strip()
    words = ("cat-file", "blob", blob)
    assert run_git(repository.home, repository.path, *words, quarantine=place.name) == b"x"
    with pytest.raises(GitError):
        run_git(repository.home, repository.path, *words)


def test_an_error_says_what_git_said_in_plain_words(repository, git):
    with pytest.raises(GitError, match=r"(?i)not a valid object name"):
        run_git(repository.home, repository.path, "cat-file", "-t", "nothing")
    assert run_git(repository.home, repository.path, "cat-file", "-e", "1" * 40, expected=(0, 1, 128)) == b""
    said = explain(b"\x1b[31mred\x1b[0m\r\n" + b"x" * 1000 + b"\n" * 20 + b"\xff last\n")
    assert said.isprintable() or "\n" in said
    assert "\x1b" not in said and "\r" not in said and "last" in said and len(said) < 2000


def test_one_that_takes_too_long_is_stopped_with_all_that_it_started(sh, monkeypatch):
    monkeypatch.setattr(command, "TIMEOUT_S", 0.5)
    started = time.monotonic()
    with pytest.raises(GitError, match=r"took longer than 0\.5 s and was stopped"):
        sh("sleep 77.25 & exec sleep 77.25")
    with pytest.raises(GitError, match=r"took longer than 0\.5 s and was stopped"):
        sh("exec >&- 2>&-; exec sleep 77.25")
    assert time.monotonic() - started < 10
    alive = [pid for pid in os.listdir("/proc") if pid.isdigit() and "77.25" in _command_of(pid)]
    assert alive == []


def _command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_an_answer_without_end_is_cut_off(sh, monkeypatch):
    monkeypatch.setattr(command, "MAX_OUTPUT_BYTES", 1 << 20)
    assert len(sh("head -c 1048576 /dev/zero")) == 1 << 20
    with pytest.raises(GitError, match="more than 1 MiB and was stopped"):
        sh("head -c 1048577 /dev/zero")
    with pytest.raises(GitError, match="more than 1 MiB and was stopped"):
        sh("cat /dev/zero")
    with pytest.raises(GitError):
        sh("head -c 100000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3")


def test_the_box_has_one_repository_and_nothing_else(sh, boxed, repository, tmp_path):
    (tmp_path / "secret").write_text("x")
    (repository.path.parent / ("b" * 32 + ".git")).mkdir()
    assert sh("pwd; ls /").split()[0] == "/repository"
    script = (
        f"ls -d {repository.home} {tmp_path} /root /home /work /etc/shadow /var 2>/dev/null; ls /repository/.. | grep b"
    )
    assert "b" * 32 not in sh(script, expected=(0, 1, 2)) and str(tmp_path) not in sh(script, expected=(0, 1, 2))
    variables = sh("env")
    assert "SERAI" not in variables and "HOME=/nonexistent" in variables
    assert sh("ps ax 2>/dev/null | wc -l; id -u; cat /proc/self/status | grep CapEff").split()[-1] == "0" * 16


def test_the_box_reads_unless_it_is_to_write(sh, boxed, repository):
    for place in ("/repository/x", "/x", "/usr/x", "/etc/x"):
        assert "no" in sh(f"echo > {place} || echo no", expected=(0, 1, 2))
    sh("echo > /repository/x", writable=True)
    assert (repository.path / "x").exists()


def test_the_box_has_no_network(sh, boxed):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo reached"
        assert "reached" not in sh(script, expected=(0, 1))
    with pytest.raises(GitError):
        sh("git ls-remote https://example.com/x.git")


def test_helpers_and_settings_of_others_start_nothing(sh, boxed, repository, git, tmp_path):
    config = repository.path / "config"
    config.write_text(config.read_text() + '[core]\n\tfsmonitor = "touch /tmp/x"\n[include]\n\tpath = /etc/passwd\n')
    assert sh("git ls-remote 'ext::sh -c \"echo ran >&2\"' 2>&1", expected=(0, 128)).find("ran\n") == -1
    assert "not allowed" in sh("git clone file:///repository /tmp/x 2>&1", expected=(0, 128))


def bomb(num_bytes):
    """A pack with one object that becomes `num_bytes` of nothing."""
    size, header = num_bytes >> 4, bytearray()
    byte = 3 << 4 | num_bytes & 15
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    squeezer = zlib.compressobj(1)
    body = b"".join(squeezer.compress(bytes(1 << 24)) for _ in range(num_bytes >> 24)) + squeezer.flush()
    raw = b"PACK" + struct.pack(">II", 2, 1) + bytes((*header, byte)) + body
    return raw + sha1(raw).digest()


def test_a_bomb_takes_no_more_memory_than_git_may_have(repository, git, boxed):
    """Objects below core.bigFileThreshold are in memory, larger ones are not: neither may take all of the machine's."""
    with (
        pytest.raises(GitError),
        talk_to_git(
            repository.home, repository.path, "-c", "core.bigFileThreshold=8g", "index-pack", "--stdin", writable=True
        ) as (into, _),
    ):
        into.write(bomb(MEMORY_BYTES + (1 << 28)))
        into.flush()
    with talk_to_git(repository.home, repository.path, "index-pack", "--stdin", writable=True) as (into, _):
        into.write(bomb(64 << 20))
        into.flush()


def test_a_conversation_that_ends_badly_is_an_error_and_leaves_nobody(repository, git):
    with pytest.raises(GitError), talk_to_git(repository.home, repository.path, "fast-import") as (into, _):
        into.write(b"nonsense\n")
        into.flush()
    with pytest.raises(ZeroDivisionError), talk_to_git(repository.home, repository.path, "cat-file", "--batch") as _:
        raise ZeroDivisionError


def test_a_box_can_be_left_without_starting_anything(repository, git):
    with git_box(repository.home, repository.path, ["git", "version"], writable=True) as started:
        assert started.words
