"""The client for coroutines; the twin of `_client`, over the same `_requests` and `_responses`."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, BinaryIO

import httpx2

from serai import _http
from serai._account_asks import organizations, users
from serai._algorithm_asks import listing
from serai._ask import Ask, Conversation, Pages, T, next_marker
from serai._async_managed import AsyncManagedAlgorithm, AsyncOrganizationHandle, AsyncUserHandle
from serai._events import Listener, OnProgress, OnWaiting
from serai._logs import LogEntry, LogQuestion, OnBreak, read_logs_async
from serai._packing import BLOCK_BYTES, pack
from serai._records import Organization, User
from serai._requests import (
    Options,
    OutputType,
    Reference,
    Request,
    call_request,
    exists_request,
    make_options,
    parse_reference,
    pool_request,
    publish_request,
    steer_request,
    stream_request,
)
from serai._responses import (
    AlgorithmInfo,
    LineSplitter,
    PublishedVersion,
    Response,
    read_call,
    read_error,
    read_exists,
    read_object,
    read_publish_line,
)
from serai._streams import AsyncStream
from serai.errors import ConnectionFailed
from serai.settings import load_settings


def async_client(
    key: str | None = None,
    address: str | None = None,
    profile: str | None = None,
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> "AsyncClient":
    """As `serai.client`, for asyncio."""
    return AsyncClient(key, address, profile, transport=transport)


class AsyncClient:
    """Calls one server over a pool of connections, within one event loop. Use it with `async with`."""

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

    def algo(self, reference: str) -> "AsyncAlgorithm":
        """The algorithm `owner/name` or `owner/name/version`. Asks nobody; raises ValueError if it is no such name."""
        return AsyncAlgorithm(self, parse_reference(reference))

    def algorithms(self, query: str = "", owner: str | None = None) -> AsyncIterator[AlgorithmInfo]:
        """The algorithms you may call, those that match `query` and belong to `owner` if given. Page by page."""
        return self._all(partial(listing, query, owner))

    def user(self, name: str = "me") -> AsyncUserHandle:
        """A user, for its keys and what is known of it; `me` is whoever has this client's key. Asks nobody."""
        return AsyncUserHandle(self, name)

    def users(self) -> AsyncIterator[User]:
        """All users, page by page. The operator's key only."""
        return self._all(users)

    def organization(self, name: str) -> AsyncOrganizationHandle:
        """An organization, for its members and keys. Asks nobody."""
        return AsyncOrganizationHandle(self, name)

    def organizations(self) -> AsyncIterator[Organization]:
        """All organizations, page by page. The operator's key only."""
        return self._all(organizations)

    async def publish(
        self,
        directory: str | os.PathLike[str],
        visibility: str | None = None,
        on_log: Callable[[str], None] | None = None,
    ) -> PublishedVersion:
        """As `Client.publish`; the folder is packed in a thread."""
        with tempfile.TemporaryFile() as archive:
            packed = await asyncio.to_thread(pack, directory, archive)
            if on_log is not None:
                for name in packed.skipped:
                    on_log(f"left out {name}: not a regular file")
            request = publish_request(archive.tell(), visibility)
            response = await self._open(request, archive)
            try:
                return await self._follow(request, response, on_log)
            finally:
                await response.aclose()

    async def pool(self) -> dict[str, Any]:
        """As `Client.pool`."""
        return read_object(*await self._send(pool_request()))

    async def steer(self, verb: str, model: str, version: str | None = None) -> dict[str, Any]:
        """As `Client.steer`."""
        return read_object(*await self._send(steer_request(verb, model, version)))

    def logs(
        self, reference: str, *, tail: int = 100, follow: bool = False, on_break: OnBreak | None = None
    ) -> AsyncGenerator[LogEntry, None]:
        """As `Client.logs`, for `async for`. `on_break` is a plain function."""
        return read_logs_async(self, LogQuestion(parse_reference(reference), tail, follow), on_break)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
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


class AsyncAlgorithm(AsyncManagedAlgorithm):
    """One algorithm of an asynchronous client."""

    def __init__(self, client: AsyncClient, reference: Reference) -> None:
        self._client = client
        self.reference = reference
        self.options = Options()

    def set_options(
        self,
        timeout: float | None = 300,
        stdout: bool = False,
        output: OutputType | str = OutputType.default,
        **query_parameters: Any,
    ) -> "AsyncAlgorithm":
        """Set how the next calls run, and return this algorithm. Arguments as of `Algorithm.set_options`."""
        self.options = make_options(timeout, stdout, output, query_parameters)
        return self

    async def pipe(self, data: Any) -> Response:
        """Call with `data`; sends and raises what `Algorithm.pipe` does."""
        options = self.options
        return read_call(*await self._client._send(call_request(self.reference, data, options)), options.output)

    def stream(
        self, data: Any, *, on_progress: OnProgress | None = None, on_waiting: OnWaiting | None = None
    ) -> AsyncStream:
        """As `Algorithm.stream`, for `async for`. The callbacks are plain functions."""
        return AsyncStream(
            self._client, stream_request(self.reference, data, self.options), Listener(on_progress, on_waiting)
        )

    async def exists(self) -> bool:
        """Whether the algorithm is there and yours to see."""
        return read_exists(*await self._client._send(exists_request(self.reference)))

    def __repr__(self) -> str:
        return f"AsyncAlgorithm({str(self.reference)!r})"


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
