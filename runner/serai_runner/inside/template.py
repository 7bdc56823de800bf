"""A process that has loaded a version's code and makes replicas by forking: what took seconds is not done again.

Only where that is safe. What a fork would share with its siblings, though it looks like its own, makes it unsafe:
threads (they do not exist in the fork), children, open files and sockets (their positions and streams), and files by
fixed names in /tmp. Then this process becomes an ordinary replica, and tells the host to start the next one so.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import stat
import sys
import types
from typing import Any, NoReturn

from serai import _wire
from serai_runner.inside import confine, coroutines, loading, native, scratch
from serai_runner.inside.host_link import HostLink, own
from serai_runner.inside.output import Output

#: Most of an author's code that is searched for fixed names.
_MAX_SEARCHED_BYTES = 16 * 1024 * 1024
_FIXED_NAME = b"/tmp"
#: Modules that keep the address of the door they found when they were imported.
_HOLDS_ADDRESS = ("Algorithmia", "serai._client", "serai._async_client")
_HARMLESS_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")


def serve(link: HostLink, output: Output, job: dict[str, Any]) -> None:
    """Load as far as the job says, then fork on demand until the host closes; or become a replica."""
    try:
        loading.import_ours()
        is_shared = not _has_fixed_names(job["algorithm"])
        module = loading.import_author(job)
        advice = job["fork_after"] if is_shared and not what_is_open(link) else ""
        if job["fork_after"] == "load" or not advice:
            loading.prepare(module, coroutines.finish)
            if advice and what_is_open(link):
                advice, is_shared = "import", False
        if advice and is_shared and not scratch.close_shared():
            advice = ""
    except BaseException as error:
        native.refuse(link, output, error)
        return
    if not advice or not is_shared:
        native.answer_calls(link, output, job, module, scratch.Scratch(is_private=job["is_private"]), advice)
        return
    printed = output.take()
    confine.hide_memory()  # forks are one user: what a caller may do to one of them must not reach the others
    gc.collect()
    gc.freeze()  # a collection in a fork must not touch, and so copy, what all of them share
    link.send([_wire.READY, "", "", True, advice], printed)
    _Template(link, output, job, module).run()


def what_is_open(link: HostLink) -> str:
    """What forks would wrongly share; empty: nothing."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "it has threads"
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
        return "it has children"
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in link.fds and not _is_harmless(fd):
            return "it has open files or sockets"
    if any(name in sys.modules for name in _HOLDS_ADDRESS):
        return "it holds a client"
    return ""


def _is_harmless(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return True  # the one that listed the folder
    return stat.S_ISCHR(mode) and target in _HARMLESS_DEVICES


def _has_fixed_names(root: str) -> bool:
    left = _MAX_SEARCHED_BYTES
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith(".py"):
                continue
            with open(os.path.join(folder, name), "rb") as file:
                text = file.read(left)
            left -= len(text)
            if _FIXED_NAME in text or left <= 0:
                return True
    return False


class _Template:
    def __init__(self, link: HostLink, output: Output, job: dict[str, Any], module: types.ModuleType) -> None:
        self._link = link
        self._output = output
        self._job = job
        self._module = module
        self._buffer = bytearray()
        self._fds: list[int] = []  # that came and belong to frames not yet read
        self._children: dict[int, Any] = {}  # pidfd -> (pid, number)
        self._shared_memory = scratch.Scratch(scratch.SHARED_MEMORY)

    def run(self) -> None:
        host = self._link.sock.fileno()
        poll = select.poll()
        poll.register(host, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == host:
                    if not self._read(poll):
                        return
                elif fd in self._children:
                    poll.unregister(fd)
                    self._reap(fd)

    def _read(self, poll: Any) -> bool:
        data, fds, _, _ = socket.recv_fds(self._link.sock, 64 * 1024, 16)
        self._fds += fds
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "little")
            if len(self._buffer) < end:
                break
            header = _wire.unpack_header(bytes(self._buffer[6:end]))
            del self._buffer[:end]
            self._fork(header[1], self._fds.pop(0), poll)
        return bool(data)

    def _fork(self, number: int, fd: int, poll: Any) -> None:
        self._output.flush()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(fd)
            self._link.send([_wire.FORKED, number, f"cannot fork: {error.strerror}"])
            return
        if pid == 0:
            self._be_replica(number, fd)
        os.close(fd)
        pidfd = os.pidfd_open(pid)
        header = _wire.pack_header([_wire.FORKED, number, ""])
        try:
            socket.send_fds(self._link.sock, [_wire.frame_prefix(header) + header], [pidfd])
        except OSError as error:  # others of our user have too many descriptors on their way
            os.close(pidfd)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._link.send([_wire.FORKED, number, f"cannot hand over a fork: {error.strerror}"])
            return
        self._children[pidfd] = (pid, number)
        poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, number = self._children.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._link.send([_wire.ENDED, number, status])
        scratch.remove_own(number)
        if not self._children:  # whose it was nobody knows, but now it is nobody's
            self._shared_memory.empty()

    def _be_replica(self, number: int, fd: int) -> NoReturn:
        """In the fork. Nothing of the template's may be used by it, and it never comes back."""
        try:
            for pidfd in self._children:
                os.close(pidfd)
            for other in self._fds:
                os.close(other)
            self._link.forget()
            link = HostLink(socket.socket(fileno=own(fd)))
            os.close(fd)
            job = link.ask_job()
            link.keep_lifeline()
            confine.limit(job["rlimits"])
            os.environ.update(link.door_variables(job["key"]))
            folder = scratch.own_scratch(number)
            _new_chances()
            self._answer(link, Output(link.output), job, scratch.Scratch(folder))
            os._exit(0)
        finally:
            os._exit(1)

    def _answer(self, link: HostLink, output: Output, job: dict[str, Any], place: scratch.Scratch) -> None:
        if job["fork_after"] == "import":
            try:
                loading.prepare(self._module, coroutines.finish)
            except BaseException as error:
                native.refuse(link, output, error)
                return
        native.answer_calls(link, output, job, self._module, place, job["fork_after"])
        output.flush()


def _new_chances() -> None:
    """Random numbers that no sibling draws as well. Python's own module does it by itself."""
    numpy_random = sys.modules.get("numpy.random")
    torch_random = sys.modules.get("torch.random")
    for seed in (getattr(numpy_random, "seed", None), getattr(torch_random, "seed", None)):
        if seed is not None:
            with contextlib.suppress(Exception):
                seed()
