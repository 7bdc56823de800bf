"""For tests: a real server on a free port, a small application for it, and a client that may misbehave."""

import asyncio
import contextlib
import contextvars
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from serai_gateway.settings import Settings

#: How long a test waits for what must happen. Far above what it takes, so that a busy machine fails no test.
PATIENCE_S = 20.0

TEST_APP = "serai_gateway.server.testing:create_test_app"

#: What the test application takes at /large, whatever the limit elsewhere.
LARGE_BODY_BYTES = 256 * 1024


_visitor = contextvars.ContextVar("visitor", default="nobody")


class TestApp:
    """Answers by path.

    `/` echoes the body. `/seen` tells what arrived. `/early` answers 401 without reading. `/big/N` sends N bytes.
    `/fails` raises. `/cut` raises in the middle. `/lies` sends more than it says. `/hangs` never answers.
    `/context` tells who was here before in the same context. `/server` tells what the server counts.
    """

    __test__ = False  # no test class, whatever its name says

    def body_limit(self, path: bytes) -> int:
        return LARGE_BODY_BYTES if path == b"/large" else 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        path: str = scope["path"]
        if path == "/fails":
            raise LookupError("a secret detail")
        if path == "/early":
            await _answer(send, 401, b"{}")
        elif path.startswith("/big/"):
            await _answer(send, 200, b"x" * int(path[5:]))
        elif path == "/cut":
            await _start(send, 200, [(b"content-length", b"100")])
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise LookupError("in the middle")
        elif path == "/lies":
            await _start(send, 200, [(b"content-length", b"3")])
            await send({"type": "http.response.body", "body": b"four"})
        elif path == "/hangs":
            await asyncio.get_running_loop().create_future()
        elif path == "/context":
            visitor = _visitor.get()
            _visitor.set("an earlier request")
            await _answer(send, 200, visitor.encode())
        elif path == "/server":
            server = scope["state"]["http_server"]
            told = {"open": len(server), "counts": dict(server.counts), "pid": os.getpid()}
            await _answer(send, 200, json.dumps(told).encode())
        elif path == "/seen":
            headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
            told = {"path": path, "headers": headers, "body": (await _read(receive)).decode("latin-1")}
            await _answer(send, 200, json.dumps(told).encode())
        else:
            await _answer(send, 200, await _read(receive))


def create_test_app(_settings: Settings) -> TestApp:
    return TestApp()


async def _live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _read(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def _start(send: Any, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _answer(send: Any, status: int, body: bytes) -> None:
    await _start(send, status, [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")])
    await send({"type": "http.response.body", "body": body})


class Answer:
    """One HTTP response as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class Client:
    """A TCP client that sends exactly what it is told."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind((source, 0))
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(("127.0.0.1", port))
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Whether the other side still takes bytes."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def answer(self) -> Answer:
        """Wait for one whole response with a Content-Length. Raises EOFError where the server closes before."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        answer = Answer(head, b"")
        length = int(answer.headers.get("content-length", "0")) if answer.status >= 200 else 0
        while len(self._read) < length:
            self._more()
        answer.body, self._read = self._read[:length], self._read[length:]
        return answer

    def wait_closed(self) -> bytes:
        """Wait until the server has closed its side. Returns what came before that."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._more()
        return self._read

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._read!r}")
        self._read += data


class RunningServer:
    """A server under test: its master process and the listening socket that we hold, as a supervisor does."""

    def __init__(self, listener: socket.socket, home: Path, *options: str) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self._log_path = home / "server.log"
        command = [sys.executable, "-m", "serai_gateway.server", "--fd", str(listener.fileno()), "--home", str(home)]
        command += ["--app", TEST_APP, *options]
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log)

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    def ask(self, request: bytes) -> Answer:
        """Send bytes on a connection of their own; the first response."""
        with self.client() as client:
            client.send(request)
            return client.answer()

    def state(self) -> dict[str, Any]:
        """What one worker counts: `open` connections (this one among them), `counts` of refusals, its `pid`."""
        return json.loads(self.ask(b"GET /server HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body)

    def log(self) -> str:
        return self._log_path.read_text()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def running_server(
    *options: str, listener: socket.socket | None = None, limits: dict[str, float] | None = None
) -> Iterator[RunningServer]:
    """A real server on a free port, with `options` of its command line and some limits replaced.

    No need to wait for it: requests queue in the socket.
    """
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        if listener is None:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        replaced = [f"--limit={name}={value}" for name, value in (limits or {}).items()]
        server = RunningServer(listener, Path(home), *replaced, *options)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.kill()


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Look again and again, at most for PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.02)
