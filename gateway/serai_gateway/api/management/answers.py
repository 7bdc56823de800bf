"""Answers of the management API that are no error."""

import msgspec
from starlette.responses import Response


def json_answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, headers={"content-type": "application/json"})


def done() -> Response:
    """204: it is so now, and there is nothing to say about it."""
    return Response(status_code=204)
