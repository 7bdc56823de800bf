"""GET /openapi.json: what this gateway answers, exactly as it answers it. Tests hold the two against each other."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.settings import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S

_NAME = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}$"}
_VERSION = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9.*_-]{0,63}$"}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "code", "type", "status", "retriable", "request_id"],
            "properties": {
                "message": {"type": "string", "description": "what was wrong, the limit and the way out"},
                "code": {"type": "string", "description": "for programs: not_found, too_large, …"},
                "type": {"type": "string"},
                "error_type": {"type": "string", "description": "Algorithmia's name for it"},
                "status": {"type": "integer"},
                "retriable": {"type": "boolean", "description": "whether the same request may succeed later"},
                "request_id": {"type": "string", "description": "quote it when you ask for help"},
            },
        }
    },
}
_METADATA = {
    "type": "object",
    "required": ["duration", "request_id"],
    "properties": {
        "content_type": {"enum": ["json", "text", "binary", "void"]},
        "duration": {"type": "number", "description": "seconds inside the algorithm"},
        "request_id": {"type": "string"},
        "stdout": {"type": "string", "description": "what was printed; for the owner, with stdout=true"},
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
    },
}
_WHY = {
    "400": "malformed input or option; with output=raw also an algorithm that failed",
    "401": "no key, or not a key of this server",
    "403": "the key may not do this",
    "404": "unknown, or private to somebody else",
    "405": "wrong method",
    "408": "the body came too slowly",
    "413": "over 10 MiB",
    "414": "the request line is over 4 KiB",
    "415": "content type or encoding that is not accepted",
    "431": "headers too many or too large",
    "502": "what ran the call died; nothing is billed",
    "503": "overloaded, stopping, or not ready: see Retry-After",
    "504": "the deadline passed",
}


#: What the HTTP server itself may answer to anything.
_ALWAYS = ("400", "408", "413", "414", "431", "503")
_ERROR_REFERENCE = {"$ref": "#/components/schemas/Error"}


def _refusals(*statuses: str, schema: dict[str, Any] = _ERROR_REFERENCE) -> dict[str, Any]:
    return {
        status: {"description": _WHY[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def _path_parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def _query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


_OPTIONS = [
    _query(
        "timeout",
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S, "default": DEFAULT_TIMEOUT_S},
        "seconds the call may take",
    ),
    _query("output", {"type": "string", "enum": ["default", "raw"]}, "raw: the bare result, and 400 where it failed"),
    _query("stdout", {"type": "boolean", "default": False}, "return what the algorithm printed (owner only)"),
]
_OWNER = _path_parameter("owner", _NAME, "any case")
_ALGORITHM = _path_parameter("name", _NAME, "any case")
_WANTED = _path_parameter("version", _VERSION, "1.2.0, 1.2, 1.*, latest, or a hash for the owner")

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
    refusals = _refusals(*_ALWAYS, "401", "403", "404", "405", "415", "502", "504")
    refusals |= _refusals("400", schema={"anyOf": [_ERROR_REFERENCE, _FAILED]})
    return {
        "operationId": name,
        "summary": "Call an algorithm and wait for its answer",
        "tags": ["calls"],
        "parameters": [*parameters, *_OPTIONS],
        "requestBody": _BODY,
        "responses": {"200": _ANSWER, **refusals},
        "security": [{"key": []}, {"bearer": []}],
    }


def _json_answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


_LISTED = {
    "type": "object",
    "required": ["owner", "name", "tagline", "visibility"],
    "properties": {
        "owner": {"type": "string"},
        "name": {"type": "string"},
        "version": {"type": ["string", "null"]},
        "tagline": {"type": "string"},
        "visibility": {"enum": ["public", "private"]},
    },
}
_LIST = {
    "type": "object",
    "required": ["results", "marker", "next_link"],
    "properties": {
        "results": {"type": "array", "items": _LISTED},
        "marker": {"type": ["string", "null"]},
        "next_link": {"type": ["string", "null"]},
    },
}
_STATE = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}

_LIST_OPERATION = {
    "operationId": "listAlgorithms",
    "summary": "Public algorithms, and with a key your own",
    "tags": ["catalogue"],
    "parameters": [
        _query("q", {"type": "string", "maxLength": 200}, "words that must occur in name or tagline"),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "most results"),
        _query("marker", {"type": "string", "maxLength": 200}, "`marker` of the page before"),
    ],
    "responses": {"200": _json_answer("one page", _LIST), **_refusals(*_ALWAYS, "401", "405")},
    "security": [{}, {"key": []}],
}
_NO_SUCH = {"type": "object", "properties": {"error": {"const": "No such algorithm"}}, "required": ["error"]}
_GET_OPERATION = {
    "operationId": "getAlgorithm",
    "summary": "One algorithm and its newest version that you may call",
    "tags": ["catalogue"],
    "parameters": [_OWNER, _ALGORITHM],
    "responses": {
        "200": _json_answer("the algorithm", {"type": "object"}),
        **_refusals(*_ALWAYS, "401", "405"),
        "404": _json_answer("unknown, or private to somebody else", {"anyOf": [_ERROR_REFERENCE, _NO_SUCH]}),
    },
    "security": [{}, {"key": []}],
}


def _state_operation(name: str, text: str, *, may_be_unready: bool) -> dict[str, Any]:
    responses = {"200": _json_answer("yes", _STATE), **_refusals(*_ALWAYS, "405")}
    if may_be_unready:
        responses["503"] = _json_answer("not yet", {"anyOf": [_STATE, _ERROR_REFERENCE]})
    return {"operationId": name, "summary": text, "tags": ["operation"], "responses": responses}


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Serai",
        "version": "0.1.0",
        "description": "Call algorithms over REST. Requests are those that Algorithmia's clients send.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": {
        "/v1/algo/{owner}/{name}": {"post": _call_operation("call", _OWNER, _ALGORITHM)},
        "/v1/algo/{owner}/{name}/{version}": {"post": _call_operation("callVersion", _OWNER, _ALGORITHM, _WANTED)},
        "/v1/algorithms": {"get": _LIST_OPERATION},
        "/v1/algorithms/{owner}/{name}": {"get": _GET_OPERATION},
        "/healthz": {"get": _state_operation("healthz", "Is this worker alive?", may_be_unready=False)},
        "/readyz": {"get": _state_operation("readyz", "Are all parts there?", may_be_unready=True)},
    },
    "components": {
        "schemas": {"Error": _ERROR},
        "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "KEY or Simple KEY"},
            "bearer": {"type": "http", "scheme": "bearer"},
        },
    },
}

_DOCUMENT_BYTES = msgspec.json.encode(DOCUMENT)

_WELCOME = b"""Serai: an algorithm marketplace that anyone can run.

  POST /v1/algo/OWNER/NAME     call an algorithm
  GET  /v1/algorithms          what there is
  GET  /openapi.json           all of it, for programs
"""


async def document(request: Request) -> Response:
    return Response(_DOCUMENT_BYTES, headers={"content-type": "application/json"})


async def welcome(request: Request) -> Response:
    return Response(_WELCOME, headers={"content-type": "text/plain; charset=utf-8"})
