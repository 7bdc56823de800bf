"""What a management request says: its JSON body, its page, its flags. Whatever the Content-Type, the body is JSON."""

import re
from typing import TypeVar

import msgspec
from starlette.requests import Request

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE
from serai_gateway.errors import TooLarge
from serai_gateway.strict_json import NotJson, check_json

#: Longest body; sample inputs are the largest thing in one.
MAX_BODY_BYTES = 1 << 20
#: Longest marker.
MAX_MARKER_CHARS = 200

_T = TypeVar("_T")


async def read_json(request: Request, of: type[_T], max_bytes: int = MAX_BODY_BYTES) -> _T:
    """The body as `of`, a msgspec.Struct; fields that it does not know are ignored, as newer clients send more.

    Raises ManagementError, TooLarge.
    """
    raw = bytearray()
    async for block in request.stream():
        raw += block
        if len(raw) > max_bytes:
            raise TooLarge(f"the body is over {max_bytes >> 10} KiB")
    text = bytes(raw) or b"{}"
    try:
        check_json(text)
        return msgspec.json.decode(text, type=of)
    except NotJson as error:
        raise ManagementError(Codes.MALFORMED_JSON, f"the body is not JSON: {str(error)[:300]}") from None
    except msgspec.ValidationError as error:
        raise ManagementError(Codes.INVALID_INPUT, str(error)[:500]) from None
    except msgspec.DecodeError as error:
        raise ManagementError(Codes.MALFORMED_JSON, f"the body is not JSON: {str(error)[:300]}") from None


def page_of(request: Request) -> tuple[int, str | None]:
    """`limit` and `marker` of a list. Raises ManagementError."""
    limit = request.query_params.get("limit", str(PAGE_SIZE))
    if not re.fullmatch(r"[0-9]{1,6}", limit) or not 1 <= int(limit) <= MAX_PAGE_SIZE:
        raise ManagementError(Codes.INVALID_LIMIT, f"limit must be between 1 and {MAX_PAGE_SIZE}")
    marker = request.query_params.get("marker") or None
    if marker and (len(marker) > MAX_MARKER_CHARS or not marker.isprintable()):
        raise ManagementError(Codes.INVALID_MARKER)
    return int(limit), marker


def flag_of(request: Request, name: str) -> bool | None:
    """A boolean option, as Python's or JavaScript's clients spell it; None where it is not given."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ManagementError(Codes.INVALID_INPUT, f"{name} must be true or false")
