"""Shared by all tests: what needs a system package is skipped without it, and fails without it in CI."""

import os
import shutil

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: Marker -> the command it stands for, and the Debian package that brings it.
_NEEDS = {"needs_bubblewrap": ("bwrap", "bubblewrap")}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (command, package) in _NEEDS.items():
        if item.get_closest_marker(marker) and shutil.which(command) is None:
            reason = f"{command} is not installed: apt-get install {package}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    if item.get_closest_marker("gpu") and shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA GPU on this machine")
