"""The call path: POST /v1/algo/OWNER/NAME[/VERSION], as raw ASGI. The body stays bytes from socket to replica.

__call__ ──▶ _admit (who, what, how) ──▶ _read_body ──▶ _run (dispatch) ──▶ _answer
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serai.ipc.messages import ContentType, Failure, Refusal, Result, VersionSpec
from serai_gateway.api import answers
from serai_gateway.api.call_request import Options, parse_content_type, parse_key, parse_options, parse_target
from serai_gateway.api.tally import Tally
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Account, Caller, Version
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    PlatformError,
    TooLarge,
    Unauthenticated,
    Unprocessable,
    error_body,
    error_headers,
    of_refusal,
)
from serai_gateway.request_id import new_request_id
from serai_gateway.settings import MAX_BODY_BYTES, MAX_TIMEOUT_S
from serai_gateway.strict_json import LARGE_BYTES, NotJson, check_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
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


class CallerGone(Exception):
    """The caller closed the connection: nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may run."""

    account: Account
    version: Version
    spec: VersionSpec
    options: Options
    content_type: ContentType


class Calls:
    """ASGI application for synchronous calls."""

    def __init__(self, cache: CatalogueCache, dispatcher: Dispatcher, tally: Tally) -> None:
        self._cache = cache
        self._tally = tally
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
            body = await _read_body(receive)
            await _check_input(admitted, body)
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
        caller = await self._cache.caller_of_key(parse_key(headers))
        if caller is None:
            raise Unauthenticated("unknown or invalid API key")
        options = parse_options(scope["query_string"])
        content_type = parse_content_type(headers)
        version, spec = await self._cache.version(wanted.owner, wanted.name, wanted.version, caller.account)
        check_permission(caller, version)
        if spec.kind == "model" and len(spec.models) != 1:
            raise Unprocessable(_without_code(version, spec))
        return Admitted(caller.account, version, spec, options, content_type)

    async def _run(
        self, call: Admitted, body: bytes, request_id: str, started: float, receive: Receive
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
        is_owner = call.account.kind == "operator" or call.account.id == call.version.owner_id
        wants_stdout = call.options.stdout and is_owner
        timeout_s = min(call.options.timeout_s, call.spec.limits.timeout_s)
        message, payload = await self._dispatcher.route(call.spec).call(
            call.spec,
            call.content_type,
            body,
            deadline=started + timeout_s,
            call_id=request_id,
            payer=call.account.name,
            wants_stdout=wants_stdout,
            gone=lambda: until_gone(receive),
        )
        if isinstance(message, Refusal):
            if message.code == "deadline" and time.monotonic() >= started + timeout_s:
                raise DeadlineExceeded(_explain_deadline(timeout_s, call))
            raise of_refusal(message)
        if isinstance(message, Failure) and _is_unreadable_input(message):
            raise InvalidRequest(message.message)
        result_bytes, printed = answers.split_stdout(message, payload)
        stdout = printed if wants_stdout else None
        if isinstance(message, Result):
            if len(result_bytes) > MAX_BODY_BYTES:
                message = _too_large(message, len(result_bytes))
            elif len(result_bytes) < LARGE_BYTES:
                message = answers.check_result(message, result_bytes) or message
            else:
                message = await asyncio.to_thread(answers.check_result, message, result_bytes) or message
        return _answer(message, result_bytes, request_id, call.options, stdout, is_owner)


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
    message: Result | Failure, body: bytes, request_id: str, options: Options, stdout: str | None, is_owner: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
    request_header = (b"x-request-id", request_id.encode())
    if isinstance(message, Failure):
        status = 400 if options.output == "raw" else 200
        error = answers.failure_body(message, request_id, stdout, show_source=is_owner)
        return status, [(b"content-type", answers.JSON), request_header], error, "algorithm_error"
    if options.output == "raw":
        raw = b"null" if message.content_type == "void" else body
        return 200, [(b"content-type", answers.raw_type(message)), request_header], raw, "ok"
    envelope = answers.result_body(message, body, request_id, stdout)
    return 200, [(b"content-type", answers.JSON), request_header], envelope, "ok"


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


def _explain_deadline(timeout_s: float, call: Admitted) -> str:
    if timeout_s < call.options.timeout_s:
        return f"the call did not end within {timeout_s:g} s, the algorithm's own limit (limits.timeout)"
    return f"the call did not end within {timeout_s:g} s; ask for more with ?timeout= (at most {MAX_TIMEOUT_S:g})"


def _too_large(result: Result, num_bytes: int) -> Failure:
    text = f"the result has {num_bytes} bytes, over the limit of {MAX_BODY_BYTES} (10 MiB); return less"
    return Failure(result.id, "TooLargeError", text, duration_s=result.duration_s)


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _checked_size(body)
    parts, num_bytes = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        parts.append(message.get("body", b""))
        num_bytes += len(parts[-1])
        if num_bytes > MAX_BODY_BYTES:
            break
    return _checked_size(b"".join(parts))


def _checked_size(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes (10 MiB); send a smaller input")
    return body


async def _check_input(call: Admitted, body: bytes) -> None:
    try:
        if call.content_type == "json":
            if len(body) < LARGE_BYTES:
                check_json(body, grammar_only=call.spec.kind == "model")  # the device worker reads every number itself
            else:
                await asyncio.to_thread(check_json, body)
        elif call.content_type == "text":
            body.decode()
    except NotJson as error:
        hint = "; put a string in quotes, or send it as text/plain" if body[:1].isalpha() else ""
        raise InvalidRequest(f"invalid JSON: {error}{hint}") from error
    except UnicodeDecodeError as error:
        message = f"the body is declared text but is not UTF-8 (byte {error.start}); send application/octet-stream"
        raise InvalidRequest(message) from error


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
