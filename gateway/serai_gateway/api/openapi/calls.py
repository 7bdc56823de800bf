"""Calls of algorithms."""

from typing import Any

from serai_gateway.api.openapi.parts import (
    ALGORITHM,
    ALWAYS,
    ERROR_REFERENCE,
    OWNER,
    WANTED,
    query,
    refusals,
)
from serai_gateway.settings import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S

_METADATA = {
    "type": "object",
    "required": ["duration", "request_id"],
    "properties": {
        "content_type": {"enum": ["json", "text", "binary", "void"]},
        "duration": {"type": "number", "description": "seconds inside the algorithm"},
        "request_id": {"type": "string"},
        "stdout": {"type": "string", "description": "what was printed; for the owner, with stdout=true"},
        "num_items": {"type": "integer", "description": "of events: how many items came before"},
    },
}
_FAILED = {
    "type": "object",
    "required": ["error", "metadata"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "error_type"],
            "properties": {
                "message": {"type": "string"},
                "error_type": {"type": "string", "description": "AlgorithmError, InputError, …"},
                "stacktrace": {"type": "string", "description": "for the owner"},
            },
        },
        "metadata": _METADATA,
    },
}
_EVENTS = (
    "With `Accept: text/event-stream`: events, each with one line of JSON as its data. `waiting` {state, position, "
    "estimate_s} and `progress` {fraction, text} say how the call is doing, `item` is what the algorithm yields, "
    "`binary` an item of bytes as a string of base64. The last is `result` or `error`, with the object that is "
    "answered without events. A comment comes after each 15 s of silence. Closing the connection cancels the call."
)
_ANSWER = {
    "description": "`result`, or `error` where the algorithm failed: both HTTP 200. output=raw: the bare result.",
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["result", "metadata"],
                        "properties": {"result": {}, "metadata": _METADATA},
                    },
                    _FAILED,
                    {"description": "output=raw: the result itself"},
                ]
            }
        },
        "text/plain": {"schema": {"type": "string"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "text/event-stream": {"schema": {"type": "string", "description": _EVENTS}},
    },
}


_OPTIONS = [
    query(
        "timeout",
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S, "default": DEFAULT_TIMEOUT_S},
        "seconds the call may take",
    ),
    query("output", {"type": "string", "enum": ["default", "raw"]}, "raw: the bare result, and 400 where it failed"),
    query("stdout", {"type": "boolean", "default": False}, "return what the algorithm printed (owner only)"),
]


_BODY = {
    "required": True,
    "description": "the input, at most 10 MiB",
    "content": {
        "application/json": {"schema": {}},
        "text/plain": {"schema": {"type": "string"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def _call_operation(name: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    refused = refusals(*ALWAYS, "401", "403", "404", "405", "415", "502", "504")
    refused |= refusals("400", schema={"anyOf": [ERROR_REFERENCE, _FAILED]})
    return {
        "operationId": name,
        "summary": "Call an algorithm and wait for its answer, or for its events",
        "tags": ["calls"],
        "parameters": [*parameters, *_OPTIONS],
        "requestBody": _BODY,
        "responses": {"200": _ANSWER, **refused},
        "security": [{"key": []}, {"bearer": []}],
    }


PATHS = {
    "/v1/algo/{owner}/{name}": {"post": _call_operation("call", OWNER, ALGORITHM)},
    "/v1/algo/{owner}/{name}/{version}": {"post": _call_operation("callVersion", OWNER, ALGORITHM, WANTED)},
}
