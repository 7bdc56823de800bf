"""What the clients ask: pure functions from arguments to a `Request`. The two clients only send them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import quote

#: Algorithmia's default for a call, and the longest we wait for an answer when no timeout was asked for.
DEFAULT_TIMEOUT_S = 300.0

#: The server ends a call at its timeout and says so; the client waits this much longer for that answer.
TIMEOUT_MARGIN_S = 10.0

#: The longest silence of a call that answers with events: the server gives a sign of life every 15 s.
STREAM_QUIET_S = 60.0

#: For listings and look-ups, which the server answers from its catalogue.
LOOKUP_TIMEOUT_S = 30.0

#: The longest silence while a version is built. Installing packages may be quiet for up to 15 minutes.
PUBLISH_QUIET_S = 1000.0

#: Algorithms a page of the listing asks for.
PAGE_LENGTH = 100

_REFERENCE = re.compile(
    r"(?:algo://|/)?(?P<owner>[A-Za-z0-9_][A-Za-z0-9_.-]*)/(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?:/(?P<version>[A-Za-z0-9][A-Za-z0-9.*_+-]*))?/?"
)

_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*/[A-Za-z][A-Za-z0-9_-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)?")

#: What may be asked of the pool for one model.
POOL_VERBS = ("load", "unload", "pin", "unpin")

#: A load of gigabytes from a cold disk takes minutes, and the server gives it five.
STEER_TIMEOUT_S = 330.0

OutputType = Enum("OutputType", ["default", "raw", "void"])
OutputType.__doc__ = (
    "How a call answers: `default` JSON with metadata, `raw` the bare result, `void` at once without it."
)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request before it is sent. `path` begins with a slash and is already quoted."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    timeout_s: float = LOOKUP_TIMEOUT_S  # how long to wait for the answer


@dataclass(frozen=True, slots=True)
class Reference:
    """Which algorithm, and which version of it if one was named."""

    owner: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return "/".join((self.owner, self.name) if self.version is None else (self.owner, self.name, self.version))


@dataclass(frozen=True, slots=True)
class Options:
    """How to call. `timeout_s` None leaves it to the server."""

    timeout_s: float | None = None
    stdout: bool = False
    output: OutputType = OutputType.default
    query: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Payload:
    """Input that is already encoded."""

    content_type: str
    content: bytes


def parse_reference(text: str) -> Reference:
    """`owner/name`, `owner/name/1.2` or either with `algo://` in front.

    Raises:
        ValueError: the text is no such name.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an algorithm: write OWNER/NAME or OWNER/NAME/VERSION")
    return Reference(match["owner"], match["name"], match["version"])


def make_options(timeout: float | None, stdout: bool, output: OutputType | str, query: Mapping[str, Any]) -> Options:
    """Checked options.

    Raises:
        ValueError: the timeout is not positive or the output type is unknown.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is in seconds and must be above 0, not {timeout!r}")
    if isinstance(output, str):
        if output not in OutputType.__members__:
            raise ValueError(f"output must be one of {', '.join(OutputType.__members__)}, not {output!r}")
        output = OutputType[output]
    return Options(timeout, stdout, output, tuple((name, str(value)) for name, value in query.items()))


def call_request(reference: Reference, data: Any, options: Options) -> Request:
    """Raises TypeError or ValueError when `data` cannot be sent."""
    payload = encode_input(data)
    query: list[tuple[str, str]] = []
    if options.timeout_s is not None:
        query.append(("timeout", f"{options.timeout_s:g}"))
    if options.stdout:
        query.append(("stdout", "true"))
    if options.output is not OutputType.default:
        query.append(("output", options.output.name))
    waiting_s = DEFAULT_TIMEOUT_S if options.timeout_s is None else options.timeout_s
    return Request(
        "POST",
        "/v1/algo/" + quote(str(reference), safe="/*"),
        (*query, *options.query),
        {"Content-Type": payload.content_type},
        payload.content,
        waiting_s + TIMEOUT_MARGIN_S,
    )


def stream_request(reference: Reference, data: Any, options: Options) -> Request:
    """A call that answers with events. Raises TypeError or ValueError when it cannot be sent."""
    if options.output is not OutputType.default:
        raise ValueError(f"a stream has no output={options.output.name}; leave it out of set_options")
    request = call_request(reference, data, options)
    headers = {**request.headers, "Accept": "text/event-stream"}
    return replace(request, headers=headers, timeout_s=STREAM_QUIET_S)


def exists_request(reference: Reference) -> Request:
    return Request("GET", f"/v1/algorithms/{quote(reference.owner)}/{quote(reference.name)}")


def listing_request(query: str, owner: str | None, marker: str | None) -> Request:
    fields = [("q", query)] if query else []
    if owner:
        fields.append(("owner", owner))
    fields.append(("limit", str(PAGE_LENGTH)))
    if marker is not None:
        fields.append(("marker", marker))
    return Request("GET", "/v1/algorithms", tuple(fields))


def publish_request(num_bytes: int, visibility: str | None) -> Request:
    """The request without its body, which is sent from a file.

    Raises:
        ValueError: the visibility is not one.
    """
    if visibility not in (None, "public", "private"):
        raise ValueError(f"visibility must be 'public' or 'private', not {visibility!r}")
    headers = {"Content-Type": "application/gzip", "Content-Length": str(num_bytes)}
    query = () if visibility is None else (("visibility", visibility),)
    return Request("POST", "/v1/publish", query, headers, timeout_s=PUBLISH_QUIET_S)


def pool_request() -> Request:
    return Request("GET", "/v1/pool")


def steer_request(verb: str, model: str, version: str | None) -> Request:
    """Raises ValueError: no such verb, or `model` is no `owner/name` or `owner/name/model`."""
    if verb not in POOL_VERBS:
        raise ValueError(f"there is no {verb!r} for the pool; there are {', '.join(POOL_VERBS)}")
    if _MODEL.fullmatch(model) is None:
        raise ValueError(f"{model!r} is not a model: write OWNER/NAME or OWNER/NAME/MODEL")
    query = () if version is None else (("version", version),)
    return Request("POST", f"/v1/pool/models/{model}/{verb}", query, timeout_s=STEER_TIMEOUT_S)


def encode_input(data: Any) -> Payload:
    """A str travels as text, bytes as they are, everything else as JSON (arrays by their `tolist`).

    Raises:
        TypeError: something in `data` has no JSON form.
        ValueError: a number is NaN or infinite, which JSON cannot say.
    """
    if isinstance(data, Payload):
        return data
    if isinstance(data, str):
        return Payload("text/plain", data.encode())
    if isinstance(data, bytes | bytearray | memoryview):
        return Payload("application/octet-stream", bytes(data))
    try:
        text = json.dumps(data, default=_to_json, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("the input is nested too deeply for JSON, or contains itself") from None
    return Payload("application/json", text.encode())


def _to_json(value: Any) -> Any:
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes inside JSON have no standard form: send bytes alone, or base64 text")
    raise TypeError(f"{type(value).__name__} has no JSON form; send JSON values, str, bytes or arrays")
