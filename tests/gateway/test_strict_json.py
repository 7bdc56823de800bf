"""What counts as JSON, and that the explanation helps."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gateway.strict_json import MAX_DEPTH, NotJson, check_json

_text = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner) | st.dictionaries(_text, inner),
)


@given(_values)
def test_what_a_strict_encoder_writes_passes(value: object) -> None:
    check_json(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "send null"),
        (b"   ", "send null"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": [1, -Infinity]}', "-Infinity is not JSON"),
        (b"[1e999]", "out of range"),
        (b'"\\ud800"', "without its other half"),
        (b'["\xff"]', "not UTF-8"),
        (b"1" * 5000, "out of range"),
        (b"[1]x", "trailing"),
        (b"{'a': 1}", "malformed"),
        (b'{"a": 1', "truncated"),
        (b"01", "invalid number"),
    ],
)
def test_what_is_not_json_is_refused_with_the_reason(text: bytes, says: str) -> None:
    with pytest.raises(NotJson, match=says):
        check_json(text)


def test_nesting_is_allowed_up_to_the_limit_and_not_beyond() -> None:
    check_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(NotJson, match="nesting exceeds 100"):
        check_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("depth", [1_100, 100_000, 250_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_absurd_nesting_is_refused_without_recursion(opening: bytes, depth: int) -> None:
    with pytest.raises(NotJson, match="nesting exceeds"):
        check_json(opening * depth)


def test_brackets_inside_strings_are_not_nesting() -> None:
    check_json(json.dumps(["[" * 500, '\\"[[[' * 100]).encode())


def test_many_flat_arrays_are_not_nesting() -> None:
    check_json(json.dumps([[] for _ in range(5_000)]).encode())
