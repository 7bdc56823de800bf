"""One question to the management API and how its answer is read; pure, so that both clients ask the same."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from serai._requests import LOOKUP_TIMEOUT_S, PAGE_LENGTH, Reference, Request
from serai._responses import Page, read_error
from serai.errors import BadAnswer, InvalidRequest, NotFound

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    request: Request
    read: Callable[[bytes], T]  # may raise msgspec's errors, which mean that this is no answer of Serai
    missing: str = ""  # what a 404 without a word of its own means

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> T:
        """Raises ApiError and its like, BadAnswer."""
        if not 200 <= status < 300:
            error = read_error(status, headers, body)
            if self.missing and isinstance(error, NotFound) and not error.code:
                error = NotFound(self.missing, status=status, code="not_found", request_id=error.request_id)
            raise error
        try:
            return self.read(body)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"this server answers in another way than its client knows: {error}") from error


#: Asks one after the other what depends on the answer before; the client sends each one in.
Conversation = Generator[Ask[Any], Any, T]

#: Marker of a page, None for the first -> the question for it.
Pages = Callable[[str | None], Ask[Page[T]]]


class _Results(msgspec.Struct):
    results: list[msgspec.Raw]
    marker: str | None = None


def request(method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 0.0) -> Request:
    content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    headers = {} if body is None else {"Content-Type": "application/json"}
    return Request(method, path, (), headers, content, timeout_s or LOOKUP_TIMEOUT_S)


def page_of(
    path: str, of: type[Any], make: Callable[[Any], T], query: Mapping[str, str], marker: str | None
) -> Ask[Page[T]]:
    """One page of a list whose entries are `of`, each made into a record."""
    asked = dict(query) | {"limit": str(PAGE_LENGTH)} | ({"marker": marker} if marker else {})

    def read(body: bytes) -> Page[T]:
        found = msgspec.json.decode(body, type=_Results)
        return Page(tuple(make(msgspec.json.decode(raw, type=of)) for raw in found.results), found.marker)

    return Ask(Request("GET", path, tuple(asked.items())), read)


def reading(of: type[Any], make: Callable[[Any], T]) -> Callable[[bytes], T]:
    return lambda body: make(msgspec.json.decode(body, type=of))


def nothing(_: bytes) -> None:
    """Of an answer that says no more than that it is done."""


def path_of(reference: Reference, *parts: str) -> str:
    return join("/v1/algorithms", reference.owner, reference.name, *parts)


def join(top: str, *parts: str) -> str:
    """The path of `parts` below `top`, each of which stays one part. Raises InvalidRequest for what would lead away."""
    for part in parts:
        if part in ("", ".", ".."):
            raise InvalidRequest(f"{part!r} is no name, number or id")
    return "/".join([top, *(quote(part, safe="") for part in parts)])


def next_marker(found: str, marker: str | None) -> str:
    """Raises BadAnswer for a list that would go on for ever."""
    if found == marker:
        raise BadAnswer("the listing does not advance: its marker names the same page again")
    return found
