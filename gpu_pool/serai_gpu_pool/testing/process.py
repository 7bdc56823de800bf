"""A real pool process, and a client that talks to its socket without a loop."""

import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serai.ipc.frames import NARROW
from serai.ipc.messages import (
    Admit,
    Admitted,
    Call,
    Define,
    Infer,
    Inferred,
    Message,
    ModelSpec,
    Stats,
    VersionSpec,
    Written,
    decode,
    encode,
)
from serai_gpu_pool.device.channel import Channel

#: Nothing in a test takes this long; only something that is stuck does.
PATIENCE_S = 30.0


def store(folder: Path, name: str, data: bytes) -> ModelSpec:
    """Put a model file where the file store would."""
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{digest}.onnx"
    path.write_bytes(data)
    return ModelSpec(name, digest, str(path), "onnx", len(data))


def version_of(*models: ModelSpec, owner: str = "alice") -> VersionSpec:
    name = models[0].name
    return VersionSpec(f"{owner}/{name}@{models[0].sha256[:8]}", owner, name, "model", "", models=models)


class Client:
    """One connection. `ask` waits for the answer to one message; `send` and `read` keep many in flight."""

    def __init__(self, path: Path | str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(PATIENCE_S)
        try:
            self._sock.connect(str(path))
        except OSError:
            self._sock.close()
            raise
        self._channel = Channel(self._sock, 1 << 27, NARROW)
        self._defined: set[str] = set()
        self._ids = itertools.count(1)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        self._channel.write(encode(message), [payload])

    def send_raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def read(self) -> tuple[Any, bytes]:
        """The next message. Raises EOFError when the pool has closed, TimeoutError when nothing comes."""
        header, payload = self._channel.read()
        return decode(header), bytes(payload)

    def ask(self, message: Message, payload: bytes | memoryview = b"") -> tuple[Any, bytes]:
        self.send(message, payload)
        return self.read()

    def send_call(
        self, version: VersionSpec, body: bytes, content_type: Any = "json", timeout_s: float = 20.0, payer: str = "bob"
    ) -> int:
        """Begin a call; its id."""
        if version.key not in self._defined:
            self.send(Define(version))
            self._defined.add(version.key)
        number = next(self._ids)
        deadline = time.monotonic() + timeout_s
        self.send(Call(number, version.key, content_type, deadline, f"req-{number}", payer), body)
        return number

    def send_infer(
        self, version: VersionSpec, inputs: tuple[Written, ...], body: bytes, timeout_s: float = 20.0
    ) -> int:
        """Begin a call with named tensors; its id."""
        if version.key not in self._defined:
            self.send(Define(version))
            self._defined.add(version.key)
        number = next(self._ids)
        deadline, name = time.monotonic() + timeout_s, version.models[0].name
        self.send(Infer(number, version.key, name, inputs, (), True, deadline, f"req-{number}", "bob", 0), body)
        return number

    def read_infer(self) -> tuple[int, Any]:
        """The next answer to one of them: its id and its only output, as a list."""
        message, payload = self.read()
        assert isinstance(message, Inferred), message
        return message.id, json.loads(payload)

    def call(self, version: VersionSpec, body: bytes, content_type: Any = "json", timeout_s: float = 20.0):
        """One call and its answer."""
        number = self.send_call(version, body, content_type, timeout_s)
        message, payload = self.read()
        assert message.id == number
        return message, payload

    def admit(self, *models: ModelSpec) -> Path:
        """Open a socket for these models; its path."""
        version = version_of(*models)
        answer, _ = self.ask(Admit(version.key, version.owner, models))
        assert isinstance(answer, Admitted) and answer.directory
        return Path(answer.directory) / "pool.sock"

    def figures(self) -> dict[str, float]:
        """The pool's metrics by name and labels."""
        _, text = self.ask(Stats(next(self._ids)))
        lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


class PoolProcess:
    """`python -m serai_gpu_pool` in a folder, until the end of a `with`."""

    def __init__(self, home: Path, *options: str, program: str = "") -> None:
        self.home = home
        self._program = [program] if program else ["-m", "serai_gpu_pool"]
        self._options = options
        self.socket = home / "run" / "pool.sock"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.socket.unlink(missing_ok=True)
        arguments = [sys.executable, *self._program, "--home", str(self.home), "--threads", "1", *self._options]
        with (self.home / "pool.log").open("ab") as log:
            return subprocess.Popen(arguments, stderr=log)

    def __enter__(self) -> "PoolProcess":
        wait_for(self.socket.exists)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            finally:
                self.process.kill()

    def client(self) -> Client:
        return Client(self.socket)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def restart(self) -> None:
        self.process = self._start()
        wait_for(self.socket.exists)

    def worker_pid(self) -> int:
        """The device's worker; waits until there is one."""
        found: list[int] = []
        wait_for(lambda: bool(found) or bool(found.extend(self._children()) or found))
        return found[0]

    def _children(self) -> list[int]:
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]


def is_alive(pid: int) -> bool:
    """Is there such a process, and not only its remains?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_for(condition) -> None:
    """Look until something outside of our reach is so; fails after `PATIENCE_S`."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
