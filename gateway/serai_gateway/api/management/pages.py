"""A page of a list as clients get it, with the link to the next one."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.shapes import page


def page_answer(request: Request, results: Sequence[Any], marker: str | None, limit: int) -> Response:
    link = None
    if marker:
        base = request.app.state.settings.public_url
        link = f"{base}{request.url.path}?{urlencode({'limit': limit, 'marker': marker})}"
    return json_answer(page(results, marker, link))
