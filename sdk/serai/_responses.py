"""What the clients are answered: pure functions from status, headers and bytes to values or errors."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from serai._requests import OutputType
from serai.errors import AlgorithmError, ApiError, BadAnswer, NotFound, SeraiError, class_of_status

#: Longest line of a build's log. Real ones are far shorter; more is a server gone wrong.
MAX_LINE_BYTES = 1 << 20

#: How much of an answer that is not ours is quoted in an error.
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Metadata:
    """About one answer."""

    content_type: str  # text, json, binary or void
    duration: float = 0.0  # seconds inside the algorithm
    stdout: str | None = None  # what the algorithm printed, if asked for and yours to see
    request_id: str = ""  # quote it when you ask about a call
    alerts: tuple[str, ...] = ()
    num_items: int = 0  # of a stream: how many items came before its end


@dataclass(frozen=True, slots=True)
class Response:
    """The result of a call: str for text, bytes for binary, None for void, else what the JSON says."""

    result: Any
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """One algorithm in a listing."""

    owner: str
    name: str
    version: str | None = None  # the newest one you may call
    tagline: str = ""
    visibility: str = "public"
    state: str = "published"  # or "built": has no number yet; or "empty": nothing was built; its owner's only


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    results: tuple[_T, ...]
    marker: str | None  # where the next page begins; None: this was the last


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """What `publish` made. `details` is all that the server said about it."""

    owner: str
    name: str
    version: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "/".join(part for part in (self.owner, self.name, self.version) if part)


def read_call(status: int, headers: Mapping[str, str], body: bytes, output: OutputType) -> Response:
    """The answer of a call.

    Raises:
        AlgorithmError: the algorithm failed.
        ApiError: the platform refused.
        BadAnswer: this is no answer of Serai.
    """
    if not _is_success(status):
        raise read_error(status, headers, body)
    request_id = headers.get("x-request-id", "")
    if output is OutputType.raw:
        return _read_raw(headers, body, request_id)
    answer = _object(body)
    if "error" in answer:
        raise read_error(status, headers, body)
    if output is OutputType.void and "metadata" not in answer:
        return Response(None, Metadata("void", request_id=_text(answer.get("request_id")) or request_id))
    metadata = _read_metadata(answer.get("metadata"), request_id)
    return Response(_read_result(answer.get("result"), metadata.content_type), metadata)


def read_exists(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    if _is_success(status):
        return True
    error = read_error(status, headers, body)
    if isinstance(error, NotFound):
        return False
    raise error


def read_page(body: bytes) -> Page[AlgorithmInfo]:
    answer = _object(body)
    results = answer.get("results")
    if not isinstance(results, list):
        raise BadAnswer("the listing has no results")
    return Page(tuple(_read_info(item) for item in results), _text(answer.get("marker")) or None)


def read_publish_line(line: bytes, request_id: str = "") -> str | PublishedVersion:
    """One line of a build: text of the log, or its end. Raises ApiError when the build failed."""
    answer = _object(line)
    if "log" in answer:
        return _text(answer["log"])
    if "error" in answer:
        raise _error_of(answer, 200, {"x-request-id": request_id})
    version = answer.get("version")
    if not isinstance(version, dict):
        raise BadAnswer(f"neither log, version nor error: {_quote(line)}")
    named = [_text(version.get(part)) for part in ("owner", "name", "version")]
    return PublishedVersion(*named, details=version)


def read_object(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """An answer that is one JSON object. Raises ApiError and BadAnswer."""
    if not _is_success(status):
        raise read_error(status, headers, body)
    return _object(body)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> SeraiError:
    """The error that an answer stands for, whatever server or proxy wrote it."""
    try:
        answer = _object(body)
    except BadAnswer:
        answer = {}
    if "error" in answer:
        return _error_of(answer, status, headers)
    if 300 <= status < 400:
        where = headers.get("location", "elsewhere")
        return BadAnswer(f"redirected to {where} (HTTP {status}): set the address to where the server really is")
    message = headers.get("x-error-message") or _quote(body) or "no message"
    return _api_error(message, status, {}, headers)


def _error_of(answer: dict[str, Any], status: int, headers: Mapping[str, str]) -> SeraiError:
    error = answer["error"]
    fields = error if isinstance(error, dict) else {"message": error}
    message = _text(fields.get("message")) or "no message"
    metadata = answer.get("metadata")
    has_run = isinstance(metadata, dict)
    if "code" in fields or not (has_run or "error_type" in fields):
        return _api_error(message, status, fields, headers)
    about = _read_metadata(metadata if has_run else {}, headers.get("x-request-id", ""))
    return AlgorithmError(
        message,
        _text(fields.get("error_type")) or "AlgorithmError",
        _text(fields.get("stacktrace")) or _text(fields.get("stack_trace")),
        duration=about.duration,
        stdout=about.stdout,
        request_id=about.request_id,
    )


def _api_error(message: str, status: int, fields: dict[str, Any], headers: Mapping[str, str]) -> ApiError:
    stated = fields.get("status")
    # Algorithmia's old clients need some refusals as HTTP 200, so the body's word counts where the line says success.
    if _is_success(status) and isinstance(stated, int) and 400 <= stated < 600:
        status = stated
    return class_of_status(status)(
        message,
        status=status,
        code=_text(fields.get("reason")) or _text(fields.get("code")),
        number=_number(fields.get("code")),
        request_id=_text(fields.get("request_id")) or headers.get("x-request-id", ""),
        retriable=fields["retriable"] is True if "retriable" in fields else status in (429, 502, 503),
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def _read_raw(headers: Mapping[str, str], body: bytes, request_id: str) -> Response:
    """The bare result, undecoded: str where the server says text or JSON, else bytes."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind == "application/json":
        metadata = Metadata("json" if kind == "application/json" else "text", request_id=request_id)
        return Response(body.decode("utf-8", "replace"), metadata)
    return Response(body, Metadata("binary", request_id=request_id))


