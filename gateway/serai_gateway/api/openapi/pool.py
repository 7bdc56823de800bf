"""The pool, for operators."""

from typing import Any

import msgspec

from serai_gateway.api.openapi.parts import (
    ALGORITHM,
    ALWAYS,
    MODEL,
    OWNER,
    VERSION,
    json_answer,
    path_parameter,
    query,
    refusals,
)
from serai_gpu_pool.snapshot import Snapshot

_OF_STRUCTS = msgspec.json.schema_components([Snapshot], ref_template="#/components/schemas/{name}")
SCHEMAS: dict[str, Any] = _OF_STRUCTS[1]

_VERB = path_parameter("verb", {"enum": ["load", "unload", "pin", "unpin"]}, "what is done with it")
_WHICH = query("version", VERSION, "the version whose model is meant; without it the one that a call gets")
_DONE = {
    "type": "object",
    "required": ["model", "version", "done"],
    "properties": {"model": {"type": "string"}, "version": {"type": "string"}, "done": {"type": "string"}},
}


def _steer_operation(name: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": "Load, unload, pin or unpin a model (operator only)",
        "tags": ["pool"],
        "parameters": [*parameters, _VERB, _WHICH],
        "responses": {
            "200": json_answer("done", _DONE),
            **refusals(*ALWAYS, "401", "403", "404", "405", "422", "502", "504"),
        },
        "security": [{"key": []}, {"bearer": []}],
    }


PATHS = {
    "/v1/pool": {
        "get": {
            "operationId": "getPool",
            "summary": "What the pool holds: devices, workers, models, evictions (operator only)",
            "tags": ["pool"],
            "responses": {
                "200": json_answer("as of now", _OF_STRUCTS[0][0]),
                **refusals(*ALWAYS, "401", "403", "405"),
            },
            "security": [{"key": []}, {"bearer": []}],
        }
    },
    "/v1/pool/models/{owner}/{name}/{verb}": {"post": _steer_operation("steerOnlyModel", OWNER, ALGORITHM)},
    "/v1/pool/models/{owner}/{name}/{model}/{verb}": {"post": _steer_operation("steerModel", OWNER, ALGORITHM, MODEL)},
}
