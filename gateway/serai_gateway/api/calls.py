"""The call path: POST /v1/algo/OWNER/NAME[/VERSION], as raw ASGI. The body stays bytes from socket to replica.

__call__ ──▶ _admit (who, what, how) ──▶ read_body ──▶ _run (dispatch) ──▶ _answer
                                                   └─▶ _stream: as events, while it runs
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serai.ipc.messages import Bound, ContentType, Failure, Refusal, Result, VersionSpec
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_gateway.api import answers, stream
from serai_gateway.api.call_body import Receive, check_input, read_body
from serai_gateway.api.call_request import Options, Target, parse_content_type, parse_options, parse_target
from serai_gateway.api.failures import Failures
from serai_gateway.api.inside import bound_of, owner_of, root_of
from serai_gateway.api.tally import Tally
from serai_gateway.api.who import caller_in
from serai_gateway.caches import CatalogueCache, Route
from serai_gateway.catalogue import Account, Caller, Version, belongs_to
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PlatformError,
    ReplicaCrashed,
    Unprocessable,
    error_body,
    error_headers,
    of_refusal,
)
from serai_gateway.pending import Asked, CallerGone
from serai_gateway.request_id import new_request_id
from serai_gateway.settings import MAX_BODY_BYTES, MAX_TIMEOUT_S
from serai_gateway.strict_json import LARGE_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

PREFIX = "/v1/algo/"
WEB_PREFIX = "/v1/web/algo/"

#: Answers to a browser's preflight. Any origin may call: the key is what admits, and no cookie is read here.
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"86400"),
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may run."""

    account: Account
    version: Version
    spec: VersionSpec
    options: Options
    content_type: ContentType
    bound: Bound | None  # the running call that makes this one
    secrets: Secrets = NO_SECRETS  # of the algorithm


