"""A running call that asks the gateway, as the runner host brings it."""

import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from serai.ipc.frames import pack_frame
from serai.ipc.messages import Bound, encode
from serai_gateway.server.testing import PATIENCE_S, Answer, Client

#: bob's call of alice's algorithm, which may call others.
BOUND = Bound("bob", "alice/same@" + "0" * 40, "req-outer", "req-root", 1, 0.0, True)


def bound(**changes: Any) -> Bound:
    """`BOUND` with a minute left, and what a test wants otherwise."""
    return msgspec.structs.replace(BOUND, **({"deadline": time.monotonic() + 60} | changes))


class InsideClient(Client):
    """A connection of a running call: the frame first, then whatever it is told to send."""

    def __init__(self, home: Path, who: Bound | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(home / "run" / "calls.sock"))
        self._read = b""
        self.send(who if isinstance(who, bytes) else pack_frame(encode(who)))

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        """Send one request; in names of headers, `_` is `-`."""
        given = {"Host": "127.0.0.1", "Content-Length": str(len(body)), "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def call(self, algorithm: str, body: bytes = b"1", **headers: str) -> Answer:
        self.ask("POST", f"/v1/algo/{algorithm}", body, **headers)
        return self.answer()

    def get(self, path: str) -> Answer:
        self.ask("GET", path)
        return self.answer()
