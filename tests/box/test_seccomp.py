"""Which system calls a box may make: as the program says it, on every architecture, and as the kernel of this machine
does it in a real box."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from serai.box import bubblewrap, system_calls
from serai.box.seccomp import filter_program, open_filter

_WAIT_S = 60
_PYTHON = os.path.realpath(sys.executable)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
ALLOW, KILL = "allow", "kill"


# ── the program ──────────────────────────────────────────────────────────────────────────────────────────────────────


def judge(machine: str, number: int, *arguments: int, architecture: int | None = None) -> str:
    """What the program says about one call: an error's name, or `ALLOW` or `KILL`. A small machine for classic BPF."""
    architecture = _MACHINES[machine][1] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x06:
            verdict, error = constant & 0xFFFF0000, constant & 0xFFFF
            assert verdict in (0x7FFF0000, 0x80000000, 0x00050000)
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(verdict) or errno.errorcode[error]
        else:
            is_true = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[code]
            at += if_true if is_true else if_false


@pytest.fixture(params=_MACHINES)
def machine(request) -> str:
    return request.param


def numbers_of(table: dict[str, system_calls.Numbers], machine: str) -> dict[str, int]:
    column = _MACHINES[machine][0]
    return {name: number for name, numbers in table.items() if (number := numbers[column]) is not None}


def number_of(numbers: system_calls.Numbers, machine: str) -> int:
    number = numbers[_MACHINES[machine][0]]
    assert number is not None
    return number


def test_every_call_has_the_verdict_of_the_table(machine):
    expected = dict.fromkeys(numbers_of(system_calls.FORBIDDEN, machine).values(), "EPERM")
    expected |= dict.fromkeys(numbers_of(system_calls.MISSING, machine).values(), "ENOSYS")
    expected |= dict.fromkeys(range(*system_calls.GAP[_MACHINES[machine][0]]), "ENOSYS")
    newest = number_of(system_calls.NEWEST, machine)
    expected |= dict.fromkeys((*range(newest + 1, 700), 0x40000000, 0x40000000 + 59, 0xFFFFFFFF), "ENOSYS")
    by_argument = {number_of(numbers, machine) for numbers in (system_calls.SOCKET, system_calls.SOCKETPAIR)}
    for number in sorted({*range(newest + 1), *expected} - by_argument):
        assert judge(machine, number) == expected.get(number, ALLOW), number


def test_calls_of_another_architecture_end_the_process(machine):
    for other in (0x40000003, 0x40000028, 0x00000000, 0xC00000B7 if machine == "x86_64" else 0xC000003E):
        assert judge(machine, 0, architecture=other) == KILL


def test_other_machines_have_no_filter():
    assert filter_program("riscv64") == filter_program("aarch64_be") == b""


def test_the_numbers_are_those_of_the_kernels_headers():
    header = next(Path("/usr/include").glob("*/asm/unistd_64.h"), None)
    if header is None or os.uname().machine != "x86_64":
        pytest.skip("the kernel's headers are not installed")
    listed = {name: int(number) for name, number in re.findall(r"__NR_(\w+)\s+(\d+)", header.read_text())}
    ours = numbers_of(system_calls.FORBIDDEN | system_calls.MISSING, "x86_64")
    known = {name: number for name, number in ours.items() if name in listed}
    assert known == {name: listed[name] for name in known} and len(known) >= len(ours) - 5
    for name in ("CLONE", "IOCTL", "PERSONALITY", "SOCKET", "SOCKETPAIR"):
        assert getattr(system_calls, name)[0] == listed[name.lower()]