class Calls:
    """ASGI application for synchronous calls."""

    def __init__(self, cache: CatalogueCache, dispatcher: Dispatcher, tally: Tally, failures: Failures) -> None:
        self._cache = cache
        self._tally = tally
        self._failures = failures
        self._dispatcher = dispatcher

    def serves(self, path: str) -> bool:
        return path.startswith((PREFIX, WEB_PREFIX))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        path: str = scope["path"]
        is_web = path.startswith(WEB_PREFIX)
        cors = _CORS if is_web else ()
        if is_web and scope["method"] == "OPTIONS":
            await _send(send, 204, list(cors), b"")
            return
        request_id = new_request_id()
        try:
            admitted = await self._admit(scope, path.removeprefix(WEB_PREFIX if is_web else PREFIX))
            body = await read_body(receive)
            await check_input(body, admitted.content_type, grammar_only=admitted.spec.kind == "model")
            if stream.is_wanted(scope["headers"]):
                writer = stream.EventWriter(send, [(b"x-request-id", request_id.encode()), *cors])
                outcome = await self._stream(admitted, body, request_id, started, receive, writer)
                self._tally.count(outcome, time.monotonic() - started)
                return
            status, headers, answer, outcome = await self._run(admitted, body, request_id, started, receive)
        except CallerGone:
            self._tally.count("caller_gone", time.monotonic() - started)
            return
        except PlatformError as error:
            status, headers, answer = error.status, error_headers(error, request_id), error_body(error, request_id)
            outcome = error.code
        self._tally.count(outcome, time.monotonic() - started)
        await _send(send, status, [*headers, *cors], answer)

    async def _admit(self, scope: Scope, target: str) -> Admitted:
        """Who is calling, what, and how. Raises a PlatformError before a byte of the body is read."""
        if scope["method"] != "POST":
            raise MethodNotAllowed("call an algorithm with POST", headers=((b"allow", b"POST"),))
        headers = scope["headers"]
        wanted = parse_target(target)
        caller = await caller_in(scope, self._cache)
        options = parse_options(scope["query_string"])
        content_type = parse_content_type(headers)
        if wanted.algorithm_id:
            version, spec = await self._by_id(wanted, caller)
        else:
            seen_as = caller.seen_as(wanted.owner)
            version, spec = await self._cache.version(wanted.owner, wanted.name, wanted.version, seen_as)
        check_permission(caller, version)
        if spec.kind == "model" and len(spec.models) != 1:
            raise Unprocessable(_without_code(version, spec))
        secrets = NO_SECRETS if spec.kind == "model" else await self._cache.secrets(version)
        return Admitted(caller.account, version, spec, options, content_type, bound_of(scope), secrets)

    async def _by_id(self, wanted: Target, caller: Caller) -> Route:
        """Raises NotFound, without the name: who knows an id may not know that."""
        found = await self._cache.name_of(wanted.algorithm_id)
        if found is not None:
            owner, name = found
            with contextlib.suppress(NotFound):
                return await self._cache.version(owner, name, wanted.version, caller.seen_as(owner))
        asked = wanted.algorithm_id + (f"/{wanted.version}" if wanted.version else "")
        raise NotFound(f"algorithm algo://{asked} not found")

    async def _run(
        self, call: Admitted, body: bytes, request_id: str, started: float, receive: Receive
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
        asked = _asked(call, request_id, started, receive)
        message, payload = await self._dispatcher.route(call.spec).call(call.spec, call.content_type, body, asked)
        try:
            reply, result, stdout = await _read_reply(message, payload, call, asked)
        except (ReplicaCrashed, DeadlineExceeded) as error:
            self._note(call, error, request_id, body)
            raise
        is_shown = isinstance(reply, Failure) and self._note(call, reply, request_id, body)
        return _answer(reply, result, request_id, call, stdout, is_shown)

    async def _stream(
        self,
        call: Admitted,
        body: bytes,
        request_id: str,
        started: float,
        receive: Receive,
        writer: stream.EventWriter,
    ) -> str:
        """Answer with events; how it ended. Raises a PlatformError only while nothing has been sent."""
        if call.options.output == "raw":
            raise InvalidRequest("events have no raw form; leave output out, or do not accept text/event-stream")
        asked = _asked(call, request_id, started, receive)
        route = self._dispatcher.route(call.spec)
        try:
            async with route.stream(call.spec, call.content_type, body, asked) as events:
                try:
                    message, payload = await stream.write_events(events, writer)
                except stream.BrokenItem as broken:
                    message, payload = broken.as_failure(), b""
            reply, result, stdout = await _read_reply(message, payload, call, asked)
        except PlatformError as error:
            if isinstance(error, ReplicaCrashed | DeadlineExceeded):
                self._note(call, error, request_id, body)
            if not writer.has_begun:
                raise
            await writer.write("error", error_body(error, request_id), is_last=True)
            return error.code
        is_shown = isinstance(reply, Failure) and self._note(call, reply, request_id, body)
        _, _, envelope, outcome = _answer(reply, result, request_id, call, stdout, is_shown)
        name = "error" if isinstance(reply, Failure) else "result"
        await writer.write(name, stream.with_num_items(envelope, reply, writer.num_items), is_last=True)
        return outcome

    def _note(self, call: Admitted, failure: Failure | PlatformError, request_id: str, body: bytes) -> bool:
        """Keep it for whoever manages the algorithm; whether this caller does, and so sees its source's lines."""
        is_shown = _may_look_inside(call)
        self._failures.note(request_id, call.version, call.account.name, failure, body if is_shown else b"")
        return is_shown


def _asked(call: Admitted, request_id: str, started: float, receive: Receive) -> Asked:
    bound, deadline = call.bound, started + _timeout_s(call)
    return Asked(
        deadline if bound is None else min(deadline, bound.deadline),
        request_id,
        call.account.name,
        call.options.stdout and _may_look_inside(call),
        "" if bound is None else root_of(bound),
        0 if bound is None else bound.depth + 1,
        lambda: until_gone(receive),
        call.secrets,
    )


def _may_look_inside(call: Admitted) -> bool:
    """Whether what the algorithm printed, and the lines of its source that failed, are this caller's to see."""
    if call.bound is not None:  # code gets it first: whose code that is counts
        return owner_of(call.bound) == call.version.owner
    return belongs_to(call.account, call.version.owner_id)


async def _read_reply(
    message: Any, payload: bytes, call: Admitted, asked: Asked
) -> tuple[Result | Failure, bytes, str | None]:
    """How it ended, checked: a replica is not to be trusted; the result; what was printed. Raises PlatformError."""
    if isinstance(message, Refusal):
        if message.code == "deadline" and time.monotonic() >= asked.deadline:
            why = f"; {message.message}" if message.message else ""
            raise DeadlineExceeded(_explain_deadline(_timeout_s(call), call, asked.deadline) + why)
        raise of_refusal(message)
    if isinstance(message, Failure) and _is_unreadable_input(message):
        raise InvalidRequest(message.message)
    result, printed = answers.split_stdout(message, payload)
    if isinstance(message, Result):
        if len(result) > MAX_BODY_BYTES:
            message = _too_large(message, len(result))
        elif len(result) < LARGE_BYTES:
            message = answers.check_result(message, result) or message
        else:
            message = await asyncio.to_thread(answers.check_result, message, result) or message
    return message, result, printed if asked.wants_stdout else None


def _timeout_s(call: Admitted) -> float:
    return min(call.options.timeout_s, call.spec.limits.timeout_s)


def check_permission(caller: Caller, version: Version) -> None:
    allowed = caller.key.permissions
    if not allowed.call:
        raise Forbidden("this key may not call algorithms; use one that may")
    if "*" in allowed.algorithms:
        return
    owner = version.owner.lower()
    if not {f"{owner}/*", f"{owner}/{version.name.lower()}"} & {entry.lower() for entry in allowed.algorithms}:
        raise Forbidden(f"this key may not call {version.owner}/{version.name}; use one that may")


def _answer(
    message: Result | Failure, body: bytes, request_id: str, call: Admitted, stdout: str | None, show_source: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
    request_header = (b"x-request-id", request_id.encode())
    alert = _alert(call.version)
    if isinstance(message, Failure):
        status = 400 if call.options.output == "raw" else 200
        error = answers.failure_body(message, request_id, stdout, show_source, alert)
        return status, [(b"content-type", answers.JSON), request_header], error, "algorithm_error"
    if call.options.output == "raw":
        raw = b"null" if message.content_type == "void" else body
        return 200, [(b"content-type", answers.raw_type(message)), request_header], raw, "ok"
    envelope = answers.result_body(message, body, request_id, stdout, alert)
    return 200, [(b"content-type", answers.JSON), request_header], envelope, "ok"


def _alert(version: Version) -> str | None:
    if version.deprecation is None:
        return None
    return f"{version.owner}/{version.name}/{version.semver} is deprecated: {version.deprecation}"


def _is_unreadable_input(failure: Failure) -> bool:
    """Whether the replica or the device worker could not read the input: the caller's mistake."""
    return failure.error_type == "ParsingError" and failure.message.startswith("input is not JSON: ")


def _without_code(version: Version, spec: VersionSpec) -> str:
    name, models = f"{version.owner}/{version.name}", [model.name for model in spec.models]
    there_are = ", ".join(models[:8]) + (" and others" if len(models) > 8 else "")
    return (
        f"{name} has {len(models)} models and no code that says which one a call is for; run one of them ({there_are}) "
        f"with POST /v2/models/{name}/MODEL/infer"
    )


def _explain_deadline(timeout_s: float, call: Admitted, deadline: float) -> str:
    if call.bound is not None and deadline == call.bound.deadline:
        return "the call did not end before the deadline of the call that made it; give that one a longer timeout"
    if timeout_s < call.options.timeout_s:
        return f"the call did not end within {timeout_s:g} s, the algorithm's own limit (limits.timeout)"
    most = min(call.spec.limits.timeout_s, MAX_TIMEOUT_S)
    if timeout_s >= most:
        return f"the call did not end within {timeout_s:g} s, the longest that a call of this algorithm may take"
    return f"the call did not end within {timeout_s:g} s; ask for more with timeout= (at most {most:g})"


def _too_large(result: Result, num_bytes: int) -> Failure:
    text = f"the result has {num_bytes} bytes, over the limit of {MAX_BODY_BYTES} (10 MiB); return less"
    return Failure(result.id, "TooLargeError", text, duration_s=result.duration_s)


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
