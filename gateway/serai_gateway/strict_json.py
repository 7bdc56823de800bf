"""Is this JSON, strictly? Bodies pass through undecoded, so this is the one place that says yes or no.

Refused: malformed text, NaN and infinities, numbers out of range, lone surrogates, broken UTF-8, deep nesting.

Reading a number costs up to 8 µs with the interpreter's lock held, and 10 MiB hold a million of them. So of a large
text only the grammar is checked here, 2 ms for a MiB; who reads its values (the replica, the device worker) refuses
what is out of range or too deep, on the caller's own time. The device worker does so for small ones as well.
"""

import re
from array import array
from itertools import accumulate

import msgspec

#: Deepest nesting of arrays and objects. Parsers of most languages recurse; hostile input uses that.
MAX_DEPTH = 100

#: Texts from this size on are checked in a thread, and without looking at their values.
LARGE_BYTES = 64 * 1024

_decode = msgspec.json.Decoder().decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


class NotJson(ValueError):
    """The text is not strict JSON; the message says where and why."""


def check_json(text: bytes, grammar_only: bool = False) -> None:
    """Raises NotJson unless `text` is one JSON value, strictly; of a large one only its grammar is looked at."""
    grammar_only = grammar_only or len(text) >= LARGE_BYTES
    if not grammar_only and text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise NotJson(f"nesting exceeds {MAX_DEPTH}: flatten the value")
    try:
        if grammar_only:
            _skip(text)
            text.decode()
        else:
            _decode(text)
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8: {error.reason} at byte {error.start} of a string") from error
    except msgspec.ValidationError as error:
        raise NotJson(str(error)) from error
    except msgspec.DecodeError as error:
        raise NotJson(_explain(text, str(error))) from error
    except RecursionError as error:
        raise NotJson(f"nesting exceeds {MAX_DEPTH}: flatten the value") from error


def _depth(text: bytes) -> int:
    """Deepest nesting, counted outside strings; right for well-formed text, and enough to refuse the rest."""
    brackets = _STRING.sub(b"", text).translate(_TO_STEPS, _NOT_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


def _explain(text: bytes, reason: str) -> str:
    if not text.strip():
        return "the body is empty; send null for no input"
    place = re.search(r"byte (\d+)", reason)
    at = int(place[1]) if place else 0
    found = re.search(rb"(?<![\w\"])-?(?:NaN|Infinity)(?![\w\"])", text[max(0, at - 10) : at + 16])
    if found:
        return f"{found[0].decode()} is not JSON; send null or a string"
    if reason.endswith("truncated") and _SURROGATE.search(text[:65536]):
        return "an escape such as \\ud800 without its other half is no character"
    return reason[0].lower() + reason[1:] if not reason.startswith("JSON") else reason
