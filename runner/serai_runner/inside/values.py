"""Inputs and results as bytes. JSON is strict both ways: no NaN, and the place of an offence is named."""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from itertools import accumulate
from typing import Any

#: A result of one call. The gateway refuses larger ones, so they are not worth sending.
MAX_RESULT_BYTES = 10 * 1024 * 1024


class InputRefused(ValueError):
    """The input cannot be read as what its content type says."""

    error_type = "ParsingError"


class ResultRefused(ValueError):
    """`apply` returned what cannot be sent."""

    error_type = "AlgorithmError"


class ResultTooLarge(ResultRefused):
    error_type = "TooLargeError"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    """NumPy's arrays and scalars, and what imitates them, without importing it."""
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError
    return to_list()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


def _check_depth(text: str) -> None:
    """Raises ValueError. Right for well-formed text, which the parser sees next."""
    brackets = _STRING.sub("", text).encode("ascii", "replace").translate(_TO_STEPS, _NOT_BRACKETS)
    if max(accumulate(array("b", brackets)), default=0) > MAX_DEPTH:
        raise ValueError(f"nesting exceeds {MAX_DEPTH}: flatten the value")


#: As the gateway's, which looks at the values of small inputs only.
MAX_DEPTH = 100
_LARGE_CHARACTERS = 16 * 1024
#: Possessive, where Python has that: a pattern that could go back would remember 10 MiB of places to go back to.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"' if sys.version_info >= (3, 11) else r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

_parse = json.JSONDecoder(parse_constant=_refuse_constant).decode
_parse_large = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
_format = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def decode_input(content_type: str, payload: bytes) -> Any:
    """Raises InputRefused."""
    if content_type == "json":
        try:
            text = payload.decode()
            if len(text) < _LARGE_CHARACTERS:
                return _parse(text)
            _check_depth(text)
            return _parse_large(text)
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            raise InputRefused(f"input is not JSON: {error}") from None
    if content_type == "text":
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise InputRefused(f"input is not UTF-8: {error}") from None
    return payload if content_type == "binary" else None


def encode_result(value: Any) -> tuple[str, bytes | memoryview]:
    """(content type, payload). Raises ResultRefused."""
    if isinstance(value, str):
        content_type, payload = "text", _utf8(value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        content_type = "binary"
        payload = bytes(value) if isinstance(value, bytearray) else value
        if isinstance(payload, memoryview):
            payload = payload.tobytes()
    elif value is None:
        return "void", b""
    else:
        content_type, payload = "json", encode_json(value)
    if len(payload) > MAX_RESULT_BYTES:
        raise ResultTooLarge(f"the result has {len(payload)} bytes; at most 10 MiB ({MAX_RESULT_BYTES}): return less")
    return content_type, payload


def encode_json(value: Any) -> bytes:
    """Raises ResultRefused."""
    try:
        return _format(value).encode()
    except MemoryError:
        raise
    except Exception as error:
        raise ResultRefused(f"result is not JSON: {find_offence(value) or error}") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ResultRefused(f"result is not Unicode text: {error}") from None


def find_offence(value: Any, path: str = "$", parents: tuple[int, ...] = ()) -> str | None:
    """What in `value` is not JSON and where: "NaN at $.a[3]"."""
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, float):
        is_finite = value - value == 0.0
        return None if is_finite else f"{_constant(value)} at {path}"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"text with a lone surrogate at {path}"
        return None
    if id(value) in parents:
        return f"a reference to its own container at {path}"
    if len(parents) > 200:
        return f"nesting deeper than 200 at {path}"
    parents = (*parents, id(value))
    if isinstance(value, dict):
        return _find_in_dict(value, path, parents)
    if isinstance(value, (list, tuple)):
        found = (find_offence(item, f"{path}[{index}]", parents) for index, item in enumerate(value))
        return next((offence for offence in found if offence), None)
    if hasattr(value, "tolist"):
        return find_offence(value.tolist(), path, parents)
    return f"{type(value).__name__} at {path}"


def _find_in_dict(value: dict[Any, Any], path: str, parents: tuple[int, ...]) -> str | None:
    for key, item in value.items():
        if not isinstance(key, (str, int, float, bool, type(None))):
            return f"a key of type {type(key).__name__} at {path}"
        offence = find_offence(key, f"{path} (a key)") or find_offence(item, f"{path}.{key}", parents)
        if offence:
            return offence
    return None


def _constant(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
