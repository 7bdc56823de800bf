"""The Open Inference Protocol: paths under /v2."""

from typing import Any

from serai_gateway.api.openapi.parts import (
    ALGORITHM,
    ALWAYS,
    MODEL,
    OWNER,
    WANTED,
    json_answer,
    refusals,
)
from serai_gateway.api.v2.datatypes import DATATYPES
from serai_gateway.api.v2.infer_request import MAX_RANK, MAX_TENSORS

_ERROR = {"$ref": "#/components/schemas/InferenceError"}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MAX_RANK}
_DATATYPE = {"enum": list(DATATYPES)}
_TENSOR_METADATA = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}, "description": "-1 is a free dimension"},
    },
}


def _parameters(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 256},
        "shape": _SHAPE,
        "datatype": _DATATYPE,
        "data": {"type": "array", "description": "numbers, flat or nested; or else binary_data_size"},
        "parameters": _parameters(binary_data_size={"type": "integer", "minimum": 0}),
    },
}
_WANTED_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 256},
        "parameters": _parameters(binary_data={"type": "boolean"}),
    },
}
_INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1024},
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": MAX_TENSORS},
        "outputs": {"type": "array", "items": _WANTED_OUTPUT, "maxItems": MAX_TENSORS},
        "parameters": _parameters(
            priority={"type": "integer", "minimum": 0, "description": "among your own calls; smaller goes first"},
            timeout={"type": "integer", "minimum": 0, "description": "microseconds"},
            binary_data_output={"type": "boolean"},
        ),
    },
}
_INFER_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name", "datatype", "shape"]}},
    },
}
SCHEMAS = {
    "InferenceError": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "InferenceRequest": _INFER_REQUEST,
    "InferenceAnswer": _INFER_ANSWER,
}

_JSON_OR_BINARY = "JSON; with the header Inference-Header-Content-Length so many bytes of it and then raw tensors"
_BINARY = "JSON; with the header Inference-Header-Content-Length so many bytes of it, and raw tensors after them"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_KEY = [{"key": []}, {"bearer": []}]


def _refused(*statuses: str) -> dict[str, Any]:
    """The server's own refusals have their own form."""
    either = {"anyOf": [_ERROR, {"$ref": "#/components/schemas/Error"}]}
    return refusals(*ALWAYS, "405", *statuses, schema=either)


def _operation(name: str, summary: str, schema: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["inference"],
        "parameters": list(parameters),
        "responses": {"200": json_answer("as the protocol says", schema), **_refused("401", "403", "404", "422")},
        "security": _KEY,
    }


def _infer_operation(name: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    infer = _operation(name, "Run a model: named tensors in, named tensors out", {}, *parameters)
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}}
    infer["requestBody"] = {
        "required": True,
        "description": f"{_JSON_OR_BINARY}; at most 64 MiB, and 10 MiB of JSON",
        "content": body | {"application/octet-stream": _BINARY},
    }
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceAnswer"}}}
    content = answer | {"application/octet-stream": _BINARY}
    infer["responses"]["200"] = {"description": _JSON_OR_BINARY, "content": content}
    responses = infer["responses"] | _refused("415", "502", "504")
    return {**infer, "tags": ["inference", "calls"], "responses": responses}


_PLACES: tuple[tuple[str, str, tuple[dict[str, Any], ...]], ...] = (
    ("", "OfOnlyModel", ()),
    ("/versions/{version}", "OfOnlyModelOfVersion", (WANTED,)),
    ("/{model}", "", (MODEL,)),
    ("/{model}/versions/{version}", "OfVersion", (MODEL, WANTED)),
)
_METADATA = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR_METADATA},
        "outputs": {"type": "array", "items": _TENSOR_METADATA},
    },
}
_OBJECT = {"type": "object"}
_ALSO = "…/{model} and …/versions/{version} may come before the last segment, as for inference"


def _of_model() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for place, name, parameters in _PLACES:
        path, given = "/v2/models/{owner}/{name}" + place, (OWNER, ALGORITHM, *parameters)
        paths[f"{path}/infer"] = {"post": _infer_operation(f"infer{name}", *given)}
        paths[path] = {"get": _operation(f"metadata{name}", "Inputs and outputs of a model", _METADATA, *given)}
    summaries = {"ready": "May it be called?", "config": "Triton's configuration", "stats": "Triton's statistics"}
    for action, summary in summaries.items():
        get = _operation(f"{action}OfModel", summary, _OBJECT, OWNER, ALGORITHM)
        paths[f"/v2/models/{{owner}}/{{name}}/{action}"] = {"get": get | {"description": _ALSO}}
    for verb in ("load", "unload"):
        post = _operation(f"{verb}Model", f"{verb.title()} a model (owner and operator)", _OBJECT, OWNER, ALGORITHM)
        post["responses"] |= _refused("415", "504")
        paths[f"/v2/repository/models/{{owner}}/{{name}}/{verb}"] = {"post": post | {"description": _ALSO}}
    return paths


def _of_server() -> dict[str, Any]:
    index = _operation("index", "Models that you may see", {"type": "array", "items": _OBJECT})
    index["responses"] |= _refused("415")
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("server", "Name, version, extensions", _OBJECT)},
        "/v2/health/live": {"get": _operation("live", "Is this worker alive?", _OBJECT)},
        "/v2/health/ready": {"get": _operation("ready", "Are pool and database there?", _OBJECT)},
        "/v2/models/stats": {"get": _operation("stats", "Statistics of your models", _OBJECT)},
        "/v2/repository/index": {"post": index},
    }
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        paths[path]["get"]["security"] = []
    not_ready = {"anyOf": [_OBJECT, _ERROR]}
    paths["/v2/health/ready"]["get"]["responses"]["503"] = json_answer("not yet", not_ready)
    return paths


PATHS = _of_server() | _of_model()
