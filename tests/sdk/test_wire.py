"""What is asked and what is made of the answer: the pure half of the clients."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from serai import errors
from serai._requests import (
    OutputType,
    Payload,
    call_request,
    encode_input,
    make_options,
    parse_reference,
    publish_request,
)
from serai._responses import (
    MAX_LINE_BYTES,
    LineSplitter,
    PublishedVersion,
    read_call,
    read_error,
    read_page,
    read_publish_line,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vision/classify", ("vision", "classify", None)),
        ("vision/classify/1.2.0", ("vision", "classify", "1.2.0")),
        ("algo://vision/classify/1.*", ("vision", "classify", "1.*")),
        ("/vision/classify/", ("vision", "classify", None)),
        ("a/b/" + "0f" * 20, ("a", "b", "0f" * 20)),
    ],
)
def test_an_algorithm_may_be_written_in_all_of_algorithmias_ways(text: str, parts: tuple[str, str, str | None]):
    reference = parse_reference(text)
    assert (reference.owner, reference.name, reference.version) == parts


@pytest.mark.parametrize(
    "text", ["", "classify", "a/b/c/d", "../b", "a/../b", "a/b/..", "a/b?x=1", "a/b\n", "http://a/b", "a b/c", "ä/b"]
)
def test_what_is_no_algorithm_is_refused(text: str):
    with pytest.raises(ValueError, match="OWNER/NAME"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("data", "content_type", "content"),
    [
        ("Grüße", "text/plain", "Grüße".encode()),
        ("", "text/plain", b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (bytearray(b"ab"), "application/octet-stream", b"ab"),
        (memoryview(b"ab"), "application/octet-stream", b"ab"),
        (None, "application/json", b"null"),
        (True, "application/json", b"true"),
        ({"a": [1, 2.5, "ü"]}, "application/json", '{"a":[1,2.5,"ü"]}'.encode()),
        (np.array([[1, 2], [3, 4]]), "application/json", b"[[1,2],[3,4]]"),
        ({"x": np.float32(0.5)}, "application/json", b'{"x":0.5}'),
        (Payload("text/plain", b"as it is"), "text/plain", b"as it is"),
    ],
)
def test_the_type_of_the_input_chooses_how_it_travels(data: Any, content_type: str, content: bytes):
    assert encode_input(data) == Payload(content_type, content)


@pytest.mark.parametrize("data", [float("nan"), {"a": [float("inf")]}, np.array([np.nan])])
def test_numbers_that_json_cannot_say_are_refused(data: Any):
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_input(data)


def test_bytes_inside_json_and_other_objects_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match="base64"):
        encode_input({"image": b"\x00"})
    with pytest.raises(TypeError, match="object has no JSON form"):
        encode_input(object())


def test_an_input_that_contains_itself_is_refused():
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError):
        encode_input(endless)


def test_a_call_says_only_what_was_asked_for():
    reference = parse_reference("a/b/1.*")
    plain = call_request(reference, 1, make_options(None, False, OutputType.default, {}))
    assert (plain.path, plain.query, plain.timeout_s) == ("/v1/algo/a/b/1.*", (), 310.0)
    full = call_request(reference, 1, make_options(0.5, True, "raw", {"trace": 1}))
    assert full.query == (("timeout", "0.5"), ("stdout", "true"), ("output", "raw"), ("trace", "1"))
    assert full.timeout_s == 10.5


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(timeout: float):
    with pytest.raises(ValueError, match="seconds"):
        make_options(timeout, False, OutputType.default, {})


def test_unknown_output_and_visibility_are_refused():
    with pytest.raises(ValueError, match="default, raw, void"):
        make_options(None, False, "row", {})
    with pytest.raises(ValueError, match="'public' or 'private'"):
        publish_request(1, "secret")


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def call_body(result: Any, content_type: str, **metadata: Any) -> bytes:
    return body({"result": result, "metadata": {"content_type": content_type, "duration": 0.25, **metadata}})


@pytest.mark.parametrize(
    ("result", "content_type", "expected"),
    [
        ("hi", "text", "hi"),
        ({"a": [1]}, "json", {"a": [1]}),
        (base64.b64encode(b"\x00\xff").decode(), "binary", b"\x00\xff"),
        (None, "void", None),
        (None, "json", None),
    ],
)
def test_results_are_what_their_content_type_says(result: Any, content_type: str, expected: Any):
    response = read_call(200, {}, call_body(result, content_type), OutputType.default)
    assert response.result == expected
    assert response.metadata.content_type == content_type
    assert response.metadata.duration == 0.25


def test_metadata_carries_stdout_request_id_and_alerts():
    answer = call_body(1, "json", stdout="x\n", request_id="req-7", alerts=["old"])
    metadata = read_call(200, {"x-request-id": "req-other"}, answer, OutputType.default).metadata
    assert (metadata.stdout, metadata.request_id, metadata.alerts) == ("x\n", "req-7", ("old",))
    bare = read_call(200, {"x-request-id": "req-8"}, call_body(1, "json"), OutputType.default).metadata
    assert (bare.stdout, bare.request_id, bare.alerts) == (None, "req-8", ())


def test_raw_output_is_the_body_undecoded():
    headers = {"content-type": "application/json", "x-request-id": "req-9"}
    response = read_call(200, headers, b'{"a": 1}', OutputType.raw)
    assert (response.result, response.metadata.request_id) == ('{"a": 1}', "req-9")
    text = read_call(200, {"content-type": "text/plain; charset=utf-8"}, "ü".encode(), OutputType.raw)
    assert text.result == "ü"
    assert read_call(200, {"content-type": "application/octet-stream"}, b"\xff", OutputType.raw).result == b"\xff"


def test_void_output_has_a_request_id_and_no_result():
    response = read_call(200, {}, body({"async": True, "request_id": "req-1"}), OutputType.void)
    assert (response.result, response.metadata.content_type, response.metadata.request_id) == (None, "void", "req-1")


FAILED = {
    "error": {"message": "no face", "error_type": "InputError", "stacktrace": "trace"},
    "metadata": {"duration": 0.5, "stdout": "so far", "request_id": "req-2"},
}


@pytest.mark.parametrize(("status", "output"), [(200, OutputType.default), (400, OutputType.raw)])
def test_an_algorithms_failure_is_an_algorithm_error(status: int, output: OutputType):
    with pytest.raises(errors.AlgorithmError) as caught:
        read_call(status, {}, body(FAILED), output)
    error = caught.value
    assert (error.error_type, error.message, error.stacktrace) == ("InputError", "no face", "trace")
    assert (error.duration, error.stdout, error.request_id) == (0.5, "so far", "req-2")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthorized),
        (402, errors.PaymentRequired),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.InvalidRequest),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.ServerFault),
        (502, errors.ServerFault),
        (503, errors.Unavailable),
        (504, errors.DeadlineExceeded),
    ],
)
def test_each_refusal_has_its_class(status: int, kind: type[errors.ApiError]):
    error = {"code": "some_code", "type": "T", "message": "why", "status": status, "request_id": "r", "retriable": True}
    # Some of Algorithmia's clients read an error only from a 200; the body says what it really is.
    for sent in (status, 200):
        got = read_error(sent, {"retry-after": "3"}, body({"error": error}))
        assert type(got) is kind
        assert isinstance(got, errors.ApiError)
        assert (got.status, got.code, got.message, got.request_id) == (status, "some_code", "why", "r")
        assert (got.retriable, got.retry_after_s) == (True, 3.0)


@pytest.mark.parametrize(
    ("answer", "message", "code"),
    [
        (body({"error": "No such algorithm"}), "No such algorithm", ""),
        (body({"error": {"id": "x", "code": 2001, "message": "not you"}}), "not you", "2001"),
        (b"<html>gateway</html>", "<html>gateway</html>", ""),
        (b"", "no message", ""),
        (body([1]), "[1]", ""),
        (b"[" * 100_000, "[" * 200, ""),
    ],
)
def test_refusals_in_older_and_foreign_forms_are_read_too(answer: bytes, message: str, code: str):
    error = read_error(503, {}, answer)
    assert isinstance(error, errors.Unavailable)
    assert (error.message, error.code, error.retriable) == (message, code, True)


def test_a_redirect_is_not_followed_but_explained():
    error = read_error(301, {"location": "https://b.example/"}, b"")
    assert isinstance(error, errors.BadAnswer)
    assert "https://b.example/" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"hello",
        b"\xff\xfe",
        b"[]",
        b'{"result": 1}',
        b'{"result": 1, "metadata": 3}',
        call_body("not base64!", "binary"),
        call_body(5, "binary"),
    ],
)
def test_an_answer_that_is_not_serais_is_a_bad_answer(answer: bytes):
    with pytest.raises(errors.BadAnswer):
        read_call(200, {}, answer, OutputType.default)


@pytest.mark.parametrize(
    "answer",
    [{}, {"results": 1}, {"results": [1]}, {"results": [{"owner": "a"}]}, {"results": [{"owner": 1, "name": []}]}],
)
def test_a_listing_that_is_none_is_a_bad_answer(answer: Any):
    with pytest.raises(errors.BadAnswer):
        read_page(body(answer))


def test_a_build_ends_in_a_version_or_an_error():
    assert read_publish_line(body({"log": "compiling"})) == "compiling"
    done = read_publish_line(body({"version": {"owner": "a", "name": "b", "version": "1.0.0", "hash": "ff"}}))
    assert isinstance(done, PublishedVersion)
    assert (str(done), done.details["hash"]) == ("a/b/1.0.0", "ff")
    refusal = {"code": "unprocessable", "message": "limits.memory: no size", "status": 422}
    with pytest.raises(errors.InvalidRequest, match="no size"):
        read_publish_line(body({"error": refusal}))
    with pytest.raises(errors.ApiError, match="build failed"):
        read_publish_line(body({"error": {"message": "build failed"}}))
    with pytest.raises(errors.BadAnswer):
        read_publish_line(b"{}")


def test_lines_are_cut_at_newlines_only_wherever_the_chunks_end():
    text = '{"log": "a\u2028b\x85c"}\n\n{"log": "d"}\r\nlast'.encode()
    for size in (1, 2, 7, len(text)):
        splitter = LineSplitter()
        lines = [line for at in range(0, len(text), size) for line in splitter.feed(text[at : at + size])]
        lines += splitter.end()
        assert [line.strip() for line in lines] == ['{"log": "a\u2028b\x85c"}'.encode(), b'{"log": "d"}', b"last"]


def test_a_line_without_end_is_not_collected_for_ever():
    splitter = LineSplitter()
    with pytest.raises(errors.BadAnswer, match="longer than"):
        for _ in range(MAX_LINE_BYTES // 1000 + 2):
            list(splitter.feed(b"x" * 1000))
