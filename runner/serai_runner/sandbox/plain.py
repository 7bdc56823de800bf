"""No sandbox: a process of our own user with resource limits. For machines where nothing else works."""

import json
import os
from pathlib import Path

from serai.box.cgroups import Cgroups
from serai_runner import pythons
from serai_runner.sandbox.base import (
    BOOT,
    INSIDE_FOLDER,
    SDK_FOLDER,
    Box,
    BoxEvents,
    BuildBox,
    Job,
    RunningBox,
    SandboxUnavailable,
    box_variables,
    make_job,
)
from serai_runner.sandbox.process_box import ProcessBox


class Plain:
    """An author's code can read and change all that our user can."""

    name = "none"
    is_isolating = False
    default_python = pythons.OURS
    can_fork = False  # /tmp is everybody's

    def __init__(self, run_directory: Path, cgroups: Cgroups) -> None:
        self._runtime = run_directory / "runtime"
        self._cgroups = cgroups

    def start(self, box: Box, output: int, events: BoxEvents) -> RunningBox:
        if box.spec.kind == "algorithmia":
            raise SandboxUnavailable(
                "algorithmia.conf repositories answer through /tmp/algoout and need a /tmp of their own: "
                "install bubblewrap on this machine"
            )
        limits = box.limits
        group = self._cgroups.create(box.number, limits.memory_bytes, limits.pids, limits.cpus)
        runtime = self._ensure_runtime()

        def command(fd: int) -> list[str]:
            python = _interpreter_of(box).executable
            return [python, "-I", "-S", "-B", "-c", BOOT, runtime, json.dumps({"fd": fd, "parent": os.getpid()})]

        process = ProcessBox(events, group)
        process.start(command, {}, output)
        return process

    def job(self, box: Box) -> Job:
        variables = box_variables(box, os.path.dirname(_interpreter_of(box).executable))
        if box.models:
            variables["SERAI_POOL_SOCKET"] = f"{box.models}/pool.sock"
        return make_job(box, variables, is_private=False, algorithm=box.spec.code, environment=box.spec.environment)

    def python_problem(self, python: str) -> str:
        return ""  # whatever is installed here

    def network_problem(self) -> str:
        return ""  # they have this machine's, whatever their version says

    def build_command(self, build: BuildBox) -> list[str]:
        raise SandboxUnavailable("without a sandbox, nothing of an author runs at build time: install bubblewrap")

    async def close(self) -> None:
        pass  # its processes have been killed, each by itself

    def _ensure_runtime(self) -> str:
        """A folder with links to what a sandbox would mount: nothing else of ours is importable."""
        package = self._runtime / "serai_runner"
        package.mkdir(parents=True, exist_ok=True)
        for link, target in ((self._runtime / "serai", SDK_FOLDER), (package / "inside", INSIDE_FOLDER)):
            if not link.is_symlink() or Path(os.readlink(link)) != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        return str(self._runtime)


def _interpreter_of(box: Box) -> pythons.Interpreter:
    try:
        return pythons.find(box.spec.python)
    except pythons.UnknownPython as error:
        raise SandboxUnavailable(str(error)) from error