def _read_metadata(fields: Any, request_id: str) -> Metadata:
    if not isinstance(fields, dict):
        raise BadAnswer("the answer has no metadata; is this address a Serai?")
    duration, stdout, alerts = fields.get("duration"), fields.get("stdout"), fields.get("alerts")
    num_items = fields.get("num_items")
    return Metadata(
        _text(fields.get("content_type")) or "json",
        float(duration) if isinstance(duration, int | float) else 0.0,
        stdout if isinstance(stdout, str) else None,
        _text(fields.get("request_id")) or request_id,
        tuple(map(_text, alerts)) if isinstance(alerts, list) else (),
        num_items if isinstance(num_items, int) else 0,
    )


def _read_result(result: Any, content_type: str) -> Any:
    if content_type == "void":
        return None
    if content_type != "binary":
        return result
    try:
        return base64.b64decode(result, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadAnswer("the answer says binary but its result is not base64") from error


def _read_info(item: Any) -> AlgorithmInfo:
    if not isinstance(item, dict) or not _text(item.get("owner")) or not _text(item.get("name")):
        raise BadAnswer("an entry of the listing has no owner and name")
    return AlgorithmInfo(
        _text(item["owner"]),
        _text(item["name"]),
        _text(item.get("version")) or None,
        _text(item.get("tagline")),
        _text(item.get("visibility")) or "public",
        _text(item.get("state")) or "published",
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not JSON; is this address a Serai? It began: {_quote(body)}") from error
    if not isinstance(answer, dict):
        raise BadAnswer(f"the answer is not a JSON object: {_quote(body)}")
    return answer


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _text(value: Any) -> str:
    """A string from outside; numbers (Algorithmia's error codes are some) in digits, anything else empty."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _quote(body: bytes) -> str:
    return body[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace")[:_QUOTED_CHARACTERS]


class LineSplitter:
    """Cuts chunks of bytes into lines at newlines only: JSON text may hold every other separator Unicode knows."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        first, *others = chunk.split(b"\n")
        self._rest += first
        for other in others:
            yield from self.end()
            self._rest += other
        if len(self._rest) > MAX_LINE_BYTES:
            raise BadAnswer(f"a line of the build's log is longer than {MAX_LINE_BYTES} bytes")

    def end(self) -> Iterator[bytes]:
        rest, self._rest = bytes(self._rest), bytearray()
        if rest.strip():
            yield rest
