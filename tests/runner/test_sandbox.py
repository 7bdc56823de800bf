"""What an author's hostile code finds inside each sandbox, and what it achieves."""

import json
import os
import socket
from pathlib import Path

import pytest

from serai.box import bubblewrap
from serai.box.cgroups import Cgroups
from serai.ipc.messages import Failure, Limits, Refusal, Result
from serai_runner.sandbox import Box, SandboxUnavailable, base, choose_sandbox
from serai_runner.sandbox.docker.options import DockerOptions
from serai_runner.sandbox.plain import Plain
from serai_runner.settings import Settings
from serai_runner.testing import RecordedBox, is_alive, python_version, run_host, write_algorithm

NO_GROUPS = Cgroups.detect("serai", membership=Path(os.devnull))
NO_LIMITS = base.Limits(memory_bytes=1 << 30, pids=10, cpus=1, tmp_bytes=1 << 20)
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
def create(path): return attempt(open, os.path.expandvars(path), "w")
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

def writable_folders():
    found = []
    for folder, folders, _ in os.walk("/"):
        folders[:] = [name for name in folders if not (folder == "/" and name == "proc")]
        if os.access(folder, os.W_OK):
            found.append(folder)
            folders.clear()
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

def open_many():
    files = []
    try:
        while len(files) < 100000:
            files.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        for file in files:
            os.close(file)

def leave_a_child_that_ignores_signals():
    if os.fork():
        return os.getpid()
    os.setsid()
    if os.fork():
        os._exit(0)
    import signal, time
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)

def ignore_signals_and_spin():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass

def spin(num_processes, seconds):
    import time
    until = time.monotonic() + seconds
    pids = []
    for _ in range(num_processes):
        pid = os.fork()
        if pid == 0:
            while time.monotonic() < until:
                pass
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return os.times().children_user + os.times().children_system

def leave_file(name):
    with open(os.path.expandvars("$TMPDIR/" + name), "w") as file:
        file.write("of another caller")
    return "left"

def scratch(): return sorted(os.listdir(os.path.expandvars("$TMPDIR")))
def kill_parent(): return attempt(os.kill, os.getppid(), 9)

def fill(path):
    with open(os.path.expandvars(path), "wb") as file:
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
def host(tmp_path_factory, sandbox):
    home = tmp_path_factory.mktemp("serai")
    (home / "operator.key").write_text("the operator's key")
    with run_host(home, *sandbox, "--max-replicas", "1", "--tmp-bytes", str(8 << 20)) as host:
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


def is_docker(sandbox: tuple[str, ...]) -> bool:
    return "docker" in sandbox


def test_no_file_of_the_machine_that_it_does_not_need_is_there(host, evil, sandbox):
    assert evil("read", str(host.home / "operator.key")) == "ENOENT"
    assert evil("read", "/var/run/docker.sock") == "ENOENT"
    assert {"algorithm", "serai"} <= set(evil("listing", "/opt")) <= {"algorithm", "serai", "environment"}
    if is_docker(sandbox):  # the image's files are nobody's
        assert evil("read", "/etc/shadow") == "EACCES"
        return
    assert evil("read", "/etc/shadow") == "ENOENT"
    assert set(evil("listing", "/")) <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "opt", "proc", "run", "sbin", "sys", "tmp", "usr"),
        Path(os.path.realpath(__import__("sys").base_prefix)).parts[1],
    }
    names = {name for name in evil("listing", "/etc") if not name.startswith("java")}  # Java's own settings
    assert names <= {"alternatives", "group", "hosts", "ld.so.cache", "passwd"}


def test_its_code_our_runtime_and_everything_else_are_read_only(evil):
    for path in ("/opt/algorithm/x", "/opt/serai/serai/x", "/usr/x", "/x", "/etc/x", "/dev/x"):
        assert evil("create", path) in ("EROFS", "EACCES"), path
    assert evil("create", "$TMPDIR/x") == "done"


def test_no_folder_is_writable_but_those_for_temporary_files(evil):
    allowed = {"/tmp", "/dev/shm", "/dev/mqueue", "/dev/pts"}
    assert {path for path in evil("writable_folders") if not path.startswith("/tmp/replicas")} <= allowed


def test_no_file_below_proc_that_changes_the_machine_is_writable(evil):
    # Asked, never tried: where the sandbox fails, a write would change the machine that runs the tests.
    assert evil("writable_below", "/proc/sys") == []
    assert [path for path in evil("writable_below", "/proc") if not path.startswith("/proc/self")
            and not path.startswith("/proc/thread-self")] == []  # fmt: skip


def test_it_has_no_capability_no_new_privileges_and_sees_only_its_own_processes(evil, sandbox):
    status = evil("status")
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    assert status["Uid"].split() == ["2222" if is_docker(sandbox) else "65534"] * 4
    assert len([name for name in evil("listing", "/proc") if name.isdigit()]) <= 4
    assert evil("user_namespace") == -1


def test_nothing_of_our_environment_is_in_its_own(evil, monkeypatch):
    names = set(evil("environment"))
    assert names <= {
        *("PATH", "HOME", "TMPDIR", "LANG", "PWD", "PYTHONDONTWRITEBYTECODE", "ORT_DISABLE_TELEMETRY"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"),
        *("ALGORITHMIA_API", "ALGORITHMIA_API_KEY", "SERAI_ADDRESS", "SERAI_API_KEY"),  # the door; no key of anybody
    }


def test_limits_on_cores_files_and_descriptors_are_hard(evil):
    assert evil("limit", "RLIMIT_CORE") == [0, 0]
    assert evil("limit", "RLIMIT_NOFILE") == [1024, 1024]
    assert evil("limit", "RLIMIT_FSIZE") == [8 << 20, 8 << 20]


def test_the_network_is_out_of_reach(evil):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert evil("connect", "127.0.0.1", server.getsockname()[1]) == "ECONNREFUSED"  # its own, empty loopback
        assert evil("connect", "169.254.169.254", 80) == "ENETUNREACH"


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


def test_descriptors_end_at_their_limit(evil):
    assert evil("open_many") == "EMFILE"


def test_a_child_that_leaves_its_session_and_ignores_signals_dies_with_the_replica(host, evil):
    evil("leave_a_child_that_ignores_signals")
    pids = [pid for pid in host.replica_pids() if is_alive(pid)]
    left_behind = pids[-1]
    answer = evil("loop_for_ever_is_no_function_here")
    assert isinstance(answer, Failure)
    answer = evil("ignore_signals_and_spin", timeout_s=0.3)
    assert isinstance(answer, Refusal) and answer.code == "deadline"
    host.wait_for(lambda: not is_alive(left_behind), "what the replica left behind is gone")


def test_what_a_call_leaves_in_its_folder_is_gone_for_the_next(evil):
    assert evil("leave_file", "secret") == "left"
    assert "secret" not in evil("scratch")


def test_processor_time_ends_at_its_limit_however_many_spin(evil, code):
    limits = Limits(memory_bytes=256 << 20, cpus=0.5)
    evil.caller.define(python_version(code, key="slow", limits=limits))
    assert evil("spin", 4, 1.0, key="slow") < 1.0, "two cores would give it two seconds"


def test_a_replica_that_kills_what_holds_it_harms_its_own_version_only(evil, code):
    evil.caller.define(python_version(code, key="bystander", limits=LIMITS))
    before = evil("status", key="bystander")["Pid"]
    evil.caller.define(python_version(code, key="suicidal", limits=LIMITS))
    evil("kill_parent", key="suicidal")
    assert evil("status", key="bystander")["Pid"] == before


def test_its_tmp_is_full_at_its_limit(evil):
    assert evil("fill", "$TMPDIR/large") in ("ENOSPC", "EFBIG")
    assert evil("fill", "/dev/shm/large") in ("ENOSPC", "EFBIG")


def test_the_only_descriptors_are_standard_ones_and_its_own_socket(evil):
    names = evil("descriptors")
    ours = {name: kind for name, kind in names.items() if int(name) > 2 and "/proc/" not in kind}
    assert all(200 <= int(name) < 210 for name in ours) and len(ours) == 3
    assert sorted(kind.partition(":")[0] for kind in ours.values()) == ["/memfd", "socket", "socket"]
    assert names["0"] == "/dev/null"


def test_garbage_written_to_every_descriptor_ends_its_own_replica_only(evil):
    answer = evil("garbage")
    assert isinstance(answer, Refusal) and answer.code == "crashed" and "protocol" in answer.message
    assert isinstance(evil("environment"), dict), "and the next one works"


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


def test_without_a_sandbox_limits_still_hold_and_the_log_warns(tmp_path):
    code = write_algorithm(tmp_path / "evil", SOURCE)
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
        Plain(tmp_path, NO_GROUPS).start(Box(1, spec, NO_LIMITS), 1, RecordedBox())


@pytest.fixture
def forgotten_probe():
    """What this process has learnt of the machine's bwrap is asked anew, and what it learns here forgotten."""
    bubblewrap.probe.cache_clear()
    yield
    bubblewrap.probe.cache_clear()


def test_asking_for_bubblewrap_where_there_is_none_stops_the_start(tmp_path, monkeypatch, forgotten_probe):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="install the package bubblewrap"):
        choose_sandbox(Settings(tmp_path, sandbox="bubblewrap"))
    elsewhere = DockerOptions(engine="unix:///nowhere.sock")
    sandbox, warning = choose_sandbox(Settings(tmp_path, sandbox="auto", docker=elsewhere))
    assert isinstance(sandbox, Plain) and "WITHOUT a sandbox" in warning
