"""Errors of the management API: {"error": {"id", "code", "message", …}}, with Algorithmia's numbers as codes.

What else our errors say (`type`, `status`, `retriable`, `request_id`, `error_type`) stands beside them. An algorithm
that does not exist is the exception that clients rely on: {"error": "No such algorithm"}.
"""

import uuid
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from serai_gateway.build.templates import NO_SUCH_MACHINE, NO_SUCH_PACKAGE_SET, UNKNOWN, UNSUPPORTED, CannotMake
from serai_gateway.catalogue import (
    AlreadyPublished,
    BreaksPromise,
    Busy,
    CatalogueError,
    InvalidName,
    NoRoom,
    NotFound,
    Taken,
)
from serai_gateway.errors import NoSpace, PlatformError, Unavailable, describe, error_headers
from serai_gateway.request_id import new_request_id


class _Known(NamedTuple):
    number: int
    status: int
    message: str  # as Algorithmia's documents have it, where they say


class Codes:
    """Those of Algorithmia's numbers that are given here, with the status and the words that belong to them."""

    ALGORITHM_NOT_FOUND = _Known(1000, 404, "The requested algorithm was not found.")
    ALGORITHM_NAME_TAKEN = _Known(1002, 409, "An algorithm with the requested name already exists.")
    PACKAGE_SET_NOT_FOUND = _Known(1003, 400, "There is no such package set.")
    VERSION_ALREADY_PUBLISHED = _Known(1007, 409, "Version already published. Please compile your algorithm.")
    SCM_FAILED = _Known(1008, 500, "Failed to create algorithm on backing SCM.")
    BUILD_NOT_FOUND = _Known(1010, 404, "There is no such build.")
    BUILD_LOGS_NOT_FOUND = _Known(1011, 404, "The build has no log yet: it is still running.")
    VERSION_NOT_FOUND = _Known(1014, 404, "There is no such version.")
    NOT_AUTHORIZED = _Known(2001, 403, "Caller is not authorized to perform the operation.")
    NOT_AUTHENTICATED = _Known(2002, 401, "Unknown or invalid API key.")
    MALFORMED_JSON = _Known(2013, 400, "Invalid JSON.")
    INVALID_REQUEST = _Known(2015, 400, "Invalid request.")
    IN_USE = _Known(2015, 409, "What still belongs to it must go first.")
    LIMIT_REACHED = _Known(2015, 409, "There are as many as there may be.")
    KEY_NOT_FOUND = _Known(2015, 404, "There is no such key.")
    USER_NOT_FOUND = _Known(3000, 404, "The requested user was not found.")
    USERNAME_TAKEN = _Known(3003, 409, "The username is already taken.")
    MISSING_FIELDS = _Known(3005, 400, "Required fields are missing.")
    INCONSISTENT_USERNAME = _Known(3007, 400, "The username differs from that in the path: users keep their names.")
    ORGANIZATION_NOT_FOUND = _Known(3100, 404, "The requested organization was not found.")
    ORGANIZATION_EXISTS = _Known(3101, 409, "An organization already exists with this name.")
    LAST_OWNER = _Known(3102, 409, "Unable to remove the last owner of an organization.")
    ORGANIZATION_TYPE_NOT_FOUND = _Known(3108, 404, "There is no such type of organization.")
    UNKNOWN_LANGUAGE = _Known(4001, 400, "The requested algorithm language is not known.")
    UNSUPPORTED_LANGUAGE = _Known(4002, 400, "Algorithms in this language cannot be made here.")
    UNSUPPORTED_MACHINE = _Known(4004, 400, "There is no such kind of machine.")
    NO_SUCH_ENVIRONMENT = _Known(4001, 404, "There is no such algorithm environment on this server.")
    SCM_NOT_FOUND = _Known(4009, 404, "The SCM configuration was not found.")
    NO_SCM_WEBHOOKS = _Known(4012, 400, "Internal SCM does not support webhooks.")
    INTERNAL = _Known(5001, 500, "There was an internal error.")
    INVALID_MARKER = _Known(5002, 400, "Invalid marker used.")
    INVALID_LIMIT = _Known(5003, 400, "Limit must be between 1 and the system-configured page size limit.")
    NOT_IMPLEMENTED = _Known(5005, 501, "Feature not implemented.")
    INVALID_INPUT = _Known(6001, 400, "The request is invalid.")
    SECRET_MALFORMED = _Known(8000, 400, "That is no description of a secret.")
    SECRET_CONSTRAINT = _Known(8001, 409, "A secret with this name exists already.")
    SECRET_INVALID = _Known(8001, 400, "A secret cannot be like that.")
    SECRET_NEEDS_VALUE = _Known(8004, 400, "A new secret needs a value.")
    SECRET_PROVIDER_NOT_FOUND = _Known(8006, 404, "There is no such secret provider.")
    SECRET_NOT_FOUND = _Known(8008, 404, "There is no such secret.")


