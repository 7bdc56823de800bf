"""Replicas of versions with models: the host asks the pool for a directory, and mounts it."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import Admit, Admitted, ModelSpec, Refusal, Result, Withdraw, decode, encode
from serai.ipc.sockets import serve_unix
from serai_runner.testing import python_version, run_host, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

MODELS = (ModelSpec("tiny", "0" * 64, "/files/tiny.onnx", "onnx", 10),)
SOURCE = """
import os, socket
def apply(input):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(os.environ["SERAI_POOL_SOCKET"])
    return sock.recv(100)
"""


class PoolServer:
    """As much of a pool as the host sees: it admits versions, each to a directory with a socket that says its name."""

    def __init__(self, home: Path, name: str, refuses: bool = False) -> None:
        self.messages: list = []
        self._path = home / "run" / "pool.sock"
        self._folder = home / "run" / "models" / name
        self._name = name
        self._refuses = refuses
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._stop = asyncio.Event()
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._folder.mkdir(parents=True)
        pool = self

        class Admitter(FrameProtocol):
            def frame_received(self, header: bytes, payload: bytes) -> None:
                message = decode(header)
                pool.messages.append(message)
                if isinstance(message, Admit):
                    directory = "" if pool._refuses else str(pool._folder)
                    self.send_frame(encode(Admitted(message.version, directory)))

        class Greeter(asyncio.Protocol):
            def connection_made(self, transport) -> None:
                transport.write(pool._name.encode())
                transport.close()

        self._connections: list[FrameProtocol] = []

        def accept() -> FrameProtocol:
            self._connections.append(Admitter())
            return self._connections[-1]

        servers = [await serve_unix(self._path, accept), await serve_unix(self._folder / "pool.sock", Greeter)]
        started.set()
        await self._stop.wait()
        for server in servers:
            server.close()
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)  # one turn, in which the connections close

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def host(tmp_path):
    with run_host(tmp_path, "--sandbox", "bubblewrap", "--idle-s", "2") as host:
        yield host


@pytest.fixture
def caller(host):
    caller = host.connect()
    code = write_algorithm(host.home / "code" / "demo", SOURCE)
    caller.define(python_version(code, key="m", models=MODELS))
    return caller


def test_a_start_waits_for_the_pool_and_its_directory_is_the_replicas(host, caller):
    call = caller.start_call("m", b"1")
    pool = PoolServer(host.home, "first")
    try:
        assert caller.wait(call).result == b"first"
        admit = pool.messages[0]
        assert isinstance(admit, Admit) and (admit.version, admit.owner, admit.models) == ("m", "acme", MODELS)
    finally:
        pool.stop()


def test_a_pool_that_comes_back_elsewhere_gets_new_replicas(host, caller):
    first = PoolServer(host.home, "first")
    try:
        assert caller.call("m", b"1").result == b"first"
    finally:
        first.stop()
    second = PoolServer(host.home, "second")
    try:
        host.wait_for(lambda: second.messages, "the host asks again")
        host.wait_for(lambda: caller.call("m", b"1").payload == b"second", "the new replica answers")
    finally:
        second.stop()


def test_a_pool_that_cannot_open_the_models_makes_the_version_unavailable(host, caller):
    pool = PoolServer(host.home, "first", refuses=True)
    try:
        answer = caller.call("m", b"1").message
        assert isinstance(answer, Refusal) and answer.code == "unavailable" and "models" in answer.message
    finally:
        pool.stop()


def test_the_pool_is_told_when_the_last_replica_has_gone(host, caller):
    pool = PoolServer(host.home, "first")
    try:
        assert isinstance(caller.call("m", b"1").message, Result)
        host.wait_for(lambda: Withdraw("m") in pool.messages, "the version is withdrawn")
    finally:
        pool.stop()


def test_a_version_without_models_needs_no_pool(host):
    caller = host.connect()
    code = write_algorithm(
        host.home / "code" / "plain", "import os\ndef apply(i): return os.path.exists('/run/serai')\n"
    )
    caller.define(python_version(code, key="p"))
    assert caller.call("p", b"1").result == b"false"
    with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(host.home / "run" / "pool.sock"))
