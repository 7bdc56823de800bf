"""Load from one asyncio process: a closed loop over keep-alive connections, each request chosen anew, answers checked.

For a body that never changes `wrk.py` is cheaper; this one can ask for another model each time.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: An answer that takes longer than this is none.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Request:
    """What is sent, and whether a body is the right answer to it."""

    data: bytes
    is_right: Callable[[bytes], bool]


def post(url: str, body: bytes, headers: dict[str, str], is_right: Callable[[bytes], bool]) -> Request:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    given = {"Host": parts.netloc, **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return Request(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body, is_right)


@dataclass
class Load:
    """One measured run. Latencies in seconds, sorted."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """0.5: the median."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * share))] * 1e3


class _Connection(asyncio.Protocol):
    """One request after the other until `until`, or until there were `most`."""

    def __init__(self, requests: Iterator[Request], load: Load, until: float, most: float = float("inf")) -> None:
        self._requests, self._load, self._until, self._left = requests, load, until, most
        self._buffer = bytearray()
        self._began = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._load.errors.append(f"connection lost: {exc or 'closed by the server'}")
            self.done.set_result(None)

    def _send(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._until or not self._left:
            self.done.set_result(None)
            self._transport.close()
            return
        self._left -= 1
        self._request = next(self._requests)
        self._transport.write(self._request.data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if length is None:
            self._load.errors.append("an answer without a length")
            self._transport.abort()
            return
        size = end + 4 + int(length[1])
        if len(self._buffer) < size:
            return
        self._answered(bytes(self._buffer[9:12]), bytes(self._buffer[end + 4 : size]))
        del self._buffer[:size]
        self._send()

    def _answered(self, status: bytes, body: bytes) -> None:
        took_s = time.perf_counter() - self._began
        if status != b"200":
            self._load.errors.append(f"{status.decode()}: {body[:200]!r}")
        elif not self._request.is_right(body):
            self._load.errors.append("a wrong answer")
        else:
            self._load.latencies_s.append(took_s)


async def _closed_loop(url: str, requests: Iterator[Request], connections: int, seconds: float) -> Load:
    loop, load, parts = asyncio.get_running_loop(), Load(), urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Connection(requests, load, began + seconds), host, port)
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + _PATIENCE_S):
        await asyncio.gather(*(protocol.done for _, protocol in made))
    load.seconds = time.perf_counter() - began
    load.latencies_s.sort()
    return load


async def ask(url: str, request: Request) -> float:
    """Seconds of one request on a connection of its own. Raises RuntimeError unless its answer is right."""
    load = Load()
    parts = urlsplit(url)
    began = time.perf_counter()
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(iter((request,)), load, float("inf"), 1), parts.hostname or "127.0.0.1", parts.port or 80
    )
    async with asyncio.timeout(_PATIENCE_S):
        await protocol.done
    if load.errors:
        raise RuntimeError(f"{url}: {load.errors[0]}")
    return time.perf_counter() - began


def closed_loop(url: str, requests: Iterator[Request], *, connections: int, seconds: float) -> Load:
    """Each connection sends the next of `requests` as soon as it has its answer. Raises RuntimeError on any error."""
    load = uvloop.run(_closed_loop(url, requests, connections, seconds))
    if load.errors:
        raise RuntimeError(f"{url}: {len(load.errors)} errors, the first: {load.errors[0]}")
    return load
