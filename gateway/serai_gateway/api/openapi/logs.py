"""Logs of versions."""

from serai_gateway.api.logs import DEFAULT_TAIL, MAX_TAIL
from serai_gateway.api.openapi.parts import ALGORITHM, ALWAYS, OWNER, VERSION, query, refusals

_LINE = {
    "type": "object",
    "required": ["time", "event"],
    "properties": {
        "time": {"type": "string", "description": "UTC; no two lines of a version have the same"},
        "event": {"type": "string", "description": "output, error, omitted, start, ready, failed, crashed, killed, …"},
        "replica": {"type": "integer"},
        "call": {"type": "string", "description": "the call's request id"},
        "text": {"type": "string"},
        "type": {"type": "string", "description": "of an error, like its message and stacktrace"},
        "message": {"type": "string"},
        "stacktrace": {"type": "string"},
        "duration": {"type": "number", "description": "seconds"},
    },
}
_TIME = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"}
_TAIL = {"type": "integer", "minimum": 0, "maximum": MAX_TAIL, "default": DEFAULT_TAIL}

_OPERATION = {
    "operationId": "getLogs",
    "summary": "What a version printed and what became of it, for who manages it",
    "tags": ["catalogue"],
    "parameters": [
        OWNER,
        ALGORITHM,
        query("version", VERSION, "without it, the one that a call without a version runs"),
        query("tail", _TAIL, "newest lines"),
        query("since", _TIME, "only what is newer than this time of a line; `tail` is then as large as it may be"),
        query(
            "follow",
            {"type": "boolean", "default": False},
            "go on with what comes until the reader leaves; an empty line after each 15 s of silence",
        ),
    ],
    "responses": {
        "200": {
            "description": "one JSON object a line; nothing where nothing was logged",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}, "x-line": _LINE}},
        },
        **refusals(*ALWAYS, "401", "403", "404", "405"),
    },
    "security": [{"key": []}],
}

PATHS = {"/v1/algorithms/{owner}/{name}/logs": {"get": _OPERATION}}
