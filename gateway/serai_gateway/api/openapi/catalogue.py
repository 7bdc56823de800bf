"""The catalogue, and whether the server is well."""

from typing import Any

from serai_gateway.api.openapi.parts import (
    ALGORITHM,
    ALWAYS,
    ERROR_REFERENCE,
    OWNER,
    json_answer,
    query,
    refusals,
)

_LISTED = {
    "type": "object",
    "required": ["owner", "name", "tagline", "visibility", "state"],
    "properties": {
        "owner": {"type": "string"},
        "name": {"type": "string"},
        "version": {"type": ["string", "null"]},
        "tagline": {"type": "string"},
        "visibility": {"enum": ["public", "private"]},
        "state": {"enum": ["published", "built", "empty"], "description": "built, but not published; or not even that"},
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

_TEXT = {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000]*$"}
_LIST_OPERATION = {
    "operationId": "listAlgorithms",
    "summary": "Public algorithms, and with a key your own",
    "tags": ["catalogue"],
    "parameters": [
        query("q", _TEXT, "words that must occur in name or tagline"),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "most results"),
        query("marker", _TEXT, "`marker` of the page before"),
    ],
    "responses": {"200": json_answer("one page", _LIST), **refusals(*ALWAYS, "401", "405")},
    "security": [{}, {"key": []}],
}
_NO_SUCH = {"type": "object", "properties": {"error": {"const": "No such algorithm"}}, "required": ["error"]}
_GET_OPERATION = {
    "operationId": "getAlgorithm",
    "summary": "One algorithm and its newest version that you may call",
    "tags": ["catalogue"],
    "parameters": [OWNER, ALGORITHM],
    "responses": {
        "200": json_answer("the algorithm", {"type": "object"}),
        **refusals(*ALWAYS, "401", "405"),
        "404": json_answer("unknown, or private to somebody else", {"anyOf": [ERROR_REFERENCE, _NO_SUCH]}),
    },
    "security": [{}, {"key": []}],
}


def _state_operation(name: str, text: str, *, may_be_unready: bool) -> dict[str, Any]:
    responses = {"200": json_answer("yes", _STATE), **refusals(*ALWAYS, "405")}
    if may_be_unready:
        responses["503"] = json_answer("not yet", {"anyOf": [_STATE, ERROR_REFERENCE]})
    return {"operationId": name, "summary": text, "tags": ["operation"], "responses": responses}


PATHS = {
    "/v1/algorithms": {"get": _LIST_OPERATION},
    "/v1/algorithms/{owner}/{name}": {"get": _GET_OPERATION},
    "/healthz": {"get": _state_operation("healthz", "Is this worker alive?", may_be_unready=False)},
    "/readyz": {"get": _state_operation("readyz", "Are all parts there?", may_be_unready=True)},
}
