"""What is visible and possible in a box of any daemon, beside its filter of system calls."""

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

from serai.box import bubblewrap
from serai.box.seccomp import open_filter

pytestmark = pytest.mark.needs_bubblewrap

_WAIT_S = 30
_PYTHON = os.path.realpath(sys.executable)

_LOOK = """
import json, os, socket, sys
seen = {}

def tried(name, what):
    try:
        seen[name] = what()
    except OSError as error:
        seen[name] = type(error).__name__ + " " + str(error.errno)

def all_of(folder, skip=()):
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (at == "/proc" and name.isdigit())]
        for name in (*folders, *files):
            path = os.path.join(at, name)
            if not os.path.islink(path):
                yield path

def same_mode(path):
    os.chmod(path, os.stat(path).st_mode & 0o7777)  # changes nothing where it is allowed
    return "changed"

def fill(path, num_bytes):
    with open(path, "wb") as file:
        for _ in range(num_bytes >> 20):
            file.write(bytes(1 << 20))
    return "filled"

def can_change(path):
    try:
        return bool(same_mode(path))
    except OSError:
        return False

def text(path):
    return open(path).read()

proc = [path for path in all_of("/proc")]
tried("writable in /proc", lambda: [path for path in proc if os.path.isfile(path) and os.access(path, os.W_OK)])
tried("changeable in /proc", lambda: [path for path in proc if can_change(path)])
tried("of root in /proc", lambda: [
    path for path in proc
    if os.path.isfile(path) and not os.stat(path).st_mode & 0o004 and os.access(path, os.R_OK)
    and not path.startswith("/proc/sys/")  # settings, of the box's own network among them
])
tried("readable", lambda: [len(text("/proc/" + name)) > 0 for name in ("cpuinfo", "meminfo", "stat", "self/status")])
for name in ("cmdline", "kallsyms", "interrupts", "kcore"):
    if os.path.exists("/proc/" + name):
        tried("hidden " + name, lambda: text("/proc/" + name)[:1])
tried("first process", lambda: os.listdir("/proc/1"))
tried("environment", lambda: dict(os.environ))
tried("processes", lambda: sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
tried("me", lambda: [os.getpid(), os.getppid(), os.getuid(), os.getgid(), socket.gethostname()])
tried("name", lambda: __import__("pwd").getpwuid(os.getuid()).pw_name)
tried("interfaces", lambda: [name for _, name in socket.if_nameindex()])
tried("localhost", lambda: socket.gethostbyname("localhost"))
tried("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
tried("tmp", lambda: fill("/tmp/big", 8 << 20))
tried("shm", lambda: fill("/dev/shm/big", 8 << 20))
tried("dev", lambda: fill("/dev/big", 1 << 20))
tried("root", lambda: os.mkdir("/new"))
tried("etc", lambda: sorted(os.listdir("/etc")))
tried("system", lambda: fill("/usr/big", 1 << 20))
tried("sysctl", lambda: text("/proc/sys/kernel/ostype"))
tried("change sysctl", lambda: os.open("/proc/sys/vm/drop_caches", os.O_WRONLY))
tried("devices", lambda: [path for path in all_of("/dev") if "/pts" not in path and "/shm" not in path
                          and can_change(path)])
tried("input", lambda: os.fchmod(0, os.fstat(0).st_mode & 0o7777))
tried("own", lambda: [os.access("/proc/self/" + name, os.W_OK) for name in ("clear_refs", "oom_score_adj")])
tried("status", lambda: {line.split(":")[0]: line.split()[1] for line in text("/proc/self/status").splitlines()
                         if line.startswith(("Cap", "NoNewPrivs", "Seccomp:"))})
print(json.dumps(seen))
"""

#: A daemon that shields the machine's devices, and starts one box.
_DAEMON = """
import os, subprocess, sys
from serai.box import bubblewrap
from serai.box.seccomp import open_filter
from serai.box.shield import shield_devices
assert shield_devices() == shield_devices() == ""
descriptor = open_filter()
words = bubblewrap.box_arguments(network=sys.argv[1] == "network", writable_proc=sys.argv[2] == "writable",
    tmp_bytes=4 << 20, shm_bytes=2 << 20, seccomp_fd=descriptor)
prefix = [] if sys.base_prefix.startswith("/usr") else ["--ro-bind", sys.base_prefix, sys.base_prefix]
words += [*prefix, "--remount-ro", "/", "--chdir", "/tmp", "--", *sys.argv[3:]]
subprocess.run(words, env={"SECRET": "secret"}, stdin=subprocess.DEVNULL, pass_fds=(descriptor,), check=True,
    start_new_session=True)
assert open("/dev/null", "w").write("still works")
"""


def look(network: str, proc: str) -> dict:
    command = [sys.executable, "-c", _DAEMON, network, proc, _PYTHON, "-I", "-S", "-c", _LOOK]
    done = subprocess.run(command, capture_output=True, timeout=_WAIT_S, env={})
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> dict:
    return look("none", "fixed")


