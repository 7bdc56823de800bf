"""The client that waits: thin, because what is asked and answered is decided in `_requests` and `_responses`."""

import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import httpx2

from serai._account_asks import organizations, users
from serai._algorithm_asks import listing
from serai._connection import Connection
from serai._events import Listener, OnProgress, OnWaiting
from serai._logs import LogEntry, LogQuestion, OnBreak, read_logs
from serai._managed import ManagedAlgorithm, OrganizationHandle, UserHandle
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
from serai._streams import Stream


def client(
    key: str | None = None,
    address: str | None = None,
    profile: str | None = None,
    *,
    transport: httpx2.BaseTransport | None = None,
) -> "Client":
    """A client for the server at `address`; what is left out comes from the environment or `~/.serai/config.toml`."""
    return Client(key, address, profile, transport=transport)


class Client(Connection):
    """Calls one server over a pool of connections. May be shared by threads; close it or use it with `with`."""

    def algo(self, reference: str) -> "Algorithm":
        """The algorithm `owner/name` or `owner/name/version`. Asks nobody; raises ValueError if it is no such name."""
        return Algorithm(self, parse_reference(reference))

    def algorithms(self, query: str = "", owner: str | None = None) -> Iterator[AlgorithmInfo]:
        """The algorithms you may call, those that match `query` and belong to `owner` if given. Page by page."""
        return self._all(partial(listing, query, owner))

    def user(self, name: str = "me") -> UserHandle:
        """A user, for its keys and what is known of it; `me` is whoever has this client's key. Asks nobody."""
        return UserHandle(self, name)

    def users(self) -> Iterator[User]:
        """All users, page by page. The operator's key only."""
        return self._all(users)

    def organization(self, name: str) -> OrganizationHandle:
        """An organization, for its members and keys. Asks nobody."""
        return OrganizationHandle(self, name)

    def organizations(self) -> Iterator[Organization]:
        """All organizations, page by page. The operator's key only."""
        return self._all(organizations)

    def publish(
        self,
        directory: str | os.PathLike[str],
        visibility: str | None = None,
        on_log: Callable[[str], None] | None = None,
    ) -> PublishedVersion:
        """Build and publish the algorithm in a folder; `on_log` sees each line of the build while it runs.

        Raises:
            FolderError: the folder is not an algorithm.
            ApiError: the server refused it or the build failed.
        """
        with tempfile.TemporaryFile() as archive:
            packed = pack(directory, archive)
            if on_log is not None:
                for name in packed.skipped:
                    on_log(f"left out {name}: not a regular file")
            request = publish_request(archive.tell(), visibility)
            response = self._open(request, archive)
            try:
                return self._follow(request, response, on_log)
            finally:
                response.close()

    def pool(self) -> dict[str, Any]:
        """What the pool holds and why: devices, models, latest evictions. The operator's key only."""
        return read_object(*self._send(pool_request()))

    def steer(self, verb: str, model: str, version: str | None = None) -> dict[str, Any]:
        """Have the pool "load", "unload", "pin" or "unpin" a model, `owner/name` or `owner/name/model`; the operator's.

        Returns when it is so: `{"model": …, "version": …, "done": verb}`. Raises ValueError if it is no such name or
        verb, ApiError if it cannot be done.
        """
        return read_object(*self._send(steer_request(verb, model, version)))

    def logs(
        self, reference: str, *, tail: int = 100, follow: bool = False, on_break: OnBreak | None = None
    ) -> Generator[LogEntry, None, None]:
        """What `owner/name` or `owner/name/version` printed and what became of it, oldest first; its owner only.

        Args:
            tail: how many of the newest lines.
            follow: go on with what comes, for ever. An interrupted log is taken up where it was.
            on_break: called when that happens, with the error, or None where the server stopped as it should.

        Raises:
            ValueError: it is no such name.
            ApiError: the server refused it.
        """
        return read_logs(self, LogQuestion(parse_reference(reference), tail, follow), on_break)


class Algorithm(ManagedAlgorithm):
    """One algorithm of a client. Algorithmia's users know `pipe`, `set_options` and `exists`."""

    def __init__(self, client: Client, reference: Reference) -> None:
        self._client = client
        self.reference = reference
        self.options = Options()

    def set_options(
        self,
        timeout: float | None = 300,
        stdout: bool = False,
        output: OutputType | str = OutputType.default,
        **query_parameters: Any,
    ) -> "Algorithm":
        """Set how the next calls run, and return this algorithm.

        Args:
            timeout: seconds until the server gives a call up; None leaves it to the server.
            stdout: bring back what the algorithm printed (its owner only).
            output: `OutputType.default`, `raw` or `void`.
            query_parameters: sent along as they are.
        """
        self.options = make_options(timeout, stdout, output, query_parameters)
        return self

    def pipe(self, data: Any) -> Response:
        """Call with `data`: str is sent as text, bytes as they are, anything else as JSON.

        Raises:
            AlgorithmError: the algorithm failed.
            ApiError: the platform refused; its classes say why.
            ConnectionFailed: no answer came.
        """
        options = self.options
        return read_call(*self._client._send(call_request(self.reference, data, options)), options.output)

    def stream(
        self, data: Any, *, on_progress: OnProgress | None = None, on_waiting: OnWaiting | None = None
    ) -> Stream:
        """Call with `data`, as `pipe` does, and get what the algorithm yields, item by item, as it comes.

        Args:
            on_progress: called with a `Progress` whenever the algorithm says how far it is.
            on_waiting: called with a `Waiting` while the call has not begun, when there is news.
        """
        return Stream(
            self._client, stream_request(self.reference, data, self.options), Listener(on_progress, on_waiting)
        )

    def exists(self) -> bool:
        """Whether the algorithm is there and yours to see."""
        return read_exists(*self._client._send(exists_request(self.reference)))

    def __repr__(self) -> str:
        return f"Algorithm({str(self.reference)!r})"
