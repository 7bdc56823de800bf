"""What a client sends and how it waits for the answer: the questions are decided in `_requests` and the `_asks`."""

import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Self

import httpx2

from serai import _http
from serai._ask import Ask, Conversation, Pages, T, next_marker
from serai._packing import BLOCK_BYTES
from serai._requests import Request
from serai._responses import LineSplitter, PublishedVersion, read_error, read_publish_line
from serai.errors import ConnectionFailed
from serai.settings import load_settings


class Connection:
    """Connections to one server, with the key for it."""

    def __init__(
        self,
        key: str | None = None,
        address: str | None = None,
        profile: str | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.settings = load_settings(key, address, profile)
        self._http = httpx2.Client(
            headers=_http.default_headers(self.settings),
            verify=_http.needs_tls(self.settings),
            trust_env=_http.uses_proxies(self.settings),
            limits=_http.pool_limits(),
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, ask: Ask[T]) -> T:
        return ask.answer(*self._send(ask.request))

    def _converse(self, conversation: Conversation[T]) -> T:
        answer: Any = None
        while True:
            try:
                ask = conversation.send(answer)
            except StopIteration as ended:
                return ended.value
            answer = self._ask(ask)

    def _all(self, pages: Pages[T]) -> Iterator[T]:
        marker: str | None = None
        while True:
            page = self._ask(pages(marker))
            yield from page.results
            if page.marker is None:
                return
            marker = next_marker(page.marker, marker)

    def _send(self, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        response = self._open(request)
        try:
            return response.status_code, response.headers, response.read()
        except httpx2.RequestError as error:
            raise _http.translate(error, self.settings, request) from error
        finally:
            response.close()

    def _open(self, request: Request, body: BinaryIO | None = None) -> httpx2.Response:
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
                return self._http.send(built, stream=True)
            except httpx2.RequestError as error:
                if delay_s is None or not isinstance(error, _http.NOT_SENT):
                    raise _http.translate(error, self.settings, request) from error
                time.sleep(delay_s)
        raise AssertionError("the last try either returns or raises")

    def _follow(
        self, request: Request, response: httpx2.Response, on_log: Callable[[str], None] | None
    ) -> PublishedVersion:
        try:
            if not response.is_success:
                raise read_error(response.status_code, response.headers, response.read())
            for line in _lines(response):
                event = read_publish_line(line, response.headers.get("x-request-id", ""))
                if isinstance(event, PublishedVersion):
                    return event
                if on_log is not None:
                    on_log(event)
        except httpx2.RequestError as error:
            raise _http.translate(error, self.settings, request) from error
        raise ConnectionFailed("the build's log ended without saying how the build ended", maybe_sent=True)


def _blocks(body: BinaryIO) -> Iterator[bytes]:
    body.seek(0)
    while block := body.read(BLOCK_BYTES):
        yield block


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    splitter = LineSplitter()
    for chunk in response.iter_bytes():
        yield from splitter.feed(chunk)
    yield from splitter.end()
