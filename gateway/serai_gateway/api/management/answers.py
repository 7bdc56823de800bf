"""Answers of the management API that are no error."""

import msgspec
from starlette.responses import Response


def json_answer(value: object) -> Response:
    return Response(msgspec.json.encode(value), headers={"content-type": "application/json"})


def done() -> Response:
    """204: it is so now, and there is nothing to say about it."""
    return Response(status_code=204)
