"""One inference: who and what, read, parse, run in the pool, write.

The body and the payload of the answer are never copied when all of their tensors are raw.
"""

import asyncio
import time
from contextlib import ExitStack

from serai.ipc.messages import Bound, Failure, Refusal
from serai_gateway.api.call_request import find_header
from serai_gateway.api.calls import Receive, Scope, check_permission, until_gone
from serai_gateway.api.inside import bound_of
from serai_gateway.api.v2.answers import Answer
from serai_gateway.api.v2.bodies import HeldBytes, check_types, read_body
from serai_gateway.api.v2.infer_answer import write_answer
from serai_gateway.api.v2.infer_request import (
    MAX_INFER_BYTES,
    MAX_JSON_BYTES,
    InferRequest,
    parse_infer,
    read_header_length,
)
from serai_gateway.api.v2.models import FoundModel, find_model
from serai_gateway.api.v2.names import ModelPath
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Caller
from serai_gateway.dispatch import Dispatcher
from serai_gateway.errors import DeadlineExceeded, PlatformError, of_refusal
from serai_gateway.pending import Asked
from serai_gateway.settings import DEFAULT_TIMEOUT_S
from serai_gateway.strict_json import LARGE_BYTES

_OCTETS = b"application/octet-stream"


class ModelFailed(PlatformError):
    """The model or its input is to blame. The protocol has no outcome beside its errors, so it is one of them."""

    status, code, error_type = 400, "algorithm_error", "AlgorithmError"


class Inference:
    """Runs models for callers."""

    def __init__(self, cache: CatalogueCache, dispatcher: Dispatcher) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._held = HeldBytes()

    async def run(
        self,
        path: ModelPath,
        caller: Caller,
        scope: Scope,
        receive: Receive,
        request_id: str,
        started: float,
        until_sent: ExitStack,
    ) -> Answer:
        """What body and answer take is on an account until `until_sent` ends. Raises PlatformError and CallerGone."""
        headers = scope["headers"]
        check_types(headers)
        header_length = read_header_length(find_header(headers, b"inference-header-content-length"))
        found = await find_model(self._cache, path, caller.seen_as(path.owner))
        check_permission(caller, found.version)
        account = until_sent.enter_context(self._held.account(caller.account.name))
        body = await read_body(receive, MAX_JSON_BYTES if header_length is None else MAX_INFER_BYTES, account)
        if (len(body) if header_length is None else header_length) < LARGE_BYTES:
            request = parse_infer(body, header_length)
        else:
            request = await asyncio.to_thread(parse_infer, body, header_length)
        answer = await self._ask_pool(found, request, caller, receive, request_id, started, bound_of(scope))
        account.take(len(answer.body) + len(answer.binary or b""))
        return answer

    async def _ask_pool(
        self,
        found: FoundModel,
        request: InferRequest,
        caller: Caller,
        receive: Receive,
        request_id: str,
        started: float,
        bound: Bound | None,
    ) -> Answer:
        timeout_s = min(request.timeout_s or DEFAULT_TIMEOUT_S, found.spec.limits.timeout_s)
        deadline = started + timeout_s
        asked = Asked(
            deadline if bound is None else min(deadline, bound.deadline),
            request_id,
            caller.account.name,
            depth=0 if bound is None else bound.depth + 1,
            gone=lambda: until_gone(receive),
        )
        message, payload = await self._dispatcher.pool.infer(
            found.spec,
            found.model.name,
            request.inputs,
            request.outputs,
            request.payload,
            asked,
            as_json=request.as_json,
            priority=request.priority,
        )
        if isinstance(message, Refusal):
            if message.code == "deadline" and time.monotonic() >= deadline:
                raise DeadlineExceeded(_explain_deadline(timeout_s, request, found))
            raise of_refusal(message)
        if isinstance(message, Failure):
            raise ModelFailed(message.message)
        if len(payload) < LARGE_BYTES:
            answer = write_answer(found.name, found.version_name, request.id, message, payload)
        else:
            answer = await asyncio.to_thread(write_answer, found.name, found.version_name, request.id, message, payload)
        if answer.binary is None:
            return Answer(200, answer.head)
        length = (b"inference-header-content-length", b"%d" % len(answer.head))
        return Answer(200, answer.head, answer.binary, _OCTETS, (length,))


def _explain_deadline(timeout_s: float, request: InferRequest, found: FoundModel) -> str:
    if request.timeout_s == timeout_s:
        return f"no answer within {timeout_s:g} s; ask for more with the parameter timeout, in microseconds"
    return f"no answer within {timeout_s:g} s, the limit of {found.version.owner}/{found.version.name}"
