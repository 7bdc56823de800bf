"""What `stream` gives, for those who wait and for coroutines: an iterator of items that is one call."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from serai import _http
from serai._events import EventReader, Listener, is_stream
from serai._requests import OutputType, Request
from serai._responses import Response, read_call
from serai.settings import Settings

if TYPE_CHECKING:
    from serai._async_client import AsyncClient
    from serai._client import Client


class Stream(Iterator[Any]):
    """The items of one call, as they come: str for text, bytes for binary, else what the JSON says.

    Nothing is sent before the first one is asked for. Closing it early, also by leaving its `with`, cancels the call.
    What goes wrong is raised where the next item would have come, as `Algorithm.pipe` raises it.
    """

    def __init__(self, client: "Client", request: Request, listener: Listener) -> None:
        self._listener = listener
        self._items = _read(client, request, listener)  # refers to none of ours: dropping the last reference closes it

    def __next__(self) -> Any:
        return next(self._items)

    def response(self) -> Response:
        """How the call ended: the result of an algorithm that yields nothing, and metadata.

        Waits for the end; items that were not taken yet are passed over.
        """
        for _ in self._items:
            pass
        return self._listener.outcome()

    def close(self) -> None:
        self._items.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(AsyncIterator[Any]):
    """As `Stream`, for coroutines. Leave it early through `async with`, or close it: then the call ends at once."""

    def __init__(self, client: "AsyncClient", request: Request, listener: Listener) -> None:
        self._listener = listener
        self._items = _read_async(client, request, listener)

    async def __anext__(self) -> Any:
        return await anext(self._items)

    async def response(self) -> Response:
        """As `Stream.response`."""
        async for _ in self._items:
            pass
        return self._listener.outcome()

    async def close(self) -> None:
        await self._items.aclose()

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _read(client: "Client", request: Request, listener: Listener) -> Generator[Any, None, None]:
    response = client._open(request)
    try:
        with _translated(client.settings, request):
            if not _has_events(response):
                listener.response = read_call(
                    response.status_code, response.headers, response.read(), OutputType.default
                )
                return
            reader = EventReader(response.headers)
            for chunk in response.iter_bytes():
                yield from listener.items(reader.feed(chunk))  # read to its end, the connection serves the next call
        listener.check_ended()
    finally:
        response.close()


async def _read_async(client: "AsyncClient", request: Request, listener: Listener) -> AsyncGenerator[Any, None]:
    response = await client._open(request)
    try:
        with _translated(client.settings, request):
            if not _has_events(response):
                listener.response = read_call(
                    response.status_code, response.headers, await response.aread(), OutputType.default
                )
                return
            reader = EventReader(response.headers)
            async for chunk in response.aiter_bytes():
                for item in listener.items(reader.feed(chunk)):
                    yield item
        listener.check_ended()
    finally:
        await response.aclose()


def _has_events(response: httpx2.Response) -> bool:
    """Else it is a refusal, or the whole answer of something on the way that knows no events."""
    return response.is_success and is_stream(response.headers)


@contextmanager
def _translated(settings: Settings, request: Request) -> Iterator[None]:
    try:
        yield
    except httpx2.RequestError as error:
        raise _http.translate(error, settings, request) from error
