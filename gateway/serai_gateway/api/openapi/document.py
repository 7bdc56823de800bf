"""The document as a whole, and its routes."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.openapi import calls, health, inference, logs, management, pool
from serai_gateway.api.openapi.parts import ERROR

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Serai",
        "version": "0.1.0",
        "description": "Call algorithms over REST. Requests are those that Algorithmia's clients send.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": calls.PATHS | inference.PATHS | health.PATHS | logs.PATHS | pool.PATHS | management.PATHS,
    "components": {
        "schemas": {"Error": ERROR} | inference.SCHEMAS | pool.SCHEMAS | management.SCHEMAS,
        "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "KEY or Simple KEY"},
            "bearer": {"type": "http", "scheme": "bearer"},
        },
    },
}

_DOCUMENT_BYTES = msgspec.json.encode(DOCUMENT)

_WELCOME = b"""Serai: an algorithm marketplace that anyone can run.

  POST /v1/algo/OWNER/NAME     call an algorithm
  POST /v2/models/OWNER/NAME/infer
                               run a model: the Open Inference Protocol
  GET  /v1/algorithms          what there is
  GET  /openapi.json           all of it, for programs
"""


async def document(request: Request) -> Response:
    return Response(_DOCUMENT_BYTES, headers={"content-type": "application/json"})


async def welcome(request: Request) -> Response:
    return Response(_WELCOME, headers={"content-type": "text/plain; charset=utf-8"})
