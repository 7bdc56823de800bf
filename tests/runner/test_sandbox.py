"""What an author's hostile code finds inside the sandbox, and what it achieves."""

import json
import os
import socket
from pathlib import Path

import pytest

from serai.ipc.messages import Failure, Limits, Refusal, Result
from serai_runner.sandbox import Box, SandboxUnavailable, choose_sandbox
from serai_runner.sandbox.plain import Plain
from serai_runner.settings import Settings
from serai_runner.testing import python_version, run_host, write_algorithm

KEY = "evil/code@1"
LIMITS = Limits(memory_bytes=256 << 20)

SOURCE = """
import errno, os, resource, socket, stat, struct, sys

def apply(input):
    word, *rest = input
    return globals()[word](*rest)

def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def read(path): return attempt(open, path)
def listing(path): return sorted(os.listdir(path))
def create(path): return attempt(open, path, "w")
def environment(): return dict(os.environ)
def status(): return dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def mounts(): return [line.split() for line in open("/proc/self/mounts").read().splitlines()]
def limit(name): return list(resource.getrlimit(getattr(resource, name)))

def writable_below(root):
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not (folder == "/proc" and name.isdigit())]
        found += [path for path in (os.path.join(folder, name) for name in files)
                  if os.access(path, os.W_OK) and stat.S_ISREG(os.lstat(path).st_mode)]  # /dev/null hides some
    return found

def connect(host, port):
    sock = socket.socket()
    sock.settimeout(3)
    return attempt(sock.connect, (host, port))

def connect_unix(path):
    return attempt(socket.socket(socket.AF_UNIX).connect, path.replace("@", chr(0)))

def user_namespace():
    import ctypes
    ctypes.set_errno(0)
    return ctypes.CDLL(None, use_errno=True).unshare(0x10000000)

def fork_bomb():
    children = 0
    try:
        while children < 2000:
            if os.fork() == 0:
                import time
                time.sleep(60)
                os._exit(0)
            children += 1
    except OSError as error:
        return [errno.errorcode[error.errno], children]
    return ["none", children]

def fill(path):
    with open(path, "wb") as file:
        return attempt(lambda: [file.write(bytes(1 << 20)) for _ in range(2000)])

def descriptors():
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{name}")}

def write_everywhere(data):
    for name in list(os.listdir("/proc/self/fd")):
        try:
            os.write(int(name), data)
        except (OSError, ValueError):
            pass

def garbage():
    write_everywhere(bytes(range(256)) * 16)
    return "wrote"

def frame(*header):
    sys.path.insert(0, "/opt/serai")
    from serai import _wire
    packed = _wire.pack_header(list(header))
    return struct.pack("<IH", len(packed) + 2, len(packed)) + packed

def forge(first, last):
    write_everywhere(b"".join(frame(4, number, "void", 0.0, 0) for number in range(first, last)))
    return "forged"

def forge_one(*header):
    write_everywhere(frame(*header))
    return "forged"
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    home = tmp_path_factory.mktemp("serai")
    (home / "operator.key").write_text("the operator's key")
    with run_host(home, "--sandbox", "bubblewrap", "--max-replicas", "1", "--tmp-bytes", str(8 << 20)) as host:
        yield host


@pytest.fixture(scope="module")
def code(host) -> str:
    return write_algorithm(host.home / "code" / "evil", SOURCE)


@pytest.fixture
def evil(host, code):
    caller = host.connect()
    caller.define(python_version(code, key=KEY, limits=LIMITS))

    def run(*words, key=KEY, **more):
        answer = caller.call(key, json.dumps(words).encode(), **more)
        if not isinstance(answer.message, Result):
            return answer.message
        text = answer.result.decode()
        return json.loads(text) if answer.message.content_type == "json" else text

    run.caller = caller
    yield run
    caller.close()


pytestmark = pytest.mark.needs_bubblewrap


def test_no_file_of_the_machine_that_it_does_not_need_is_there(host, evil):
    assert evil("read", str(host.home / "operator.key")) == "ENOENT"
    assert evil("read", "/etc/shadow") == "ENOENT"
    assert set(evil("listing", "/")) <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "opt", "proc", "sbin", "tmp", "usr"),
        Path(os.path.realpath(__import__("sys").base_prefix)).parts[1],
    }
    assert evil("listing", "/opt") == ["algorithm", "serai"]
    assert set(evil("listing", "/etc")) <= {"alternatives", "group", "ld.so.cache", "passwd"}


def test_its_code_our_runtime_and_everything_else_are_read_only(evil):
    for path in ("/opt/algorithm/x", "/opt/serai/serai/x", "/usr/x", "/x", "/etc/x", "/dev/x"):
        assert evil("create", path) == "EROFS", path
    assert evil("create", "/tmp/x") == "done"


def test_no_file_below_proc_that_changes_the_machine_is_writable(evil):
    # Asked, never tried: where the sandbox fails, a write would change the machine that runs the tests.
    assert evil("writable_below", "/proc/sys") == []
    assert [path for path in evil("writable_below", "/proc") if not path.startswith("/proc/self")
            and not path.startswith("/proc/thread-self")] == []  # fmt: skip


def test_every_mount_but_its_own_tmp_and_proc_is_read_only(evil):
    writable = {where for _, where, _, options, *_ in evil("mounts") if "rw" in options.split(",")}
    devices = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts"}
    assert writable - devices == {"/tmp", "/dev/shm", "/proc"}


def test_it_has_no_capability_no_new_privileges_and_sees_only_its_own_processes(evil):
    status = evil("status")
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert status["NoNewPrivs"].strip() == "1" and status["Uid"].split() == ["65534"] * 4
    assert len([name for name in evil("listing", "/proc") if name.isdigit()]) <= 3
    assert evil("user_namespace") == -1


def test_nothing_of_our_environment_is_in_its_own(evil, monkeypatch):
    names = set(evil("environment"))
    assert names <= {
        *("PATH", "HOME", "TMPDIR", "LANG", "PWD", "PYTHONDONTWRITEBYTECODE", "ORT_DISABLE_TELEMETRY"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"),
    }


def test_limits_on_cores_files_and_descriptors_are_hard(evil):
    assert evil("limit", "RLIMIT_CORE") == [0, 0]
    assert evil("limit", "RLIMIT_NOFILE") == [1024, 1024]
    assert evil("limit", "RLIMIT_FSIZE") == [8 << 20, 8 << 20]


def test_the_network_is_out_of_reach_unless_the_version_may_use_it(host, evil, code):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert evil("connect", "127.0.0.1", port) == "ECONNREFUSED"  # its own, empty loopback
        assert evil("connect", "169.254.169.254", 80) == "ENETUNREACH"
        evil.caller.define(python_version(code, key="net", limits=LIMITS, network=True))
        assert evil("connect", "127.0.0.1", port, key="net") == "done"


def test_our_sockets_are_out_of_reach_by_path_and_by_abstract_name(host, evil):
    assert evil("connect_unix", str(host.home / "run" / "runner.sock")) == "ENOENT"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0serai-test-{os.getpid()}")
        server.listen()
        assert evil("connect_unix", f"@serai-test-{os.getpid()}") == "ECONNREFUSED"


def test_a_fork_bomb_ends_at_the_limit_on_processes(evil):
    told, num_children = evil("fork_bomb")
    assert told == "EAGAIN" and 50 < num_children < 256
    evil("missing")  # the replica lives on


def test_its_tmp_is_full_at_its_limit(evil):
    assert evil("fill", "/tmp/large") in ("ENOSPC", "EFBIG")
    assert evil("fill", "/dev/shm/large") in ("ENOSPC", "EFBIG")


def test_the_only_descriptors_are_standard_ones_and_its_own_socket(evil):
    names = evil("descriptors")
    assert {name for name in names if int(name) > 2 and "/proc/" not in names[name]} == {"200", "201"}
    assert names["200"].startswith("socket:") and names["0"] == "/dev/null"


def test_garbage_written_to_every_descriptor_ends_its_own_replica_only(evil):
    answer = evil("garbage")
    assert isinstance(answer, Refusal) and answer.code == "crashed" and "protocol" in answer.message
    assert evil("listing", "/opt") == ["algorithm", "serai"]


def test_forged_replies_reach_no_call_of_another_version(host, evil):
    source = "import time\ndef apply(i):\n    time.sleep(0.3)\n    return ['true', i]\n"
    code = write_algorithm(host.home / "code" / "victim", source)
    evil.caller.define(python_version(code, key="victim", limits=LIMITS))
    victims = [evil.caller.start_call("victim", str(n).encode()) for n in range(2)]
    evil("forge", 0, 400)
    assert [evil.caller.wait(call_id).result for call_id in victims] == [b'["true",0]', b'["true",1]']


@pytest.mark.parametrize(
    "header",
    [
        [4, 1, "nonsense", 0.0, 0],  # no such content type
        [4, 1, "json", 0.0, 1 << 40],  # more output than there are bytes
        [4, 1, "json", -1.0, 0],
        [4, "one", "json", 0.0, 0],
        [2, 1, "", "json", 0.0, "", "", False],  # a message that replicas do not send
        [99],
        [],
    ],
)
def test_frames_that_are_no_replies_end_the_replica(evil, header):
    answer = evil("forge_one", *header)
    assert isinstance(answer, Refusal) and answer.code == "crashed"


def test_without_a_sandbox_limits_still_hold_and_the_log_warns(tmp_path, code):
    with run_host(tmp_path / "home", "--sandbox", "none") as host:
        assert "WITHOUT a sandbox" in host.log()
        caller = host.connect()
        caller.define(python_version(code, key=KEY, limits=LIMITS))
        assert json.loads(caller.call(KEY, b'["limit", "RLIMIT_CORE"]').result) == [0, 0]
        status = json.loads(caller.call(KEY, b'["environment"]').result)
        assert "SERAI_HOME" not in status and status["HOME"] == "/tmp"
        for name in (b'["garbage"]', b'["missing"]'):
            assert isinstance(caller.call(KEY, name).message, Refusal | Failure)


def test_without_a_sandbox_algorithmia_repositories_are_refused_with_the_reason(tmp_path):
    spec = python_version("/code", kind="algorithmia")
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        Plain(tmp_path).command(Box(spec, 3))


def test_asking_for_bubblewrap_where_there_is_none_stops_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="install the package bubblewrap"):
        choose_sandbox(Settings(tmp_path, sandbox="bubblewrap"))
    sandbox, warning = choose_sandbox(Settings(tmp_path, sandbox="auto"))
    assert isinstance(sandbox, Plain) and "WITHOUT a sandbox" in warning
