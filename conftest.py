"""Shared by all tests: what needs a system package is skipped without it, and fails without it in CI."""

import functools
import os
import shutil
import socket

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: Marker -> the command it stands for, and the Debian package that brings it.
_NEEDS = {"needs_bubblewrap": ("bwrap", "bubblewrap")}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (command, package) in _NEEDS.items():
        if item.get_closest_marker(marker) and shutil.which(command) is None:
            _go_without(f"{command} is not installed: apt-get install {package}")
    if item.get_closest_marker("needs_docker") and (reason := _docker_problem()):
        _go_without(reason)
    if item.get_closest_marker("gpu") and shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA GPU on this machine")


def _go_without(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def _docker_problem() -> str:
    """Why there are no containers here; empty: there are."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        try:
            sock.connect("/var/run/docker.sock")
            sock.sendall(b"GET /images/serai-runner:latest/json HTTP/1.0\r\n\r\n")
            status = sock.recv(64).split(b"\r\n")[0]
        except OSError as error:
            return f"no Docker engine answers ({error.strerror or error}): apt-get install docker.io; dockerd &"
    return "" if b" 200 " in status else "Docker has no image serai-runner: see .ci/run"
