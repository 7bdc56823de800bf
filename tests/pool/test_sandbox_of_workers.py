"""What code in a worker's box sees and may do; and that the box goes when we go."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from serai_gpu_pool.device import sandbox

pytestmark = pytest.mark.needs_bubblewrap

_TMP_BYTES = 4 << 20
_WAIT_S = 30

_LOOK = """
import json, os, socket, sys
seen = {}

def tried(name, what):
    try:
        seen[name] = what()
    except OSError as error:
        seen[name] = type(error).__name__ + " " + str(error.errno)

def reach():
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", int(sys.argv[2])))
    return "reached"

def fill():
    with open("/tmp/big", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    return "filled"

def write(path):
    with open(path, "w") as file:
        file.write("changed")
    return "written"

def status(name):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(name))

import serai_gpu_pool.device.process_control as control
control.die_with(1)
import numpy, msgspec
tried("network", reach)
tried("interfaces", lambda: [name for _, name in socket.if_nameindex()])
tried("environment", lambda: dict(os.environ))
tried("first environment", lambda: open("/proc/1/environ").read())
tried("processes", lambda: sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
tried("me", lambda: [os.getpid(), os.getppid(), os.getuid(), os.getgid()])
tried("capabilities", lambda: status("CapEff"))
tried("filters", lambda: [status("Seccomp:"), status("NoNewPrivs:")])
tried("first command line", lambda: open("/proc/1/cmdline").read())
tried("folder", lambda: [os.getcwd(), os.listdir(".")])
tried("write here", lambda: write("file"))
tried("write root", lambda: write("/file"))
tried("write code", lambda: write(control.__file__))
tried("fill", fill)
tried("pagemap", lambda: len(open("/proc/self/pagemap", "rb").read(8)))
tried("smaps", lambda: len(open("/proc/self/smaps_rollup").read()) > 0)
tried("forget peak", lambda: open("/proc/self/clear_refs", "w").write("5"))
tried("sysctl", lambda: write("/proc/sys/vm/drop_caches"))
tried("inherited", lambda: os.read(int(sys.argv[1]), 5).decode())
tried("listed", lambda: open("/listed/file").read())
tried("write listed", lambda: write("/listed/file"))
tried("chmod listed", lambda: os.chmod("/listed/file", 0o777))
tried("write writable", lambda: write("/writable"))
tried("unlisted", lambda: os.listdir(sys.argv[3]))
tried("devices", lambda: sorted(os.listdir("/dev")))
tried("new user namespace", lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else "too old")
print(json.dumps(seen))
"""


@contextlib.contextmanager
def in_box(command: list[str], tmp_bytes: int = _TMP_BYTES, pass_fds: tuple[int, ...] = (), **how):
    """The command line, and the keywords for Popen, that start `command` in a box."""
    filter_fd = sandbox.open_filter()
    assert filter_fd is not None
    try:
        words = sandbox.enclose(command, tmp_bytes=tmp_bytes, seccomp_fd=filter_fd, **how)
        yield words, {"pass_fds": (*pass_fds, filter_fd), "start_new_session": True}
    finally:
        os.close(filter_fd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "listed").mkdir()
    (folder / "listed/file").write_text("kept")
    (folder / "writable").write_text("old")
    (folder / "secret").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    """What one process in a box has found out, while somebody listens on a port of this machine."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        reading, writing = os.pipe()
        os.write(writing, b"hello")
        code = [sys.executable, "-I", "-B", "-c", _LOOK, str(reading), str(listener.getsockname()[1]), str(folder)]
        secret = os.environ | {"AWS_SECRET_ACCESS_KEY": "secret"}
        with in_box(
            code,
            pass_fds=(reading,),
            read_only=((folder / "listed", "/listed"),),
            writable=((folder / "writable", "/writable"),),
            variables={"GIVEN": "yes"},
        ) as (command, how):
            done = subprocess.run(command, env=secret, capture_output=True, timeout=_WAIT_S, **how)
        os.close(reading)
        os.close(writing)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_there_is_no_network(seen):
    assert seen["network"].startswith(("ConnectionRefusedError", "OSError"))
    assert seen["interfaces"] == ["lo"]


def test_nothing_of_our_environment_is_inside_only_what_is_given(seen):
    assert set(seen["environment"]) <= {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "ORT_DISABLE_TELEMETRY", "GIVEN"}
    assert seen["environment"]["GIVEN"] == "yes"
    assert seen["environment"]["ORT_DISABLE_TELEMETRY"] == "1"
    assert seen["first environment"] == seen["first command line"] == "FileNotFoundError 2"


def test_it_is_alone_and_nobody(seen):
    assert seen["processes"] == [1, 2]
    assert seen["me"] == [2, sandbox.PARENT_INSIDE, 65534, 65534]
    assert int(seen["capabilities"], 16) == 0
    assert seen["filters"] == ["2", "1"]
    assert seen["new user namespace"] == "too old" or "Error" in seen["new user namespace"]


def test_its_folder_is_empty_and_nothing_but_its_own_tmp_can_be_written(seen):
    assert seen["folder"] == ["/nothing", []]
    for what in ("write here", "write root", "write code", "sysctl"):
        assert seen[what].startswith(("OSError 30", "PermissionError")), what
    assert seen["fill"] == "OSError 28"  # no space: /tmp has the size that was asked for


def test_it_may_look_at_its_own_memory(seen):
    assert seen["pagemap"] == 8
    assert seen["smaps"] is True
    assert seen["forget peak"] == 1


def test_descriptors_survive(seen):
    assert seen["inherited"] == "hello"


def test_what_is_listed_is_there_and_only_writable_where_that_is_said(seen, folder):
    assert seen["listed"] == "kept"
    assert seen["write listed"] == "OSError 30"
    assert seen["chmod listed"] == "OSError 30"  # through a descriptor of ours it would be allowed
    assert seen["write writable"] == "written"
    assert (folder / "writable").read_text() == "changed"


def test_nothing_else_of_the_machine_is_there(seen):
    assert seen["unlisted"] == "FileNotFoundError 2"
    assert not [name for name in seen["devices"] if name.startswith(("nvidia", "sd", "vd", "kvm", "fuse"))]


def _started(code: str) -> subprocess.Popen[bytes]:
    with in_box([sys.executable, "-I", "-S", "-B", "-c", code]) as (command, how):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **how)
    assert process.stdout
    assert select.select([process.stdout], [], [], _WAIT_S)[0], "it has not started"
    assert process.stdout.read(2) == b"up"
    return process


