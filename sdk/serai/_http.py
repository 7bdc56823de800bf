"""What the two clients share of HTTP: options of the connection pool and what its failures mean."""

import platform

import httpx2

from serai import __version__
from serai._requests import Request
from serai.errors import BadAnswer, ConnectionFailed, SeraiError
from serai.settings import Settings

#: A server that is up accepts at once; a dropped packet is sent again after 1 and 3 s.
CONNECT_TIMEOUT_S = 5.0

#: Pauses before the second and third try to connect: a server killed and restarted is back within a second.
RETRY_DELAYS_S = (0.2, 0.8)

#: Failures before a byte of the request was sent. Only these are tried again, so no call ever runs twice.
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)

#: How many calls one client keeps in flight; more wait their turn. Above the 64 a busy program has threads for.
MAX_CONNECTIONS = 256


def pool_limits() -> httpx2.Limits:
    return httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)


def default_headers(settings: Settings) -> dict[str, str]:
    headers = {
        "User-Agent": f"serai/{__version__} (Python {platform.python_version()})",
        "Accept": "application/json, */*;q=0.5",
    }
    if settings.key is not None:
        headers["Authorization"] = f"Simple {settings.key}"
    return headers


def needs_tls(settings: Settings) -> bool:
    """Reading the certificate store takes some 90 ms, so not for plain HTTP; redirects are never followed."""
    return settings.address.startswith("https:")


def uses_proxies(settings: Settings) -> bool:
    """A proxy named in the environment must not see calls, and keys, that are meant for this machine."""
    return not settings.is_loopback


def timeout_of(request: Request) -> httpx2.Timeout:
    return httpx2.Timeout(request.timeout_s, connect=CONNECT_TIMEOUT_S)


def translate(error: httpx2.RequestError, settings: Settings, request: Request) -> SeraiError:
    """Our error for one of the HTTP library's."""
    what = str(error) or type(error).__name__
    if isinstance(error, NOT_SENT):
        hint = "; `serai up` starts one" if settings.is_loopback else "; check the address and the network"
        return ConnectionFailed(f"no server at {settings.address}: {what}{hint}", maybe_sent=False)
    if isinstance(error, httpx2.PoolTimeout):
        return ConnectionFailed(
            f"all {MAX_CONNECTIONS} connections of this client stayed busy for {request.timeout_s:g} s",
            maybe_sent=False,
        )
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionFailed(f"no answer from {settings.address} within {request.timeout_s:g} s", maybe_sent=True)
    if isinstance(error, httpx2.TransportError):
        return ConnectionFailed(f"lost the connection to {settings.address}: {what}", maybe_sent=True)
    return BadAnswer(f"the answer of {settings.address} could not be decoded: {what}")
