"""What a sandbox is asked to do, and what is the same in all of them.

A box is one contained process with a socket to the host. What runs in it, and under which limits, comes as a `Job`
through that socket, so that a box can be there before anybody knows what it is for.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import serai
import serai_runner
from serai.ipc.messages import ForkPoint, VersionSpec
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_runner.scheduling.calls import Ending

#: Boots our part of a box; neither environment, nor current folder, nor site-packages decide what it imports.
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from serai_runner.inside.__main__ import main; main()"

#: The interpreter of our own part, and of versions that name none: ours without its virtual environment.
INTERPRETER = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
PYTHON_PREFIX = os.path.realpath(sys.base_prefix)
SDK_FOLDER = Path(serai.__file__).resolve().parent
RUNNER_FOLDER = Path(serai_runner.__file__).resolve().parent
INSIDE_FOLDER = RUNNER_FOLDER / "inside"

#: Where things are inside, in every sandbox that has an inside.
ALGORITHM, ENVIRONMENT, RUNTIME, POOL = "/opt/algorithm", "/opt/environment", "/opt/serai", "/run/serai/pool"


class SandboxUnavailable(Exception):
    """A sandbox does not work on this machine, or not for this version."""


@dataclass(frozen=True)
class Limits:
    """Of all processes in one box together, but for `rlimits`, which each has."""

    memory_bytes: int
    pids: int
    cpus: float
    tmp_bytes: int
    rlimits: Mapping[str, int] = field(default_factory=dict)  # names in lower case without prefix: "nofile"


@dataclass(frozen=True)
class Box:
    """One contained process to be started."""

    number: int  # never used twice by one host
    spec: VersionSpec
    limits: Limits
    models: str | None = None  # directory that holds the pool's socket for this version
    num_threads: int = 1  # what numeric libraries may use
    key: str = field(default="", repr=False)  # what its code's HTTP to its door bears
    secrets: Secrets = NO_SECRETS  # variables of its algorithm
    fork_after: ForkPoint = ""  # if not empty: it loads the code as far as this, and then makes replicas by forking

    @property
    def folders(self) -> dict[str, str]:
        """What it may read of its version: each folder's path here, and inside."""
        inside = {self.spec.code: ALGORITHM, self.spec.environment: ENVIRONMENT, self.models: POOL}
        return {source: path for source, path in inside.items() if source}


@dataclass(frozen=True)
class Job:
    """What a box does: the first message on its socket, as JSON, with the file for its output as a descriptor."""

    kind: str  # "python" or "algorithmia"
    entry: str
    algorithm: str  # folders, as they are called inside
    environment: str | None
    concurrency: int
    fork_after: str
    key: str = field(repr=False)
    is_private: bool  # whether its /tmp is its own
    variables: dict[str, str] = field(repr=False)
    rlimits: dict[str, int]

    def encode(self) -> bytes:
        """As it travels: four bytes that say how long, then JSON."""
        text = json.dumps(asdict(self), ensure_ascii=False).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(4, "little") + text


#: What a box runs before it is known which version that is: see `spares`.
NO_VERSION = VersionSpec(key="", owner="", name="", kind="python", code="")


class BoxEvents(Protocol):
    """What a sandbox says of a box: each at most once, in this order, from the loop, never before `start` returns.

    `on_ended` comes for every box; without `on_connected` before it, the box never stood. The first thing on the
    socket is Booted; then whoever owns it sends the Job, with the descriptors of its output and its lifeline.
    """

    def on_connected(self, sock: socket.socket) -> None:
        """The host's end of the box's socket, non-blocking. Whoever is told owns it, and sends the Job."""
        ...

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        """In place of `on_connected`: the box stood already, and has said so (see `boot`)."""
        ...

    def on_ended(self, ending: Ending) -> None:
        """All processes of the box are gone."""
        ...


class RunningBox(Protocol):
    """A box from `start` until `on_ended`."""

    @property
    def pid(self) -> int | None:
        """A process that sees the box's files, as this machine counts; None: there is none yet, or none any more."""
        ...

    def limit(self, limits: Limits) -> None:
        """Give a box that stands its version's limits. Raises OSError."""
        ...

    def kill(self) -> None:
        """SIGKILL to all of it, now or as soon as there is something to kill."""
        ...


class Source(Protocol):
    """What boxes come from: a sandbox, boxes kept in reserve, or a template."""

    def start(self, box: Box, output: int, events: Any) -> RunningBox:
        """Begin to start a box and return at once. From the main thread.

        Args:
            output: a file in memory, opened for appending, that takes what is printed before the Job arrives. Stays
                the caller's.

        Raises:
            OSError, SandboxUnavailable: it cannot even begin.
        """
        ...

    def job(self, box: Box) -> Job:
        """What to send into the box."""
        ...


class Sandbox(Source, Protocol):
    """Starts boxes. Knows nothing of frames and calls."""

    name: str
    #: Whether a box has its own /tmp, processes, network and users.
    is_isolating: bool
    #: Whether replicas may be forked from a template in a box.
    can_fork: bool
    #: What a version runs on that names no Python: "3.12".
    default_python: str

    def python_problem(self, python: str) -> str:
        """Why versions for this Python ("3.12") cannot run here, and the way out; empty: they can. May block."""
        ...

    def network_problem(self) -> str:
        """Why versions with the network permission cannot run here; empty: they can. May block."""
        ...

    def build_command(self, build: "BuildBox") -> list[str]:
        """A command line that runs `build.command` in a box of its own, to its end; its output is the command's.

        To be started with `build.variables` as its whole environment.
        """
        ...

    async def close(self) -> None:
        """End what is left of us on this machine: boxes, groups, networks."""
        ...


@dataclass(frozen=True)
class BuildBox:
    """An author's (or a package manager's) command, run once while a version is built, without network."""

    command: Sequence[str]
    folder: Path  # seen as /opt/algorithm, writable; the command starts in it
    memory_bytes: int
    pids: int
    variables: Mapping[str, str] = field(default_factory=dict)
    read_only: Sequence[tuple[Path, str]] = ()  # more folders, and where they are inside


def box_variables(box: Box, python_folder: str = f"{PYTHON_PREFIX}/bin") -> dict[str, str]:
    """The environment that an author's code sees, all of it; nothing of ours is inherited."""
    threads = str(box.num_threads)
    variables = {
        **box.secrets.values,  # first: whatever they are called, they change nothing of ours
        "PATH": f"{python_folder}:/usr/local/bin:/usr/bin:/bin",
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
        variables["SERAI_POOL_SOCKET"] = f"{POOL}/pool.sock"
    return variables


def make_job(box: Box, variables: dict[str, str], *, is_private: bool = True, **places: Any) -> Job:
    """The Job for `box`; `places` are `algorithm` and `environment` where they are not the usual ones."""
    spec = box.spec
    usual = {"algorithm": ALGORITHM, "environment": ENVIRONMENT if spec.environment else None}
    return Job(
        kind=spec.kind,
        entry=spec.entry or ("" if spec.kind == "algorithmia" else spec.name),
        concurrency=max(1, spec.limits.concurrency),
        fork_after=box.fork_after,
        key=box.key,
        is_private=is_private,
        variables=variables,
        rlimits=dict(box.limits.rlimits),
        **(usual | places),
    )
