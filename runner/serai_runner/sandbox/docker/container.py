"""What the engine is asked for, as its API writes it: one container per box, with nothing that is not listed here."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serai.ipc.sockets import BOX_UID
from serai_runner.sandbox.base import (
    ALGORITHM,
    BOOT,
    INSIDE_FOLDER,
    RUNTIME,
    SDK_FOLDER,
    Box,
    BuildBox,
)
from serai_runner.sandbox.docker.options import DockerOptions

#: Where the folder with the host's socket is inside, and the socket in it.
LINK = "/run/serai/host"
LINK_SOCKET = "box.sock"

_PATH = "/usr/local/bin:/usr/bin:/bin"
#: When the machine runs out of memory, a box goes before any daemon.
_OOM_SCORE = 800
#: What tells about the machine or changes it: the engine's own list, and the pressure of all, which it leaves writable.
_MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/pressure", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
#: Of what a container prints by itself the last 4 KiB are looked at; the engine keeps this much on disk.
_LOG = {"Type": "local", "Config": {"max-size": "64k", "max-file": "1", "compress": "false"}}
#: Open files of one process when its limits say nothing.
_OPEN_FILES = 1024
#: Until a box confines itself. All boxes are one user, and the kernel lets a user have as many descriptors on their way
#: as the sender may have open: what authors' code hoards must not keep a box from saying that it stands.
_BOOT_FILES = 4 * _OPEN_FILES
#: /tmp of a build. It counts as the build's memory, so this only ends what fills it by mistake.
_BUILD_TMP_BYTES = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What the engine said of its machine."""

    num_cpus: int
    can_limit_cpus: bool = True
    has_cgroup_namespaces: bool = field(default_factory=lambda: os.path.exists("/proc/self/ns/cgroup"))


@dataclass(frozen=True)
class Network:
    """Docker's network for boxes that may use one, and whom its resolver asks."""

    name: str
    name_servers: Sequence[str]


def box_config(
    box: Box,
    image: str,
    folder: Path,
    network: Network | None,
    labels: dict[str, str],
    options: DockerOptions,
    machine: Machine,
) -> dict[str, Any]:
    """A container that connects to `folder`/box.sock and waits for its Job."""
    limits = box.limits
    mounts = [*runtime_mounts(), _mount(folder, LINK), *(_mount(*pair) for pair in box.folders.items())]
    host = _confined(limits.memory_bytes, limits.pids, limits.tmp_bytes, options, machine)
    host |= {
        "Mounts": mounts,
        "NetworkMode": network.name if network else "none",
        "Dns": list(network.name_servers) if network else [],
        "Ulimits": _ulimits(_BOOT_FILES),
        "Init": True,  # something that reaps, and that a signal to the replica ends as the replica
    }
    if machine.can_limit_cpus:
        host["NanoCpus"] = int(min(max(limits.cpus, 0.01), machine.num_cpus) * 1e9)
    words = [BOOT, RUNTIME, json.dumps({"socket": f"{LINK}/{LINK_SOCKET}"})]
    return {
        **_process(image, ["python3", "-I", "-S", "-B", "-c", *words], {"PATH": _PATH}),
        "User": f"{BOX_UID}:{BOX_UID}",
        "Labels": labels,
        "HostConfig": host,
    }


def trial_config(image: str, labels: dict[str, str], options: DockerOptions, machine: Machine) -> dict[str, Any]:
    """A container that imports what a box imports and prints its Python's version."""
    code = f"import sys; sys.path.insert(0, {RUNTIME!r}); import serai_runner.inside.__main__"
    words = ["python3", "-I", "-S", "-B", "-c", f"{code}; print('%d.%d' % sys.version_info[:2])"]
    host = _confined(256 << 20, 64, 8 << 20, options, machine)
    host |= {"Mounts": runtime_mounts(), "NetworkMode": "none", "Ulimits": _ulimits(_OPEN_FILES), "Init": True}
    if machine.can_limit_cpus:
        host["NanoCpus"] = 10**9
    return {
        **_process(image, words, {"PATH": _PATH}),
        "User": f"{BOX_UID}:{BOX_UID}",
        "Labels": labels,
        "HostConfig": host,
    }


def build_config(
    build: BuildBox, words: list[str], user: str, image: str, labels: dict[str, str], options: DockerOptions,
    machine: Machine,
) -> dict[str, Any]:  # fmt: skip
    """A container whose first process is `words`, with the build's folder writable and its own input to listen to."""
    usual = {"PATH": _PATH, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
    host = _confined(build.memory_bytes, build.pids, min(_BUILD_TMP_BYTES, build.memory_bytes), options, machine)
    host |= {
        "Mounts": [
            _mount(build.folder, ALGORITHM, is_writable=True),
            *(_mount(source, inside) for source, inside in build.read_only),
        ],
        "NetworkMode": "none",
        "Ulimits": _ulimits(4 * _OPEN_FILES),
    }
    return {
        **_process(image, words, usual | dict(build.variables)),
        "User": user,
        "WorkingDir": ALGORITHM,
        "OpenStdin": True,
        "StdinOnce": True,  # when whoever started the build is gone, the container's input ends
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": labels,
        "HostConfig": host,
    }


def runtime_mounts() -> list[dict[str, Any]]:
    """Ours over what the image holds, so that host and image never disagree."""
    return [_mount(SDK_FOLDER, f"{RUNTIME}/serai"), _mount(INSIDE_FOLDER, f"{RUNTIME}/serai_runner/inside")]


def _process(image: str, words: list[str], variables: dict[str, str]) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": words[:1],
        "Cmd": words[1:],
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Hostname": "serai",
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
    }


def _confined(memory_bytes: int, pids: int, tmp_bytes: int, options: DockerOptions, machine: Machine) -> dict[str, Any]:
    security = ["no-new-privileges=true"]
    if options.seccomp:
        security.append(f"seccomp={_seccomp(options.seccomp)}")
    return {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": security,
        "MaskedPaths": list(_MASKED),
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,  # memory and swap together: no swap
        "PidsLimit": pids,
        "OomScoreAdj": _OOM_SCORE,
        "ShmSize": options.shm_bytes,
        "IpcMode": "private",
        "CgroupnsMode": "private" if machine.has_cgroup_namespaces else "",
        # Compilers and repositories with programs of their own unpack there what they then start, hence exec.
        "Tmpfs": {"/tmp": f"size={tmp_bytes},mode=700,uid={BOX_UID},gid={BOX_UID},nosuid,nodev,exec"},  # noqa: S108
        "LogConfig": _LOG,
        "RestartPolicy": {"Name": "no"},
        **({"Runtime": options.runtime} if options.runtime else {}),
    }


def _seccomp(choice: str) -> str:
    return choice if choice == "unconfined" else Path(choice).read_text()


def _ulimits(open_files: int) -> list[dict[str, Any]]:
    return [
        {"Name": "core", "Soft": 0, "Hard": 0},
        {"Name": "nofile", "Soft": open_files, "Hard": open_files},
    ]


def _mount(source: str | Path, inside: str, is_writable: bool = False) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": inside,
        "ReadOnly": not is_writable,
        # Alone: a mount of the machine below the folder would come along, writable.
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }
