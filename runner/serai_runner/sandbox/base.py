"""What a sandbox is asked to do, and what is the same in all of them."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import serai
import serai_runner
from serai.ipc.messages import VersionSpec

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from serai_runner.inside.__main__ import main; main()"

#: The interpreter replicas run in: ours without its virtual environment.
INTERPRETER = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
PYTHON_PREFIX = os.path.realpath(sys.base_prefix)
SDK_FOLDER = Path(serai.__file__).resolve().parent
RUNNER_FOLDER = Path(serai_runner.__file__).resolve().parent
INSIDE_FOLDER = RUNNER_FOLDER / "inside"


class SandboxUnavailable(Exception):
    """A sandbox does not work on this machine."""


@dataclass(frozen=True)
class Box:
    """One replica to be started."""

    spec: VersionSpec
    fd: int  # its end of the socket pair
    models: str | None = None  # directory that holds the pool's socket for this version
    #: Limits that the replica sets on itself before it loads anything: names as in `inside.confine`.
    rlimits: dict[str, int] = field(default_factory=dict)
    tmp_bytes: int = 512 << 20
    num_threads: int = 1  # what numeric libraries may use


class Sandbox(Protocol):
    """Turns a box into a command line. Knows nothing of sockets, frames and calls."""

    name: str
    #: Whether the box has its own /tmp, processes, network and users.
    is_isolating: bool

    def command(self, box: Box) -> list[str]: ...

    def environment(self, box: Box) -> dict[str, str]:
        """All variables of the process; nothing of ours is inherited."""
        ...


def replica_command(box: Box, runtime: str, algorithm: str, environment: str | None, parent: int) -> list[str]:
    """How our part of a replica is started, with paths as they are inside."""
    job = {
        "kind": box.spec.kind,
        "entry": box.spec.entry or ("" if box.spec.kind == "algorithmia" else box.spec.name),
        "fd": box.fd,
        "rlimits": box.rlimits,
        "parent": parent,
        "algorithm": algorithm,
        "environment": environment,
        "concurrency": max(1, box.spec.limits.concurrency),
    }
    return [INTERPRETER, "-I", "-S", "-B", "-c", _BOOT, runtime, json.dumps(job)]


def replica_environment(box: Box, pool_socket: str) -> dict[str, str]:
    threads = str(box.num_threads)
    variables = {
        "PATH": f"{PYTHON_PREFIX}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108  # inside it is private
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",  # the folders are read-only: trying costs time and nothing is kept
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    if box.spec.models:
        variables["SERAI_POOL_SOCKET"] = pool_socket
    return variables