@pytest.fixture(scope="module", params=["fixed", "writable"])
def seen_either_way(request, seen) -> dict:
    return seen if request.param == "fixed" else look("none", "writable")


def test_nothing_in_proc_can_be_written_or_is_for_root_only(seen_either_way):
    for name in ("writable in /proc", "changeable in /proc", "of root in /proc"):
        assert seen_either_way[name] == [], name
    assert seen_either_way["change sysctl"] == "OSError 30"


def test_what_programs_look_at_in_proc_is_there(seen_either_way):
    assert seen_either_way["readable"] == [True] * 4
    hidden = {name: said for name, said in seen_either_way.items() if name.startswith("hidden")}
    assert hidden and set(hidden.values()) == {"PermissionError 13"}
    assert seen_either_way["sysctl"] == "Linux\n"


def test_a_process_may_write_its_own_files_in_proc_only_where_that_is_asked_for(seen):
    assert seen["own"] == [False, False]
    assert look("none", "writable")["own"] == [True, True]


def test_nobody_is_there_but_itself_and_a_first_process_that_shows_nothing(seen):
    assert seen["processes"] == [1, 2] and seen["first process"] == []
    assert seen["me"] == [2, bubblewrap.PARENT_INSIDE, bubblewrap.NOBODY, bubblewrap.NOBODY, "serai"]
    assert seen["name"] == "algo"
    assert set(seen["environment"]) <= {"PWD", "LC_CTYPE"}


def test_it_has_no_right_and_gets_none(seen):
    status = seen["status"]
    assert all(int(value, 16) == 0 for name, value in status.items() if name.startswith("Cap"))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_only_tmp_and_shared_memory_can_be_written_up_to_their_sizes(seen):
    assert seen["tmp"] == seen["shm"] == "OSError 28"
    for name in ("dev", "root", "system"):
        assert seen[name] == "OSError 30", name


def test_there_is_no_network_but_localhost_and_no_terminal(seen):
    assert seen["interfaces"] == ["lo"] and seen["localhost"] == "127.0.0.1"
    assert seen["terminal"] == "OSError 6"
    assert (
        {"passwd", "group", "hosts"}
        <= set(seen["etc"])
        <= {
            *("passwd", "group", "hosts", "ld.so.cache", "alternatives"),
            *(path.name for path in Path("/etc").glob("java-*-openjdk")),
        }
    )


def test_the_machines_devices_cannot_be_changed_not_even_where_the_daemon_is_root(seen):
    assert seen["devices"] == [] and seen["input"] in ("OSError 30", "PermissionError 1")


def test_with_a_network_it_is_the_one_of_the_machine():
    import socket

    seen = look("network", "fixed")
    assert seen["interfaces"] == [name for _, name in socket.if_nameindex()]
    assert seen["changeable in /proc"] == seen["writable in /proc"] == []


# ── life and death ───────────────────────────────────────────────────────────────────────────────────────────────────

_SLEEPER = ("/bin/sh", "-c", "echo up; read nothing")


def start(command: tuple[str, ...], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    descriptor = open_filter()
    assert descriptor is not None
    words = bubblewrap.box_arguments(network=False, tmp_bytes=1 << 20, shm_bytes=1 << 20, seccomp_fd=descriptor)
    words += ["--remount-ro", "/", "--chdir", "/tmp", "--", *command]
    try:
        return subprocess.Popen(
            words,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(*pass_fds, descriptor),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def started(command: tuple[str, ...] = _SLEEPER):
    with start(command) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == b"up\n"
        yield process
        process.stdin.close()


def test_the_command_has_a_pid_out_here_and_all_goes_when_the_box_is_killed():
    with started(("/bin/sh", "-c", "setsid sleep 1000 & echo up; read nothing")) as process:
        pid = bubblewrap.inner_pid(process.pid)
        assert pid is not None and b"read nothing" in Path(f"/proc/{pid}/cmdline").read_bytes()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        watched = [os.pidfd_open(one) for one in (pid, *map(int, children))]
        bubblewrap.kill(process.pid)
        assert process.wait(_WAIT_S) == -signal.SIGKILL
        for one in watched:
            assert select.select([one], [], [], _WAIT_S)[0], "it outlives its box"
            os.close(one)
        bubblewrap.kill(process.pid)  # once more does no harm
    assert bubblewrap.inner_pid(process.pid) is None


def test_a_box_that_is_killed_at_any_moment_of_its_set_up_leaves_nothing():
    reading, writing = os.pipe()  # every process of a box holds the writing end
    random = Random(0)
    for _ in range(60):
        with start(_SLEEPER, (writing,)) as process:
            threading.Event().wait(random.uniform(0.0, 0.03))
            bubblewrap.kill(process.pid)
            process.wait(_WAIT_S)
    os.close(writing)
    assert select.select([reading], [], [], _WAIT_S)[0], "something of a box lives on"
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_trial_says_what_is_wrong():
    assert bubblewrap.probe() == ""
    assert "no-such-command" in bubblewrap.probe(("--", "/no-such-command"))
