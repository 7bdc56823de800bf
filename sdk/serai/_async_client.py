"""The client for coroutines; the twin of `_client`, over the same `_requests` and `_responses`."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx2

from serai._account_asks import organizations, users
from serai._algorithm_asks import listing
from serai._async_connection import AsyncConnection
from serai._async_managed import AsyncManagedAlgorithm, AsyncOrganizationHandle, AsyncUserHandle
from serai._events import Listener, OnProgress, OnWaiting
from serai._logs import LogEntry, LogQuestion, OnBreak, read_logs_async
from serai._packing import pack
from serai._records import Organization, User
from serai._requests import (
    Options,
    OutputType,
    Reference,
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
    PublishedVersion,
    Response,
    read_call,
    read_exists,
    read_object,
)
from serai._streams import AsyncStream


def async_client(
    key: str | None = None,
    address: str | None = None,
    profile: str | None = None,
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> "AsyncClient":
    """As `serai.client`, for asyncio."""
    return AsyncClient(key, address, profile, transport=transport)


class AsyncClient(AsyncConnection):
    """Calls one server over a pool of connections, within one event loop. Use it with `async with`."""

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
