"""What a client sends and how it waits for the answer: the twin of `_connection`, for coroutines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO, Self

import httpx2

from serai import _http
from serai._ask import Ask, Conversation, Pages, T, next_marker
from serai._packing import BLOCK_BYTES
from serai._requests import Request
from serai._responses import LineSplitter, PublishedVersion, read_error, read_publish_line
from serai.errors import ConnectionFailed
from serai.settings import load_settings


class AsyncConnection:
    """Connections to one server, with the key for it."""

    def __init__(
        self,
        key: str | None = None,
        address: str | None = None,
        profile: str | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = load_settings(key, address, profile)
        self._http = httpx2.AsyncClient(
            headers=_http.default_headers(self.settings),
            verify=_http.needs_tls(self.settings),
            trust_env=_http.uses_proxies(self.settings),
            limits=_http.pool_limits(),
            transport=transport,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, ask: Ask[T]) -> T:
        return ask.answer(*await self._send(ask.request))

    async def _converse(self, conversation: Conversation[T]) -> T:
        answer: Any = None
        while True:
            try:
                ask = conversation.send(answer)
            except StopIteration as ended:
                return ended.value
            answer = await self._ask(ask)

    async def _all(self, pages: Pages[T]) -> AsyncIterator[T]:
        marker: str | None = None
        while True:
            page = await self._ask(pages(marker))
            for result in page.results:
                yield result
            if page.marker is None:
                return
            marker = next_marker(page.marker, marker)

    async def _send(self, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        response = await self._open(request)
        try:
            return response.status_code, response.headers, await response.aread()
        except httpx2.RequestError as error:
            raise _http.translate(error, self.settings, request) from error
        finally:
            await response.aclose()

    async def _open(self, request: Request, body: BinaryIO | None = None) -> httpx2.Response:
        """Send, and return when the answer begins. Tries again only while nothing has been sent."""
        for delay_s in (*_http.RETRY_DELAYS_S, None):
            built = self._http.build_request(
                request.method,
                self.settings.address + request.path,
                params=list(request.query),
                headers=dict(request.headers),
                content=request.content if body is None else _blocks(body),
                timeout=_http.timeout_of(request),
            )
            try:
                return await self._http.send(built, stream=True)
            except httpx2.RequestError as error:
                if delay_s is None or not isinstance(error, _http.NOT_SENT):
                    raise _http.translate(error, self.settings, request) from error
                await asyncio.sleep(delay_s)
        raise AssertionError("the last try either returns or raises")

    async def _follow(
        self, request: Request, response: httpx2.Response, on_log: Callable[[str], None] | None
    ) -> PublishedVersion:
        try:
            if not response.is_success:
                raise read_error(response.status_code, response.headers, await response.aread())
            async for line in _lines(response):
                event = read_publish_line(line, response.headers.get("x-request-id", ""))
                if isinstance(event, PublishedVersion):
                    return event
                if on_log is not None:
                    on_log(event)
        except httpx2.RequestError as error:
            raise _http.translate(error, self.settings, request) from error
        raise ConnectionFailed("the build's log ended without saying how the build ended", maybe_sent=True)


async def _blocks(body: BinaryIO) -> AsyncIterator[bytes]:
    body.seek(0)
    while block := await asyncio.to_thread(body.read, BLOCK_BYTES):
        yield block


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    splitter = LineSplitter()
    async for chunk in response.aiter_bytes():
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.end():
        yield line
