"""What one HTTP client may cost us: every limit of the server, in one frozen object."""

import dataclasses
from collections.abc import Callable

_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of one worker process. A number that is not positive is refused with its name.

    Deadlines are checked by one sweep over the open connections, so each is exact to `sweep_s`.
    """

    #: From the first byte of a request (on a new connection: from accept) to the end of its headers.
    header_deadline_s: float = 10.0
    #: How long a connection that has been answered may be silent. Above the 60 s that most proxies keep theirs, so
    #: that it is the proxy that closes and no request of its crosses our FIN.
    keep_alive_s: float = 65.0
    #: For the whole body. Routes with a raised `body_limit` are held to the rate alone.
    body_deadline_s: float = 60.0
    #: Each stretch of so many seconds must bring `min_body_bytes_per_s` on average.
    body_window_s: float = 5.0
    min_body_bytes_per_s: int = 1024
    #: A reader must take `min_write_bytes_per_s` on average, or all there is, within each stretch of so many seconds.
    write_deadline_s: float = 30.0
    min_write_bytes_per_s: int = 1024
    #: After a refusal we read and drop what is still coming, so that the client sees the answer and not a reset.
    linger_s: float = 2.0
    #: At shutdown, silent connections may still send one request for so long; it is answered with `Connection: close`.
    drain_idle_s: float = 0.5

    max_request_line_bytes: int = 4096
    max_headers: int = 100
    #: Of one header line, name and value.
    max_header_bytes: int = 8192
    #: Of all headers together: what a client may make us hold before we know who it is.
    max_head_bytes: int = 128 * 1024
    max_body_bytes: int = 10 * _MIB
    #: The limit of one path where it is above `max_body_bytes`, else 0. Gets the decoded path as UTF-8.
    body_limit: Callable[[bytes], int] | None = None
    #: Of one chunked request. Chunks cost us more than their bytes.
    max_chunks: int = 65_536
    #: Of one chunked request, all chunk extensions and leading zeros together.
    max_chunk_extension_bytes: int = 1024
    max_trailers: int = 32
    max_trailer_bytes: int = 8192

    #: Of this worker.
    max_connections: int = 8192
    #: Of this worker, from one address. A proxy in front needs more.
    max_connections_per_peer: int = 512
    #: Of this worker, from a call from outside and all the calls that it leads to. Above the calls that may run at
    #: once, because clients open connections before they need them.
    max_connections_per_call: int = 256

    sweep_s: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "body_limit" and not value > 0:
                raise ValueError(f"HTTP limit {field.name} must be above 0, not {value!r}")

    def body_limit_of(self, path: str) -> int:
        """The most bytes a request body may have at a decoded path."""
        if self.body_limit is None:
            return self.max_body_bytes
        return max(self.max_body_bytes, self.body_limit(path.encode()))

    def with_overrides(self, overrides: dict[str, str]) -> "HttpLimits":
        """These limits with some replaced by values from a command line.

        Raises:
            ValueError: there is no such limit, or the value is no number above 0.
        """
        kinds = {
            field.name: type(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "body_limit"
        }
        changes: dict[str, float] = {}
        for name, text in overrides.items():
            if name not in kinds:
                raise ValueError(f"there is no HTTP limit {name!r}; there are: {', '.join(kinds)}")
            try:
                changes[name] = kinds[name](text)
            except ValueError:
                raise ValueError(f"HTTP limit {name} must be a number, not {text!r}") from None
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]
