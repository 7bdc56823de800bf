"""What an operator may choose about Docker, and which image a version runs in."""

import re
from dataclasses import dataclass

from serai_runner.sandbox.base import SandboxUnavailable

_PYTHON = re.compile(r"[1-9]\.[0-9]{1,3}")


@dataclass(frozen=True)
class DockerOptions:
    #: Built from Dockerfile.runner. Others of its repository, tagged py3.12 and so on, hold other Pythons.
    image: str = "serai-runner:latest"
    #: Of containers; empty: the engine's default. "runsc" is gVisor, registered with `--host-uds=open`.
    runtime: str = ""
    #: Path of a seccomp profile; empty: the engine's default, which is meant for untrusted code; or "unconfined".
    seccomp: str = ""
    #: Has to be on this machine: folders are mounted by their paths.
    engine: str = "unix:///var/run/docker.sock"
    #: /dev/shm of one container; counts as its memory.
    shm_bytes: int = 64 << 20

    @property
    def repository(self) -> str:
        name, colon, tag = self.image.rpartition(":")
        return name if colon and "/" not in tag else self.image


def image_for(options: DockerOptions, python: str, default_python: str) -> str:
    """The image for versions of Python `python` ("3.12"; empty: any).

    Raises:
        SandboxUnavailable: that is no version.
    """
    if python in ("", default_python):
        return options.image
    if not _PYTHON.fullmatch(python):
        raise SandboxUnavailable(f"Python {python!r} is no version: write it like 3.12")
    return f"{options.repository}:py{python}"


def python_of_tag(tag: str) -> str:
    """ "3.12" for "serai-runner:py3.12", empty for other tags."""
    _, _, name = tag.rpartition(":py")
    return name if _PYTHON.fullmatch(name) else ""


def how_to_build(image: str) -> str:
    """The command that makes a missing image."""
    version = python_of_tag(image) or "3.12"
    return f"docker build -f Dockerfile.runner --build-arg BASE=python:{version}-slim -t {image} ."
