"""What operations have in common: parameters, errors, answers."""

from typing import Any

NAME = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}$"}
_NUMBER = "(?:0|[1-9][0-9]{0,8})"
_SEMVER = rf"{_NUMBER}(?:\.{_NUMBER}(?:\.(?:{_NUMBER}|[*xX]))?|\.[*xX](?:\.[*xX])?)?"
VERSION = {"type": "string", "pattern": f"^(?:[Ll]atest(?:[Pp]rivate)?|[0-9a-fA-F]{{40}}|{_SEMVER})$"}

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "code", "type", "status", "retriable", "request_id"],
            "properties": {
                "message": {"type": "string", "description": "what was wrong, the limit and the way out"},
                "code": {
                    "type": ["string", "integer"],
                    "description": "for programs: not_found, too_large, …; below /v1/algorithms a number",
                },
                "type": {"type": "string"},
                "error_type": {"type": "string", "description": "Algorithmia's name for it"},
                "status": {"type": "integer"},
                "retriable": {"type": "boolean", "description": "whether the same request may succeed later"},
                "request_id": {"type": "string", "description": "quote it when you ask for help"},
            },
        }
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
    "422": "understood, and cannot be done: the model cannot be loaded",
    "431": "headers too many or too large",
    "502": "what ran the call died; nothing is billed",
    "503": "overloaded, stopping, or not ready: see Retry-After",
    "504": "the deadline passed",
}


#: What the HTTP server itself may answer to anything.
ALWAYS = ("400", "408", "413", "414", "431", "503")
ERROR_REFERENCE = {"$ref": "#/components/schemas/Error"}


def refusals(*statuses: str, schema: dict[str, Any] = ERROR_REFERENCE) -> dict[str, Any]:
    return {
        status: {"description": _WHY[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def path_parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


OWNER = path_parameter("owner", NAME, "any case")
ALGORITHM = path_parameter("name", NAME, "any case")
MODEL = path_parameter(
    "model", {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}, "where the algorithm has several"
)
WANTED = path_parameter("version", VERSION, "1.2.0, 1.2, 1.*, latest, or a hash for the owner")


def json_answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
