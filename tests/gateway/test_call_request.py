"""What a call's path, query and headers mean."""

import pytest

from serai_gateway.api.call_request import (
    Options,
    Target,
    parse_content_type,
    parse_key,
    parse_options,
    parse_target,
)
from serai_gateway.errors import InvalidRequest, NotFound, Unauthenticated, UnsupportedType


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("demo/Hello", Target("demo", "Hello", None)),
        ("demo/Hello/", Target("demo", "Hello", None)),
        ("demo/Hello/0.1.1", Target("demo", "Hello", "0.1.1")),
        ("demo/Hello/1.*", Target("demo", "Hello", "1.*")),
        ("algo://demo/Hello/latest", Target("demo", "Hello", "latest")),
        ("nlp/Summarizer_2/" + "a" * 40, Target("nlp", "Summarizer_2", "a" * 40)),
    ],
)
def test_paths_name_owner_algorithm_and_version(path: str, target: Target) -> None:
    assert parse_target(path) == target


@pytest.mark.parametrize(
    "path",
    ["", "demo", "demo/", "/", "a/b/c/d", "../../etc", "demo/he llo", "demo/-x", "0/a", "demo/x/..", "d\x00/x", "é/x"],
)
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        parse_target(path)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        (b"", Options()),
        (b"timeout=60&stdout=True", Options(timeout_s=60, stdout=True)),  # as Python's client spells it
        (b"timeout=300&stdout=False&output=raw", Options(output="raw")),
        (b"timeout=0.5&unknown=1&unknown=2", Options(timeout_s=0.5)),
        (b"timeout=3000", Options(timeout_s=3000)),
    ],
)
def test_options_are_read_as_clients_send_them(query: bytes, options: Options) -> None:
    assert parse_options(query) == options


@pytest.mark.parametrize(
    "query",
    [
        b"timeout=0",
        b"timeout=-1",
        b"timeout=NaN",
        b"timeout=1e9",
        b"timeout=3000.1",
        b"timeout=abc",
        b"timeout=",
        b"timeout=1&timeout=2",
        b"output=raw&output=raw",
        b"output=xml",
        b"output=void",
        b"stdout=maybe",
    ],
)
def test_bad_options_are_refused(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_options(query)


@pytest.mark.parametrize(
    "value", [b"simKEY", b"Simple simKEY", b"simple simKEY", b"Bearer simKEY", b"  Simple   simKEY  "]
)
def test_three_authorization_forms_name_the_same_key(value: bytes) -> None:
    assert parse_key([(b"host", b"x"), (b"authorization", value)]) == "simKEY"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Simple")],
        [(b"authorization", b"Simple ")],
        [(b"authorization", b"Simple a b")],
        [(b"authorization", b"k" * 5000)],
        [(b"authorization", "schlüssel".encode())],
    ],
)
def test_no_key_or_no_possible_key_is_unauthenticated(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        parse_key(headers)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"application/json", "json"),
        (b"application/json; charset=utf-8", "json"),
        (b'Text/Plain;charset="UTF-8"', "text"),
        (b"application/text", "text"),
        (b"application/octet-stream", "binary"),
        (b"image/jpeg", "binary"),
    ],
)
def test_content_types_choose_how_the_input_is_given(value: bytes, kind: str) -> None:
    assert parse_content_type([(b"content-type", value)]) == kind


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([], "no Content-Type"),
        ([(b"content-type", b"application/x-python-pickle")], "not accepted"),
        ([(b"content-type", b"application/vnd.bentoml+pickle")], "not accepted"),
        ([(b"content-type", b"application/json; charset=utf-7")], "utf-8"),
        ([(b"content-type", b"application/x-www-form-urlencoded")], "curl"),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], "compressed"),
    ],
)
def test_other_content_types_are_refused_with_the_way_out(headers: list[tuple[bytes, bytes]], says: str) -> None:
    with pytest.raises(UnsupportedType, match=says):
        parse_content_type(headers)
