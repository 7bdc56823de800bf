"""What an author's code achieves from inside a template: it speaks for it, and for the forks that it says it made."""

import json
import os
import time

import pytest

from serai.ipc.messages import Failure, Refusal, Result
from serai_runner.testing import is_alive, python_version, run_host, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

GOOD = "def apply(input):\n    return input\n"
#: Finds the template's link in the frames above it, and takes its place.
SPEAK = r"""
import os, socket, struct, sys, time
from serai import _wire

def find():
    frame = sys._getframe()
    while "link" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["link"].sock

def frame(header):
    header = _wire.pack_header(header)
    return _wire.frame_prefix(header) + header

def say(header, *fds):
    socket.send_fds(host, [frame(header)], list(fds))

def be_asked():
    data, fds, _, _ = socket.recv_fds(host, 65536, 16)
    return _wire.unpack_header(data[6:])[1], fds[0]

def flood(header, *fds):
    try:
        for _ in range(3000):
            say(header, *fds)
    except OSError:
        pass

host = find()
READY = [_wire.READY, "", "", True, "load"]
"""
ASKED = SPEAK + "say(READY)\nnumber, fd = be_asked()\n"
FORK = ASKED + "child = os.fork()\nif child == 0:\n    time.sleep(1000)\npidfd = os.pidfd_open(child)\n"
HOSTILE = {
    "the process of the host as its fork": ASKED
    + "end = socket.socket(fileno=fd)\n"
    + "try: pidfd = struct.unpack('i', end.getsockopt(socket.SOL_SOCKET, 77, 4))[0]\n"
    + "except OSError: pidfd = os.pidfd_open(1)\n"
    + "say([_wire.FORKED, number, ''], pidfd)\n",
    "a file as its fork": ASKED + "say([_wire.FORKED, number, ''], os.open('/etc/passwd', os.O_RDONLY))\n",
    "a pipe as its fork": ASKED + "say([_wire.FORKED, number, ''], os.pipe()[0])\n",
    "no fork": ASKED,
    "a status that is none": FORK
    + "say([_wire.FORKED, number, ''], pidfd)\nsay([_wire.ENDED, number, 0x7f])\nos.kill(child, 9)\n",
    "descriptors without end": ASKED + "null = os.open('/dev/null', os.O_RDONLY)\n"
    + "flood([_wire.ENDED, number, 0x7f], *[null] * 16)\n",
    "messages that answer nothing": ASKED + "flood(READY)\n",
    "garbage, then that it is ready": SPEAK + "host.sendall(frame([99]) + frame(READY))\n",
}  # fmt: skip


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("docker", marks=pytest.mark.needs_docker)])
def host(request, tmp_path_factory):
    options = ("--sandbox", request.param, "--spares", "0", "--load-s", "4", "--idle-s", "0.3")
    with run_host(tmp_path_factory.mktemp("serai"), *options) as host:
        yield host


def define(host, caller, name: str, source: str, **more) -> str:
    key = f"{name}/demo@1"
    code = write_algorithm(host.home / "code" / name, source)
    caller.define(python_version(code, key=key, owner=name, **more))
    return key


def num_replicas(caller) -> int:
    lines = [line for line in caller.stats().splitlines() if line.startswith("serai_runner_replicas{")]
    return sum(int(float(line.split()[1])) for line in lines)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_gives_what_is_no_fork_harms_its_own_version_only(host, caller, name):
    source = HOSTILE[name] + "time.sleep(1000)\n" + GOOD
    good, evil = define(host, caller, "good", GOOD), define(host, caller, name.replace(" ", "-"), source)
    assert isinstance(caller.call(good, b"1").message, Result)
    num_open = len(os.listdir(f"/proc/{host.pid}/fd"))
    assert not isinstance(caller.call(evil, b"1").message, Result)
    host.wait_for(lambda: num_replicas(caller) == 0, "its place is free again")
    assert is_alive(host.pid) and isinstance(caller.call(good, b"1").message, Result)
    assert len(os.listdir(f"/proc/{host.pid}/fd")) < num_open + 50


def test_a_door_that_is_no_socket_leaves_nothing_in_the_host(host, caller):
    source = (
        "import os, socket\nsend = socket.send_fds\n"
        "def file_instead(sock, buffers, fds): return send(sock, buffers, [os.open('/etc/passwd', 0)])\n"
        "os.register_at_fork(after_in_child=lambda: setattr(socket, 'send_fds', file_instead))\n"
    ) + GOOD
    key = define(host, caller, "no-door", source)
    assert isinstance(caller.call(key, b"1").message, Result)


def test_code_that_ends_each_fork_at_once_is_the_authors_fault(host, caller):
    source = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(5))\n" + GOOD
    failure = caller.call(define(host, caller, "ends-forks", source), b"1").message
    assert isinstance(failure, Failure) and failure.error_type == "InitializationError"


def test_a_module_that_prints_more_than_is_kept_while_loading_can_be_forked(host, caller):
    key = define(host, caller, "wordy", "print('x' * (2 << 20))\n" + GOOD)
    assert isinstance(caller.call(key, b"1").message, Result)


def test_what_a_fork_left_on_disk_and_in_shared_memory_is_gone_for_the_next(host, caller):
    source = """
import os
def apply(word):
    folder = os.environ["TMPDIR"]
    if word == "look":
        return [len(os.listdir(os.path.dirname(folder))), os.listdir("/dev/shm")]
    for place in (folder, "/dev/shm"):
        open(place + "/left", "w").write("x")
    os._exit(1)
"""
    key = define(host, caller, "leaves", source)
    for _ in range(2):
        assert isinstance(caller.call(key, b'"leave"').message, Refusal)
    assert json.loads(caller.call(key, b'"look"').result) == [1, []]


def test_descriptors_on_their_way_in_one_box_do_not_keep_others_from_starting(host, caller):
    source = """
import os, socket
kept = []
def apply(input):
    null = os.open("/dev/null", 0)
    try:
        while True:
            kept.append(socket.socketpair())
            for _ in range(3):
                socket.send_fds(kept[-1][0], [b"x"], [null] * 253)
    except OSError:
        return 1
"""
    hoarder = define(host, caller, "hoarder", source)
    assert isinstance(caller.call(hoarder, b"1").message, Result)
    key = define(host, caller, "starts-beside", GOOD)
    until = time.monotonic() + 20
    while not isinstance(answer := caller.call(key, b"1").message, Result):
        assert isinstance(answer, Refusal) and answer.retriable and time.monotonic() < until, answer
        caller.call(hoarder, b"1")  # still there
        time.sleep(0.1)
