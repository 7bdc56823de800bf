"""What a call's request says, read and checked without its body: pure functions of path, query and headers.

Callers repeat themselves, so what a path, a query and a content type mean is remembered.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl

from serai.ipc.messages import ContentType
from serai_gateway.errors import InvalidRequest, NotFound, Unauthenticated, UnsupportedType
from serai_gateway.settings import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S

Headers = list[tuple[bytes, bytes]]

#: Longest key that is looked at; ours have 28 characters, a bearer token may be longer.
MAX_KEY_CHARACTERS = 4096

#: How many different paths, queries and content types are remembered; a few hundred bytes each.
_REMEMBERED = 4096

#: Most options of a call; three are known.
_MAX_OPTIONS = 100

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
#: No owner has such a name, see `catalogue.check_name`.
_ID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.*_-]{0,63}")

_CONTENT_TYPES: dict[str, ContentType] = {
    "application/json": "json",
    "text/plain": "text",
    "application/text": "text",
    "application/octet-stream": "binary",
}
#: Files as a browser or curl names them: bytes to us; the type chooses no decoder.
_BINARY_FAMILIES = ("image/", "audio/", "video/")
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")

_ACCEPTED = "application/json, text/plain or application/octet-stream"


@dataclass(frozen=True, slots=True)
class Target:
    """Which algorithm, as the caller wrote it: by name, or by id."""

    owner: str
    name: str
    version: str | None
    algorithm_id: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    timeout_s: float = DEFAULT_TIMEOUT_S
    output: Literal["default", "raw"] = "default"
    stdout: bool = False


_DEFAULTS = Options()


@lru_cache(_REMEMBERED)
def parse_target(path: str) -> Target:
    """`OWNER/NAME[/VERSION][/]` or `ID[/VERSION][/]`, also with `algo://` in front, as Node's client sends it."""
    path = path.removeprefix("algo://").strip("/")
    parts = path.split("/")
    if _ID.fullmatch(parts[0]):
        id = parts[0].replace("-", "").lower()
        if len(parts) > 2 or (len(parts) == 2 and not _VERSION.fullmatch(parts[1])):
            raise NotFound(f"algorithm algo://{path[:200]} not found")
        return Target("", "", parts[1] if len(parts) == 2 else None, id)
    if not 2 <= len(parts) <= 3 or not all(_NAME.fullmatch(part) for part in parts[:2]):
        raise NotFound(f"algorithm algo://{path[:200]} not found")
    version = parts[2] if len(parts) == 3 else None
    if version is not None and not _VERSION.fullmatch(version):
        raise NotFound(f"algorithm algo://{path[:200]} not found")
    return Target(parts[0], parts[1], version)


@lru_cache(_REMEMBERED)
def parse_options(query: bytes) -> Options:
    """`timeout` in seconds, `stdout`, `output`. Unknown options are ignored, as they always were."""
    if not query:
        return _DEFAULTS
    values: dict[str, str] = {}
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_OPTIONS)
    except ValueError as error:
        raise InvalidRequest(f"more than {_MAX_OPTIONS} options") from error
    for name, value in fields:
        if name in values and name in ("timeout", "stdout", "output"):
            raise InvalidRequest(f"option {name!r} is given twice; give it once")
        values[name] = value
    return Options(
        timeout_s=_timeout(values.get("timeout")),
        output=_output(values.get("output")),
        stdout=_stdout(values.get("stdout")),
    )


def _timeout(text: str | None) -> float:
    if text is None:
        return DEFAULT_TIMEOUT_S
    seconds = float(text) if _SECONDS.fullmatch(text) else math.nan
    if not 0 < seconds <= MAX_TIMEOUT_S:  # NaN compares false
        raise InvalidRequest(f"timeout must be a number of seconds above 0 and at most {MAX_TIMEOUT_S:g}")
    return seconds


def _output(text: str | None) -> Literal["default", "raw"]:
    if text is None or text in ("default", "raw"):
        return text or "default"  # pyright: ignore[reportReturnType]
    if text == "void":
        raise InvalidRequest(
            "output=void starts a job, and this server has none yet; leave output out to wait for the result"
        )
    raise InvalidRequest("output must be raw, or left out")


def _stdout(text: str | None) -> bool:
    if text is None or text.lower() in ("false", "0", ""):
        return False
    if text.lower() in ("true", "1"):
        return True
    raise InvalidRequest("stdout must be true or false")


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """The header's value, or None. Raises InvalidRequest when it is there twice: which one counts is a trap."""
    found = None
    for key, value in headers:
        if key == name:
            if found is not None:
                raise InvalidRequest(f"header {name.decode()!r} is given twice; send it once")
            found = value
    return found


def parse_key(headers: Headers) -> str:
    """The API key, from `Authorization: KEY`, `Simple KEY` or `Bearer KEY`."""
    raw = find_header(headers, b"authorization")
    if raw is None:
        raise Unauthenticated("authorization required: send your API key as `Authorization: Simple KEY`")
    text = raw.decode("latin-1").strip()
    scheme, _, rest = text.partition(" ")
    key = rest.strip() if scheme.lower() in ("simple", "bearer") else text
    if not key or len(key) > MAX_KEY_CHARACTERS or not key.isascii() or " " in key:
        raise Unauthenticated("unknown or invalid API key")
    return key


def parse_content_type(headers: Headers) -> ContentType:
    encoding = find_header(headers, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedType("compressed bodies are not accepted; send the body as it is")
    raw = find_header(headers, b"content-type")
    if raw is None:
        raise UnsupportedType(f"no Content-Type; send {_ACCEPTED}")
    return _parse_content_type(raw)


@lru_cache(_REMEMBERED)
def _parse_content_type(raw: bytes) -> ContentType:
    kind, *parameters = (part.strip().lower() for part in raw.decode("latin-1").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip("\"'") not in _CHARSETS:
            raise UnsupportedType("only charset=utf-8 is accepted")
    if kind in _CONTENT_TYPES:
        return _CONTENT_TYPES[kind]
    if kind.startswith(_BINARY_FAMILIES):
        return "binary"
    hint = " (curl -d sends forms unless told otherwise)" if kind == "application/x-www-form-urlencoded" else ""
    raise UnsupportedType(f"Content-Type {kind[:100]!r} is not accepted{hint}; send {_ACCEPTED}")