HIGH = 1 << 32
ARGUMENTS = [
    ("CLONE", (0x003D0F00,), ALLOW),  # a thread
    ("CLONE", (0x01200011,), ALLOW),  # a process
    *(("CLONE", (flag | 17,), "EPERM") for flag in (1 << 17, *(1 << at for at in range(25, 31)))),
    ("CLONE", (HIGH | 1 << 28,), "EPERM"),
    ("IOCTL", (0, 0x5401), ALLOW),
    *(("IOCTL", (0, request), "EPERM") for request in (0x5412, 0x541C, 0x5423)),
    ("IOCTL", (0, HIGH | 0x5412), "EPERM"),  # the kernel looks at 32 bits
    ("IOCTL", (0x5412, 0), ALLOW),
    ("PERSONALITY", (0,), ALLOW),
    ("PERSONALITY", (0xFFFFFFFF,), ALLOW),
    ("PERSONALITY", (0x0040000,), "EPERM"),
    ("SOCKET", (1, 1, 0), ALLOW),
    ("SOCKET", (1, 5, 0), ALLOW),
    ("SOCKET", (HIGH | 1, HIGH | 1, 0), ALLOW),
    *(("SOCKET", (family, 0x80801, 0), ALLOW) for family in (2, 10)),
    ("SOCKET", (2, 1, 6), ALLOW),
    ("SOCKET", (2, 2, 17), ALLOW),
    ("SOCKET", (2, 2, 1), ALLOW),
    ("SOCKET", (2, 3, 1), "EPERM"),  # raw
    ("SOCKET", (2, 5, 132), "EPERM"),  # SCTP
    ("SOCKET", (2, 1, 132), "EPROTONOSUPPORT"),
    ("SOCKET", (2, 1, 262), "EPROTONOSUPPORT"),
    ("SOCKET", (16, 3, 0), ALLOW),
    ("SOCKET", (16, 3, 12), "EPROTONOSUPPORT"),  # the firewall
    *(("SOCKET", (family, 3, 0), "EAFNOSUPPORT") for family in (0, 3, 17, 29, 30, 38, 40, 44, 45, HIGH | 38)),
    ("SOCKETPAIR", (1, 1, 0), ALLOW),
    ("SOCKETPAIR", (30, 1, 0), "EAFNOSUPPORT"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), ARGUMENTS)
def test_arguments_decide(machine, name, arguments, expected):
    assert judge(machine, number_of(getattr(system_calls, name), machine), *arguments) == expected


# ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def box(*command: str, mounts: tuple[str, ...] = (), filtered: bool = True):
    """The command line, and the keywords for Popen, that start `command` in a box."""
    descriptor = open_filter() if filtered else None
    words = bubblewrap.box_arguments(network=False, tmp_bytes=64 << 20, shm_bytes=8 << 20, seccomp_fd=descriptor)
    for folder in {sys.base_prefix, *mounts} - {"/usr"}:
        words += ["--ro-bind", folder, folder]
    words += ["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    try:
        yield [*words, *command], {"pass_fds": () if descriptor is None else (descriptor,), "start_new_session": True}
    finally:
        if descriptor is not None:
            os.close(descriptor)


def run(*command: str, **how) -> subprocess.CompletedProcess[str]:
    with box(*command, **how) as (words, keywords):
        return subprocess.run(words, capture_output=True, text=True, timeout=_WAIT_S, **keywords)


_CALL = """
import ctypes, errno, json, sys
call = ctypes.CDLL(None, use_errno=True).syscall
call.restype = ctypes.c_long
def answer(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_ulong(one) for one in arguments] + [ctypes.c_ulong(0)] * (6 - len(arguments))
    return "ok" if call(ctypes.c_long(number), *words) >= 0 else errno.errorcode[ctypes.get_errno()]
"""


@pytest.mark.needs_bubblewrap
def test_the_kernel_refuses_each_forbidden_call_in_a_box():
    machine = os.uname().machine
    if machine not in _MACHINES:
        pytest.skip("no filter for this machine")
    forbidden = numbers_of(system_calls.FORBIDDEN | system_calls.MISSING, machine)
    more = {"newer": 500, "x32": 0x40000000 + 39, "gap": 400}
    code = _CALL + "print(json.dumps({name: answer(number) for name, number in json.loads(sys.argv[1]).items()}))"
    done = run(_PYTHON, "-I", "-S", "-c", code, json.dumps(forbidden | more))
    assert done.returncode == 0, done.stderr
    expected = dict.fromkeys(forbidden, "EPERM") | dict.fromkeys((*system_calls.MISSING, *more), "ENOSYS")
    assert json.loads(done.stdout) == expected
    without = json.loads(
        run(_PYTHON, "-I", "-S", "-c", code, json.dumps({"unshare": forbidden["unshare"]}), filtered=False).stdout
    )
    assert without == {"unshare": "ok"}, "this test would pass without a filter"


@pytest.mark.needs_bubblewrap
def test_the_kernel_looks_at_arguments_as_the_program_says():
    machine = os.uname().machine
    if machine not in _MACHINES:
        pytest.skip("no filter for this machine")
    # An ioctl of no descriptor is EBADF where the filter lets it through.
    asked = [
        [name, number_of(getattr(system_calls, name), machine), [HIGH - 1 if name == "IOCTL" else words[0], *words[1:]]]
        for name, words, verdict in ARGUMENTS
        if verdict != ALLOW and name != "SOCKETPAIR"
    ]
    expected = [verdict for name, _, verdict in ARGUMENTS if verdict != ALLOW and name != "SOCKETPAIR"]
    code = _CALL + "print(json.dumps([answer(number, *words) for _, number, words in json.loads(sys.argv[1])]))"
    done = run(_PYTHON, "-I", "-S", "-c", code, json.dumps(asked))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


@pytest.mark.needs_bubblewrap
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine code of x86_64")
def test_a_call_of_32_bits_ends_the_process():
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))  # eax = getpid; int 0x80; return
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))(), flush=True)
"""
    done = run(_PYTHON, "-I", "-S", "-c", code)
    assert done.stdout == "" and done.returncode in (128 + signal.SIGSYS, 128 + signal.SIGSEGV)


@pytest.mark.needs_bubblewrap
def test_two_starts_need_a_filter_each():
    first, second = open_filter(), open_filter()
    assert first is not None and second is not None and first != second
    assert os.read(first, 1 << 16) == os.read(second, 1 << 16) == filter_program()
    assert os.get_inheritable(first)
    os.close(first)
    os.close(second)


# ── what authors use ─────────────────────────────────────────────────────────────────────────────────────────────────

_PYTHON_WORK = """
import asyncio, concurrent.futures, ctypes, fcntl, getpass, mmap, multiprocessing, os, pty, resource, select, signal
import socket, subprocess, tempfile, threading, time
from multiprocessing import shared_memory

def double(value):
    return 2 * value

async def talk():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(answer, "localhost", 0)
    reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"cat"))[0] == b"cat"

if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(double, range(20))) == [2 * value for value in range(20)]
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.close(); memory.unlink()
    asyncio.run(talk())
    assert subprocess.run(["sh", "-c", "echo a | tr a b"], capture_output=True).stdout == b"b\\n"
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", "test -t 0 && echo terminal"])
    assert b"terminal" in os.read(descriptor, 100)
    assert os.waitpid(pid, 0)[1] == 0
    watched = os.pidfd_open(os.getpid()); os.close(watched)
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(folder + "/fifo"); os.symlink("x", folder + "/link");
        open(folder + "/a", "w").write("x" * 10000)
        with open(folder + "/a", "rb") as source, open(folder + "/b", "wb") as target:
            os.sendfile(target.fileno(), source.fileno(), 0, 10000)
            os.copy_file_range(source.fileno(), target.fileno(), 100)
        fcntl.flock(open(folder + "/a"), fcntl.LOCK_EX)
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [0])
    socket.recv_fds(right, 1, 1)
    assert socket.if_nameindex()[0][1] == "lo"
    assert os.sched_getaffinity(0) and resource.getrlimit(resource.RLIMIT_NOFILE)
    os.nice(1); os.getrandom(8); os.eventfd(0) if hasattr(os, "eventfd") else None
    assert getpass.getuser() == "algo"
    signal.setitimer(signal.ITIMER_REAL, 0.01); signal.signal(signal.SIGALRM, lambda *_: None); signal.pause()
    print("done")