class ManagementError(PlatformError):
    """A refusal with one of Algorithmia's numbers. `message` says more than the usual words, where there is more."""

    def __init__(self, known: _Known, message: str = "") -> None:
        super().__init__(message or known.message)
        self.number = known.number
        self.status = known.status
        self.code = _CODES.get(known.status, "invalid_request")
        self.error_type = "SystemError" if known.status >= 500 else "InputError"


_CODES = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 409: "conflict", 500: "internal", 501: "internal"}

#: What other parts of the gateway refuse with, as a number of the management API.
_NUMBERS = {400: 2015, 401: 2002, 403: 2001, 404: 1000, 409: 1002, 422: 6001, 500: 5001, 503: 5001, 507: 5001}


#: What lies below these, or is one of them, answers in this form.
_PATHS = (
    "/v1/algorithms",
    "/v1/users",
    "/v1/organizations",
    "/v1/organization",
    "/v1/admin",
    "/v1/scms",
    "/v1/secret-provider",
    "/v1/algorithm-environments",
    "/v1/registries",
    "/v1/config",
    "/v1/connector",
    "/v1/insights",
)


def is_management(path: str) -> bool:
    return path.startswith(_PATHS) and any(path == top or path.startswith(f"{top}/") for top in _PATHS)


def error_response(error: PlatformError) -> Response:
    request_id = new_request_id()
    number = getattr(error, "number", None) or _NUMBERS.get(error.status, 2015)
    described = describe(error, request_id) | {"id": str(uuid.uuid4()), "reason": error.code, "code": number}
    response = Response(msgspec.json.encode({"error": described}), error.status)
    response.raw_headers.extend(error_headers(error, request_id))
    return response


def no_such_algorithm() -> Response:
    """What existing clients look for, word for word."""
    headers = {"content-type": "application/json", "x-error-message": "No such algorithm"}
    return Response(b'{"error":"No such algorithm"}', 404, headers=headers)


def of_cannot_make(error: CannotMake) -> ManagementError:
    """Why no algorithm can be made of what was asked for, in the management API's words."""
    known = {
        UNKNOWN: Codes.UNKNOWN_LANGUAGE,
        UNSUPPORTED: Codes.UNSUPPORTED_LANGUAGE,
        NO_SUCH_MACHINE: Codes.UNSUPPORTED_MACHINE,
        NO_SUCH_PACKAGE_SET: Codes.PACKAGE_SET_NOT_FOUND,
    }[error.number]
    return ManagementError(known, str(error))


def of_catalogue(error: CatalogueError) -> PlatformError:
    """The catalogue's refusal of something about an algorithm, as the management API says it."""
    if isinstance(error, NoRoom):
        return NoSpace(str(error))
    if isinstance(error, Busy):
        return Unavailable(str(error), retry_after_s=1.0)
    known = {
        NotFound: Codes.ALGORITHM_NOT_FOUND,
        Taken: Codes.ALGORITHM_NAME_TAKEN,
        InvalidName: Codes.INVALID_INPUT,
        AlreadyPublished: Codes.VERSION_ALREADY_PUBLISHED,
        BreaksPromise: Codes.INVALID_INPUT,
    }.get(type(error), Codes.INVALID_REQUEST)
    return ManagementError(known, str(error))
