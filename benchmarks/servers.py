"""The servers that are measured: Serai itself, and the limits it is held against."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from serai_gateway.testing import Service, free_port

_BOOT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server and how to call it."""

    url: str
    headers: dict[str, str]
    pid: int = 0
    home: Path = Path()  # of a Serai


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname, "benchmarks call servers of their own"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request("POST", f"{parts.path}?{parts.query}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _BOOT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} while starting")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start in time")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def uvicorn(application: str, environment: dict[str, str] | None = None, *options: str) -> Iterator[Server]:
    """One uvicorn worker with uvloop and httptools: the limit of any gateway in Python."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        application,
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
    ]
    command += ["--no-access-log", "--log-level", "warning", *options]
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})})
    try:
        _wait_for_port(process, port)
        yield Server(f"http://127.0.0.1:{port}/", {}, process.pid)
    finally:
        _stop(process)


@contextlib.contextmanager
def serai(publish: list[Path], *options: str, home: Path | None = None) -> Iterator[Server]:
    """`serai up` with the folders of `publish` published. `url` is the address alone.

    Args:
        home: kept; without one a home is made for the time of the `with`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="serai-bench-") as folder,
        Service(home or Path(folder, "home"), *options) as service,
    ):
        for source in publish:
            service.publish(source)
        yield Server(service.address, {"Authorization": f"Simple {service.key}"}, service.pid, service.home)
