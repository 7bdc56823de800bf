"""A schema-driven fuzzer holds /openapi.json against what the gateway really answers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_gateway.testing import Service

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Nobody else's: the operator's key deletes what it is made to."""
    with Service(tmp_path_factory.mktemp("openapi") / "home") as running:
        yield running


def test_schemathesis_finds_nothing_to_complain_about(service: Service) -> None:
    """All of its checks but those that `schemathesis.toml` explains, with a key that is good."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.address}/openapi.json"]
    command += ["--header", f"Authorization: Simple {service.key}", "--no-color", "--generation-deterministic"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
