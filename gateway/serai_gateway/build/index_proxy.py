"""The only way out of a box that fetches packages: a proxy that reaches the package index and nothing else.

    npm ──▶ relay.js, a port of the box's own ──▶ socket ──▶ this proxy ──▶ (the machine's own proxy) ──▶ the index

The box has no network beside that socket, so it does not matter what a package, a lock file or a redirection names.
"""

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOCKET = "proxy.sock"
#: All that one fetch may receive: packed, what a build may keep unpacked, twice.
MAX_BYTES = 2 << 30
#: npm asks for 15 packages at once, and for some again.
MAX_CONNECTIONS = 64
_MAX_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
#: For a request to arrive, a connection to be made, and between two pieces of an answer.
_PATIENCE_S = 60.0
_MAX_REFUSED = 10
_PORTS = {"http": 80, "https": 443}
#: Of a request, what is about the connection that it came by.
_OF_THE_WAY = ("proxy-", "connection:", "keep-alive:", "te:", "upgrade:", "host:")


@dataclass(frozen=True)
class Index:
    """Where packages come from, as this machine's operator says."""

    places: frozenset[tuple[str, int]]  # host and port
    proxies: Mapping[str, str] = field(default_factory=dict)  # "http", "https": the machine's own proxy; "no": without

    def proxy_for(self, scheme: str, host: str) -> str:
        """The address of the proxy to go through; empty: none."""
        return "" if _is_bypassed(host, self.proxies.get("no", "")) else self.proxies.get(scheme, "")


def places_of(address: str) -> set[tuple[str, int]]:
    """Host and port of an address, or of "host", "host:port", "//host/path", which may mean either protocol."""
    try:
        parts = urllib.parse.urlsplit(address if "//" in address else f"//{address}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return set()
    if not host:
        return set()
    ports = [port] if port else [_PORTS[parts.scheme]] if parts.scheme in _PORTS else _PORTS.values()
    return {(host, number) for number in ports}


def _is_bypassed(host: str, names: str) -> bool:
    """Whether `names`, as in NO_PROXY, holds this host or a domain that it belongs to."""
    suffixes = [name.strip().lstrip("*.").lower() for name in names.split(",")]
    return names.strip() == "*" or any(f".{host}".endswith(f".{suffix}") for suffix in suffixes if suffix)


class IndexProxy:
    """What one fetch reaches. `refused` is what it asked for beside that."""

    def __init__(self, index: Index, *, max_bytes: int = MAX_BYTES) -> None:
        self.refused: list[str] = []
        self.problem = ""  # why it answers nothing any more
        self.is_away = False  # the index, or the proxy on the way to it, did not answer
        self._index = index
        self._max_bytes = max_bytes
        self._num_bytes = self._num_open = 0

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        """Listen at `folder`/SOCKET, which whoever sees the folder can connect to, until the context is left."""
        loop, thread = asyncio.new_event_loop(), None
        try:
            opened = asyncio.start_unix_server(self._take, sock=_listener(folder), limit=_MAX_HEAD_BYTES)
            server = loop.run_until_complete(opened)
            thread = threading.Thread(target=loop.run_forever, name="index-proxy")
            thread.start()
            try:
                yield
            finally:
                asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        finally:
            if thread is not None:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._num_open += 1
        try:
            if self._num_open > MAX_CONNECTIONS or self.problem:
                await _answer(writer, "503 Service Unavailable", self.problem or "too many connections at once")
            else:
                await self._answer(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # either side has gone, or what came is no HTTP
        finally:
            self._num_open -= 1
            writer.transport.abort() if self.problem else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        is_tunnel = method == "CONNECT"
        scheme = "https" if is_tunnel else "http"
        parts = urllib.parse.urlsplit(f"//{target}" if is_tunnel else target)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[scheme]
        if not is_tunnel and (method not in ("GET", "HEAD") or parts.scheme != "http"):
            await _answer(writer, "405 Method Not Allowed", "packages are fetched through here, and nothing else")
            return
        if (host, port) not in self._index.places:
            if len(self.refused) < _MAX_REFUSED:
                self.refused.append(target)
            await _answer(writer, "403 Forbidden", f"{host}:{port} is not the package index")
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                from_there, to_there = await self._connect(scheme, host, port, is_tunnel=is_tunnel)
        except (OSError, EOFError, ValueError) as error:
            self.is_away = True
            await _answer(writer, "502 Bad Gateway", f"{host}:{port} does not answer: {error or type(error).__name__}")
            return
        try:
            if is_tunnel:
                writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
                await _together(self._pass_on(reader, to_there), self._receive(from_there, writer))
            else:
                via = self._index.proxy_for(scheme, host)
                to_there.write(_request(method, target, parts, lines, via))
                await self._receive(from_there, writer)  # whatever else is said on this connection is not heard
        finally:
            to_there.close()

    async def _connect(
        self, scheme: str, host: str, port: int, *, is_tunnel: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        via = self._index.proxy_for(scheme, host)
        if not via:
            return await asyncio.open_connection(host, port)
        parts = urllib.parse.urlsplit(via if "//" in via else f"http://{via}")
        context = ssl.create_default_context() if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORTS[parts.scheme], ssl=context)
        if is_tunnel:
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            writer.write(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n{_credentials(via)}\r\n".encode("latin-1"))
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer.split(b" ", 2)[1:2] != [b"200"]:
                writer.close()
                raise OSError(f"the proxy of this machine says {answer.splitlines()[0].decode('latin-1')[:100]}")
        return reader, writer

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
        target.write_eof()

    async def _receive(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_PATIENCE_S):
                data = await source.read(_CHUNK_BYTES)
                if not data:
                    break
                if not self._may_pass(len(data)):
                    raise OSError(self.problem)
                target.write(data)
                await target.drain()
        target.write_eof()

    def _may_pass(self, num_bytes: int) -> bool:
        self._num_bytes += num_bytes
        if self._num_bytes > self._max_bytes:
            self.problem = f"packages of more than {self._max_bytes >> 20} MiB"
        return not self.problem


def _listener(folder: Path) -> socket.socket:
    """A socket in `folder`. By its descriptor: the path itself may be longer than the name of a socket."""
    listener, descriptor = socket.socket(socket.AF_UNIX), os.open(folder, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        os.chmod(folder / SOCKET, 0o666)  # noqa: S103 - a box may run as somebody else; the folder above is ours alone
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener


async def _end(server: asyncio.Server) -> None:
    server.close()
    mine = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not mine]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()


def _request(method: str, target: str, parts: urllib.parse.SplitResult, lines: list[str], via: str) -> bytes:
    """A plain request as it goes on: to a proxy with the whole address, to the index with its path."""
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    kept = [line for line in lines if not line.lower().startswith(_OF_THE_WAY)]
    words = [f"{method} {target if via else path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", *kept]
    return "\r\n".join([*words, f"Connection: close\r\n{_credentials(via)}", ""]).encode("latin-1")


def _credentials(via: str) -> str:
    """The header that a proxy with a name and a password wants, as a line; empty: it wants none."""
    parts = urllib.parse.urlsplit(via if "//" in via else f"http://{via}")
    if not via or parts.username is None:
        return ""
    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"


async def _together(*work: Coroutine[None, None, None]) -> None:
    """Until all have ended, or one has failed."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
