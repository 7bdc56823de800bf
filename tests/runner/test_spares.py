"""Boxes kept in reserve: what a version finds in one is what it would find in a box of its own."""

import json
import os

import pytest

from serai.ipc.messages import Failure, Limits, Refusal, Result
from serai_runner.testing import descendants, is_alive, python_version, run_host, write_algorithm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="folders are shown in standing boxes by root only")

SOURCE = """
import errno, os
try:
    import extra
except ImportError:
    extra = None

def apply(word): return globals()[word]()
def pid(): return os.getpid()
def code(): return sorted(os.listdir("/opt/algorithm"))
def packages(): return extra and extra.VALUE
def write():
    try:
        open("/opt/algorithm/x", "w")
    except OSError as error:
        return errno.errorcode[error.errno]
def hog():
    data = []
    while True: data.append(bytearray(8 << 20))
def flags():
    return {line.split()[1]: line.split()[3] for line in open("/proc/self/mounts") if " /opt/" in line}
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.needs_bubblewrap),
        pytest.param("docker", marks=pytest.mark.needs_docker),
    ],
)
def host(request, tmp_path_factory):
    options = ("--sandbox", request.param, "--spares", "1", "--max-templates", "0")
    with run_host(tmp_path_factory.mktemp("serai"), *options) as host:
        yield host


def call(host, key: str, word: str, **more):
    code = write_algorithm(host.home / "code" / key, SOURCE)
    caller = host.connect()
    caller.define(python_version(code, key=key, **more))
    answer = caller.call(key, json.dumps(word).encode())
    caller.close()
    if not isinstance(answer.message, Result):
        return answer.message
    return json.loads(answer.result) if answer.message.content_type == "json" else answer.result.decode()


def figure(host, name: str) -> int:
    caller = host.connect()
    [line] = [line for line in caller.stats().splitlines() if line.startswith(f"serai_runner_{name} ")]
    caller.close()
    return int(float(line.split()[1]))


def test_a_version_finds_its_code_read_only(host):
    host.wait_for(lambda: figure(host, "spares") == 1, "a spare stands")
    used = figure(host, "spares_used_total")
    assert call(host, "own", "code") == ["src"]
    assert figure(host, "spares_used_total") == used + 1
    assert call(host, "own", "write") == "EROFS"
    flags = call(host, "own", "flags")
    assert {"ro", "nosuid", "nodev"} <= set(flags["/opt/algorithm"].split(",")), flags


def test_a_version_finds_its_packages(host, tmp_path):
    host.wait_for(lambda: figure(host, "spares") == 1, "a spare stands")
    tmp_path.chmod(0o755)
    (tmp_path / "extra.py").write_text("VALUE = 7\n")
    assert call(host, "packages", "packages", environment=str(tmp_path)) == 7


def test_a_version_has_its_own_memory_limit(host):
    host.wait_for(lambda: figure(host, "spares") == 1, "a spare stands")
    failure = call(host, "small", "hog", limits=Limits(memory_bytes=64 << 20))
    assert isinstance(failure, Failure) and failure.message == "memory limit 64 MiB exceeded"


def test_code_that_is_missing_fails_the_start_and_the_next_version_has_a_box(host):
    caller = host.connect()
    caller.define(python_version(str(host.home / "nowhere"), key="missing"))
    refusal = caller.call("missing", b'"pid"').message
    assert isinstance(refusal, Refusal) and refusal.code == "unavailable", refusal
    assert call(host, "after", "pid")


def test_a_used_spare_is_replaced_and_all_end_with_the_host(tmp_path):
    with run_host(tmp_path / "home", "--sandbox", "bubblewrap", "--spares", "3") as host:
        host.wait_for(lambda: figure(host, "spares") == 3, "three spares stand")
        call(host, "one", "pid")
        host.wait_for(lambda: figure(host, "spares") == 3, "there are three again")
        assert figure(host, "spares_used_total") == 1
        pids = descendants(host.pid)
        host.kill()
        host.wait_for(lambda: not any(map(is_alive, pids)), "all are gone")