_SLEEPER = "import os, signal; os.write(1, b'up'); signal.pause()"


def test_the_command_has_a_pid_out_here_and_all_goes_when_the_box_is_killed():
    process = _started(_SLEEPER)
    pid = sandbox.inner_pid(process.pid)
    assert pid is not None
    watched = os.pidfd_open(pid)
    assert _SLEEPER in Path(f"/proc/{pid}/cmdline").read_text()
    sandbox.kill(process.pid)
    process.wait()
    assert select.select([watched], [], [], _WAIT_S)[0], "it outlives its box"
    os.close(watched)
    assert process.stdout
    process.stdout.close()


def test_a_box_that_is_killed_while_it_is_being_set_up_leaves_nothing():
    reading, writing = os.pipe()  # every process of a box holds the writing end
    random = Random(0)
    for _ in range(40):
        with in_box([sys.executable, "-I", "-S", "-B", "-c", _SLEEPER], pass_fds=(writing,)) as (command, how):
            process = subprocess.Popen(command, env={}, stdout=subprocess.DEVNULL, **how)
        threading.Event().wait(random.uniform(0.0005, 0.04))  # at any moment of its set-up
        sandbox.kill(process.pid)
        process.wait()
    os.close(writing)
    assert select.select([reading], [], [], _WAIT_S)[0], "something of a box lives on"
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_signal_that_ends_the_command_is_told_as_an_exit_code():
    process = _started("import os, signal; os.write(1, b'up'); os.kill(os.getpid(), signal.SIGSEGV); signal.pause()")
    assert process.wait(_WAIT_S) == 128 + signal.SIGSEGV
    assert process.stdout
    process.stdout.close()


def test_the_box_goes_with_whoever_made_it():
    code = f"""
import subprocess, sys, os, signal
from serai_gpu_pool.device import sandbox
fd = sandbox.open_filter()
command = [sys.executable, "-I", "-S", "-B", "-c", {_SLEEPER!r}]
command = sandbox.enclose(command, tmp_bytes={_TMP_BYTES}, seccomp_fd=fd)
process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(fd,))
process.stdout.read(2)
print(sandbox.inner_pid(process.pid), flush=True)
signal.pause()
"""
    maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert maker.stdout
    watched = os.pidfd_open(int(maker.stdout.readline()))
    maker.kill()
    maker.wait()
    assert select.select([watched], [], [], _WAIT_S)[0], "it outlives its maker"
    os.close(watched)
    maker.stdout.close()


def test_a_gpu_box_shows_the_devices_that_there_are():
    look = [sys.executable, "-I", "-S", "-B", "-c", "import os; print(*os.listdir('/dev'))"]
    with in_box(look, gpu=True) as (command, how):
        done = subprocess.run(command, capture_output=True, timeout=_WAIT_S, check=True, **how)
    shown = {name for name in done.stdout.decode().split() if name.startswith("nvidia")}
    assert shown == {path.name for path in Path("/dev").glob("nvidia*")}


def test_a_box_works_here():
    assert sandbox.probe() == ""
