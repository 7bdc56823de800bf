"""A chunked answer, read as fast as a test asks for it."""

import socket
from typing import Self

from serai_gateway.server.testing import PATIENCE_S


class ChunkedReader:
    """Sends one request and reads its answer.

    Args:
        receive_buffer: bytes that the kernel takes ahead; 0: its own choice.
    """

    def __init__(self, port: int, request: bytes, receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")
        self._socket.sendall(request)
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._file.close()
        self._socket.close()

    def read_head(self) -> None:
        self.status = int(self._file.readline().split()[1])
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value

    def read_chunk(self) -> bytes:
        """Empty: the answer has ended as it should. Raises EOFError where it was cut off."""
        head = self._file.readline()
        if not head:
            raise EOFError("the answer was cut off")
        data = self._file.read(int(head, 16))
        self._file.readline()
        return data
