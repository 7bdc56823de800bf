"""Replicas in Linux namespaces, through the `bwrap` command."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from serai.box import bubblewrap as bwrap
from serai.box import seccomp
from serai.box.cgroups import Cgroups
from serai_runner import pythons
from serai_runner.sandbox.base import (
    ALGORITHM,
    BOOT,
    ENVIRONMENT,
    INSIDE_FOLDER,
    INTERPRETER,
    POOL,
    PYTHON_PREFIX,
    RUNTIME,
    SDK_FOLDER,
    Box,
    BoxEvents,
    BuildBox,
    Job,
    Limits,
    RunningBox,
    SandboxUnavailable,
    box_variables,
    make_job,
)
from serai_runner.sandbox.egress.egress import Egress, EgressError
from serai_runner.sandbox.process_box import ProcessBox
from serai_runner.scheduling.calls import Ending

if TYPE_CHECKING:
    from serai_runner.settings import Settings

_SHM_BYTES = 64 << 20
#: Where the command of a build finds its filter.
_FILTER_FD = 9
#: A package manager unpacks here what it fetches.
_BUILD_TMP_BYTES = 1 << 30


class Bubblewrap:
    """Own users, processes, network, mounts, ipc, host name and cgroups; no capabilities, few system calls; dies with
    the host."""

    name = "bubblewrap"
    is_isolating = True
    default_python = pythons.OURS
    can_fork = True

    def __init__(self, home: Path, cgroups: Cgroups) -> None:
        self._home = home
        self._cgroups = cgroups
        self._egress = Egress(home)

    @classmethod
    def probe(cls, settings: "Settings", cgroups: Cgroups) -> "Bubblewrap":
        """One that works here. Raises SandboxUnavailable with what bwrap said."""
        said = bwrap.probe((*_python_mounts(PYTHON_PREFIX), "--", INTERPRETER, "-I", "-S", "-c", "pass"))
        if said:
            raise SandboxUnavailable(said)
        return cls(settings.home, cgroups)

    def start(self, box: Box, output: int, events: BoxEvents) -> RunningBox:
        if not box.spec.network:
            return self._start(box, output, events, [])
        networked = _NetworkedBox(self._egress, box.number, events)
        networked.begin(lambda words, events: self._start(box, output, events, words))
        return networked

    def job(self, box: Box) -> Job:
        python = _interpreter_of(box)
        return make_job(box, box_variables(box, os.path.dirname(python.executable)))

    def python_problem(self, python: str) -> str:
        return ""  # whatever is installed here can be shown in a box

    def network_problem(self) -> str:
        return self._egress.check()

    def build_command(self, build: BuildBox) -> list[str]:
        has_filter = not seccomp.why_no_filter()
        words = bwrap.box_arguments(
            network=False,
            tmp_bytes=_BUILD_TMP_BYTES,
            shm_bytes=_SHM_BYTES,
            seccomp_fd=_FILTER_FD if has_filter else None,
        )
        words = words[2:]  # without `env -i`: its variables are those of the command, where `ps` does not show them
        if has_filter:
            words = ["/bin/sh", "-c", f'exec {_FILTER_FD}<"$0"; exec "$@"', str(self._filter_file()), *words]
        words += ["--bind", str(build.folder), ALGORITHM]
        for folder, inside in build.read_only:
            words += ["--ro-bind", str(folder), inside]
        return [*words, "--remount-ro", "/", "--chdir", ALGORITHM, "--", *build.command]

    def _filter_file(self) -> Path:
        """The filter of system calls as a file, for commands that others start."""
        path = self._home / "run" / "box.filter"
        program = seccomp.filter_program()
        if not path.is_file() or path.read_bytes() != program:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(f".part-{os.getpid()}")
            part.write_bytes(program)
            part.replace(path)
        return path

    async def close(self) -> None:
        pass  # boxes die with us, and networks with their boxes

    def _start(self, box: Box, output: int, events: BoxEvents, before: list[str]) -> RunningBox:
        limits = box.limits
        group = self._cgroups.create(box.number, limits.memory_bytes, limits.pids, limits.cpus)
        process = ProcessBox(events, group)
        filter_fd = seccomp.open_filter()
        try:
            descriptors = (filter_fd,) if filter_fd is not None else ()
            process.start(lambda fd: before + self._command(box, fd, filter_fd), {}, output, descriptors)
        finally:
            if filter_fd is not None:
                os.close(filter_fd)
        return process

    def _command(self, box: Box, fd: int, filter_fd: int | None) -> list[str]:
        spec, python = box.spec, _interpreter_of(box)
        words = bwrap.box_arguments(
            network=spec.network, tmp_bytes=box.limits.tmp_bytes, shm_bytes=_SHM_BYTES, seccomp_fd=filter_fd
        )
        words += _python_mounts(python.prefix)
        for source, inside in box.folders.items():
            words += ["--ro-bind", source, inside]
        if not spec.code:  # what is shown to it later needs a place
            words += [word for inside in (ALGORITHM, ENVIRONMENT, POOL) for word in ("--dir", inside)]
        if spec.network:
            words += ["--ro-bind", str(self._egress.resolv_conf()), "/etc/resolv.conf"]
        words += ["--remount-ro", "/", "--chdir", ALGORITHM, "--"]
        return [*words, python.executable, "-I", "-S", "-B", "-c", BOOT, RUNTIME, json.dumps({"fd": fd})]


def _python_mounts(prefix: str) -> list[str]:
    words = ["--ro-bind", str(SDK_FOLDER), f"{RUNTIME}/serai"]
    words += ["--ro-bind", str(INSIDE_FOLDER), f"{RUNTIME}/serai_runner/inside"]
    if not prefix.startswith("/usr/") and prefix != "/usr":
        words += ["--ro-bind", prefix, prefix]
    return words


def _interpreter_of(box: Box) -> pythons.Interpreter:
    try:
        return pythons.find(box.spec.python)
    except pythons.UnknownPython as error:
        raise SandboxUnavailable(str(error)) from error


class _NetworkedBox:
    """A box that starts when its network is there, which takes some commands, and takes it away at its end."""

    def __init__(self, egress: Egress, number: int, events: BoxEvents) -> None:
        self._egress = egress
        self._number = number
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._box: RunningBox | None = None
        self._is_doomed = False

    def begin(self, start: Callable[[list[str], BoxEvents], RunningBox]) -> None:
        self._task = self._loop.create_task(self._begin(start))

    @property
    def pid(self) -> int | None:
        return self._box.pid if self._box is not None else None

    def limit(self, limits: Limits) -> None:
        if self._box is not None:
            self._box.limit(limits)

    def kill(self) -> None:
        self._is_doomed = True
        if self._box is not None:
            self._box.kill()

    async def _begin(self, start: Callable[[list[str], BoxEvents], RunningBox]) -> None:
        try:
            namespace = await asyncio.to_thread(self._egress.namespace, self._number)
        except EgressError as error:
            self._events.on_ended(Ending(f"it has no network: {error}", is_platform=True))
            return
        if self._is_doomed:
            self.on_ended(Ending("not needed any more"))
            return
        try:
            self._box = start(["nsenter", f"--net={namespace}", "--"], self)
        except (OSError, SandboxUnavailable) as error:
            self.on_ended(Ending(str(error), is_platform=True))

    def on_connected(self, sock: socket.socket) -> None:
        self._events.on_connected(sock)

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        self._events.on_booted(sock, door)

    def on_ended(self, ending: Ending) -> None:
        self._removing = self._loop.create_task(self._remove())
        self._events.on_ended(ending)

    async def _remove(self) -> None:
        with contextlib.suppress(EgressError):
            await asyncio.to_thread(self._egress.remove, self._number)