"""

_NODE_WORK = """
const { Worker, isMainThread } = require("worker_threads");
const { execFileSync, fork } = require("child_process");
const http = require("http"), fs = require("fs"), crypto = require("crypto"), zlib = require("zlib");
(async () => {
  await new Promise((ok, no) => new Worker("1 + 1", { eval: true }).on("exit", ok).on("error", no));
  if (execFileSync("echo", ["x"]).toString() !== "x\\n") throw new Error("echo");
  await fs.promises.writeFile("/tmp/file", zlib.gzipSync(crypto.randomBytes(1 << 20)));
  await fs.promises.copyFile("/tmp/file", "/tmp/copy");
  fs.watch("/tmp").close();
  const server = http.createServer((_, answer) => answer.end("hello"));
  await new Promise((ok) => server.listen(0, "127.0.0.1", ok));
  const answer = await fetch(`http://localhost:${server.address().port}/`);
  if ((await answer.text()) !== "hello") throw new Error("http");
  server.close();
  console.log("done");
})();
"""

_C_WORK = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *value) { *(int *)value = 42; return 0; }
int main(void) {
    pthread_t thread; int value = 0, status = 0;
    if (pthread_create(&thread, 0, work, &value) || pthread_join(thread, 0) || value != 42) return 1;
    pid_t child = fork();
    if (child == 0) _exit(7);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) return 2;
    if (system("true")) return 3;
    puts("done");
    return 0;
}
"""

_JAVA_WORK = """
import java.util.concurrent.*;
public class Work {
    public static void main(String[] given) throws Exception {
        var pool = Executors.newFixedThreadPool(4);
        if (pool.submit(() -> 6 * 7).get() != 42) System.exit(1);
        pool.shutdown();
        if (new ProcessBuilder("true").start().waitFor() != 0) System.exit(2);
        java.security.SecureRandom.getInstanceStrong().nextInt();
        System.out.println("done");
    }
}
"""


@pytest.mark.needs_bubblewrap
def test_python_works_with_threads_processes_sockets_and_terminals(tmp_path):
    (tmp_path / "work.py").write_text(_PYTHON_WORK)
    done = run(_PYTHON, "-I", "-B", str(tmp_path / "work.py"), mounts=(str(tmp_path),))
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.needs_bubblewrap
@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_node_works_with_workers_children_files_and_servers():
    done = run("node", "-e", _NODE_WORK)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.needs_bubblewrap
@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_a_compiler_and_what_it_makes_work(tmp_path):
    (tmp_path / "work.c").write_text(_C_WORK)
    source = str(tmp_path / "work.c")
    done = run("sh", "-c", f"gcc -pthread -o work {source} && ./work", mounts=(str(tmp_path),))
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.needs_bubblewrap
@pytest.mark.skipif(not shutil.which("javac"), reason="a JDK is not installed")
def test_java_works(tmp_path):
    (tmp_path / "Work.java").write_text(_JAVA_WORK)
    source = str(tmp_path / "Work.java")
    done = run("sh", "-c", f"javac -d . {source} && java Work", mounts=(str(tmp_path),))
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.needs_bubblewrap
def test_numeric_libraries_work_with_their_threads():
    folders = tuple({sys.prefix, os.path.realpath(sys.prefix)})
    code = "import numpy; a = numpy.ones((400, 400)); assert (a @ a)[0, 0] == 400; print('done')"
    done = run(os.path.join(sys.prefix, "bin/python"), "-I", "-B", "-c", code, mounts=folders)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_families_of_sockets_have_the_numbers_that_the_filter_has():
    assert (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK) == (1, 2, 10, 16)
