"""What a running algorithm may ask of the gateway: the rules of calls inside calls.

Inside ──▶ check (where, may it, how deep, is there time) ──▶ InFlight (how many at once) ──▶ the application

The server puts the call that asks into the scope; only connections from the runner host have one. It asks in the name
of its payer, with a key that only its own process knows, and ends when its own call ends.
"""

import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serai.ipc.messages import Bound
from serai_gateway.api.call_request import Headers, parse_key
from serai_gateway.errors import (
    DeadlineExceeded,
    Forbidden,
    PlatformError,
    TooManyRequests,
    Unauthenticated,
    error_body,
    error_headers,
)
from serai_gateway.request_id import new_request_id

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

#: Calls above the deepest one. Real compositions have two or three; a cycle has no end.
MAX_DEPTH = 8

#: What one call may have running at once, in one gateway worker. Algorithmia's figure.
MAX_CALLS_OF_A_CALL = 24

#: And all that one call from outside has led to, in one gateway worker: 24 calls with 24 each would be 600.
MAX_CALLS_OF_A_TREE = 100

_KEY = "serai.bound"
_CALLS = ("/v1/algo/", "/v1/web/algo/", "/v2/")
_LISTINGS = ("/v1/algorithms/",)
_DATA = ("/v1/data/", "/v1/connector/")
_INSIGHTS = "/v1/insights"


class TooDeep(Forbidden):
    """Calls inside calls inside calls. No later try will help."""

    code = "too_deep"


def bound_of(scope: Scope) -> Bound | None:
    """The running call that asks; None: somebody from outside, with a key."""
    return scope.get(_KEY)


def root_of(bound: Bound) -> str:
    """Id of the call from outside that led to this one."""
    return bound.root or bound.call_id


def owner_of(bound: Bound) -> str:
    """Whose code asks."""
    return bound.version.partition("/")[0]


def is_call(path: str) -> bool:
    return _is_under(path, _CALLS)


def is_report(method: str, path: str) -> bool:
    """Whether it only tells something of its call. Clients send no key with that."""
    return method == "POST" and path == _INSIGHTS


def check_key(bound: Bound, headers: Headers) -> None:
    """Whether the process whose call this is has sent it. Raises Unauthenticated.

    Replicas of one version may share a loopback: what a caller does to one of them must not speak for the caller of
    another.
    """
    if bound.key and not hmac.compare_digest(parse_key(headers).encode(), bound.key.encode()):
        raise Unauthenticated("this key is not that of the process whose call runs; make the client without a key")


def check(bound: Bound, method: str, path: str, now: float) -> None:
    """Whether a running call may ask this. Raises Forbidden, TooDeep or DeadlineExceeded."""
    if _is_under(path, _DATA) or is_report(method, path):
        return
    is_listing = _is_under(path, _LISTINGS) and method in ("GET", "HEAD")
    if not is_listing and not is_call(path):
        raise Forbidden("a running algorithm may call algorithms and look them up; everything else needs a key")
    if not bound.may_call:
        algorithm = bound.version.partition("@")[0]
        raise Forbidden(
            f"{algorithm} may not call others: its algorithm.toml must say calls = true under [permissions]"
        )
    if is_call(path) and bound.depth >= MAX_DEPTH:
        raise TooDeep(
            f"this call is {bound.depth} calls deep, and {MAX_DEPTH} is the limit: look for algorithms that call each "
            "other in a circle, or call with all the inputs at once"
        )
    if now >= bound.deadline:
        raise DeadlineExceeded("the call that asks has reached its own deadline; give it a longer timeout")


class InFlight:
    """How many calls the running ones have going, by the call that asks and by the call from outside behind it."""

    def __init__(self) -> None:
        self._of_call: Counter[str] = Counter()
        self._of_tree: Counter[str] = Counter()

    def enter(self, bound: Bound) -> None:
        """Count one more. Raises TooManyRequests; then nothing was counted."""
        if self._of_call[bound.call_id] >= MAX_CALLS_OF_A_CALL:
            raise TooManyRequests(
                f"{MAX_CALLS_OF_A_CALL} calls of this one are running, the limit: wait for one of them before the next",
                retry_after_s=1.0,
            )
        if self._of_tree[root_of(bound)] >= MAX_CALLS_OF_A_TREE:
            raise TooManyRequests(
                f"{MAX_CALLS_OF_A_TREE} calls are running that one call has led to, the limit: call fewer at a time",
                retry_after_s=1.0,
            )
        self._of_call[bound.call_id] += 1
        self._of_tree[root_of(bound)] += 1

    def leave(self, bound: Bound) -> None:
        for counter, key in ((self._of_call, bound.call_id), (self._of_tree, root_of(bound))):
            assert counter[key] > 0, "who leaves has entered"
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def __len__(self) -> int:
        return self._of_tree.total()


class Inside:
    """ASGI application around another: what running calls ask of it, within the rules."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.in_flight = InFlight()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        bound = bound_of(scope)
        assert bound is not None, "only what running calls ask comes here"
        path: str = scope["path"]
        try:
            check(bound, scope["method"], path, time.monotonic())
            if not is_report(scope["method"], path):
                check_key(bound, scope["headers"])
            if is_call(path):
                self.in_flight.enter(bound)
        except PlatformError as error:
            await _refuse(send, error, path)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if is_call(path):
                self.in_flight.leave(bound)


async def _refuse(send: Any, error: PlatformError, path: str) -> None:
    request_id = new_request_id()
    if path.startswith("/v2"):
        from serai_gateway.api.v2.answers import error_answer, send_answer  # it needs what we are imported for

        await send_answer(send, error_answer(error, request_id), request_id)
        return
    body = error_body(error, request_id)
    headers = [*error_headers(error, request_id), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_under(path: str, folders: tuple[str, ...]) -> bool:
    return f"{path}/".startswith(folders)
