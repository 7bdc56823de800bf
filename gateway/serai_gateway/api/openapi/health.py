"""Whether the server is well."""

from typing import Any

from serai_gateway.api.openapi.parts import (
    ALWAYS,
    ERROR_REFERENCE,
    json_answer,
    refusals,
)

_STATE = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


def _state_operation(name: str, text: str, *, may_be_unready: bool) -> dict[str, Any]:
    responses = {"200": json_answer("yes", _STATE), **refusals(*ALWAYS, "405")}
    if may_be_unready:
        responses["503"] = json_answer("not yet", {"anyOf": [_STATE, ERROR_REFERENCE]})
    return {"operationId": name, "summary": text, "tags": ["operation"], "responses": responses}


PATHS = {
    "/healthz": {"get": _state_operation("healthz", "Is this worker alive?", may_be_unready=False)},
    "/readyz": {"get": _state_operation("readyz", "Are all parts there?", may_be_unready=True)},
}
