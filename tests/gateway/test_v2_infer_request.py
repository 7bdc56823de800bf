"""Bodies of inference requests: what is understood, what is refused, and that nothing hostile gets further."""

import json
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.ipc.messages import Infer, Wanted, Written, encode
from serai_gateway.api.v2.infer_request import (
    MAX_INFER_BYTES,
    MAX_JSON_BYTES,
    MAX_JSON_LISTS,
    MAX_JSON_NUMBERS,
    MAX_RANK,
    MAX_TENSORS,
    parse_infer,
    read_header_length,
)
from serai_gateway.errors import InvalidRequest, PlatformError, TooLarge

X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}
RAW_X = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def test_json_stays_text() -> None:
    request = parse_infer(
        b'{"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [[1.50], [2]]}]}', None
    )
    assert request.inputs == (Written("x", "float32", (2, 1), 13),)
    assert bytes(request.payload) == b"[[1.50], [2]]"
    assert (request.as_json, request.outputs, request.id) == (True, (), "")
    assert (request.priority, request.timeout_s) == (0, None)


def test_binary_data_is_not_copied() -> None:
    head = body(RAW_X, {**RAW_X, "name": "y"})
    whole = head + struct.pack("<4f", 1, 2, 3, 4)
    request = parse_infer(whole, len(head))
    assert request.inputs == (Written("x", "float32", (2,)), Written("y", "float32", (2,)))
    assert isinstance(request.payload, memoryview)
    assert request.payload.obj is whole
    assert struct.unpack("<4f", request.payload) == (1, 2, 3, 4)


def test_binary_and_json_may_be_mixed_in_one_request() -> None:
    head = body(X, {**RAW_X, "name": "y"}, {**X, "name": "z", "datatype": "INT64", "data": [7, 8]})
    request = parse_infer(head + b"\x00" * 8, len(head))
    assert [item.json_bytes for item in request.inputs] == [8, -1, 6]
    assert bytes(request.payload) == b"[1, 2.5]" + b"\x00" * 8 + b"[7, 8]"


@pytest.mark.parametrize(("shape", "num_bytes"), [([], 4), ([0], 0), ([0, 5], 0), ([1, 1, 1], 4)])
def test_scalars_and_empty_tensors_are_tensors(shape: list[int], num_bytes: int) -> None:
    head = body({**RAW_X, "shape": shape, "parameters": {"binary_data_size": num_bytes}})
    request = parse_infer(head + b"\x00" * num_bytes, len(head))
    assert request.inputs == (Written("x", "float32", tuple(shape)),)


def test_an_empty_tensor_may_come_as_json() -> None:
    assert parse_infer(body({**X, "shape": [2, 0], "data": [[], []]}), None).inputs[0].shape == (2, 0)


def test_outputs_are_chosen_by_name_each_in_its_form() -> None:
    wanted: list[Any] = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    assert parse_infer(body(X, outputs=wanted), None).outputs == (Wanted("a", True), Wanted("b", False))
    request = parse_infer(
        body(
            X,
            outputs=[*wanted, {"name": "c", "parameters": {"binary_data": False}}],
            parameters={"binary_data_output": True},
        ),
        None,
    )
    assert request.outputs == (Wanted("a", False), Wanted("b", False), Wanted("c", True))
    assert not request.as_json


@pytest.mark.parametrize(("said", "meant"), [(0, 0), (1, -1), (2, 0), (3, 1), (2**64, 998)])
def test_priority_one_goes_first_and_none_is_ordinary(said: int, meant: int) -> None:
    assert parse_infer(body(X, parameters={"priority": said}), None).priority == meant


def test_timeout_is_in_microseconds() -> None:
    assert parse_infer(body(X, parameters={"timeout": 1_500_000}), None).timeout_s == 1.5
    assert parse_infer(body(X, parameters={"timeout": 10**4000}), None).timeout_s is not None


def test_what_we_do_not_know_is_passed_over() -> None:
    request = parse_infer(
        body({**X, "parameters": {"mine": [1]}}, id="42", parameters={"mine": {"a": 1}}, more=1), None
    )
    assert request.id == "42"


def refusal(raw: bytes, header_length: int | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse_infer(raw, header_length)
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"datatype": "BYTES"}, "BYTES.*not supported; there are BOOL, UINT8"),
        ({"datatype": "BF16"}, "BF16.*not supported"),
        ({"datatype": "float32"}, "float32.*not supported"),
        ({"shape": [-1]}, "dimension -1"),
        ({"shape": [3]}, "3 elements.*data has 2"),
        ({"shape": [10**30]}, "64 MiB"),
        ({"shape": [0, 2**62, 2**62]}, "64 MiB"),
        ({"shape": [1] * 33}, "length <= 32"),
        ({"shape": [True]}, "int"),
        ({"shape": [2.0]}, "int"),
        ({"shape": 2}, "array"),
        ({"name": ""}, "length >= 1"),
        ({"name": "n" * 257}, "length <= 256"),
        ({"data": None}, "must be an array"),
        ({"data": {"a": 1}}, "must be an array"),
        ({"data": ["1", "2"]}, "numbers, true and false only"),
        ({"data": [{"a": 1}, 2]}, "numbers, true and false only"),
        ({"data": json.loads("[" * 40 + "1,2" + "]" * 40)}, f"over {MAX_RANK} deep"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory is not offered"),
        ({"parameters": {"binary_data_size": 8}}, "and not both"),
    ],
)
def test_an_input_that_makes_no_sense_is_refused_with_the_reason(change: dict[str, Any], says: str) -> None:
    message = refusal(body({**X, **change}))
    assert re.search(says, message), message


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"[]", "object"),
        (b'{"inputs": []}', "length >= 1"),
        (b'{"inputs": [{"name": "x"', "not JSON"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "not JSON"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ' + b"[" * 200_000, "nests too deep"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}', "either data or"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_body_that_is_no_request_is_refused(raw: bytes, says: str) -> None:
    assert says in refusal(raw)


def test_names_are_given_once() -> None:
    assert "'x' is given twice" in refusal(body(X, X))
    assert "'y' is given twice" in refusal(body(X, outputs=[{"name": "y"}, {"name": "y"}]))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification extension is not offered"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "shared memory is not offered"),
        ({"parameters": {"sequence_id": 7}}, "sequences are not offered"),
        ({"parameters": {"priority": -1}}, "priority"),
        ({"parameters": {"timeout": -1}}, "microseconds"),
        ({"parameters": {"timeout": "soon"}}, "int"),
        ({"id": "x" * 1025}, "length <= 1024"),
    ],
)
def test_what_is_not_offered_is_said(more: dict[str, Any], says: str) -> None:
    assert says in refusal(body(X, **more))


def test_declared_sizes_are_held_against_the_body() -> None:
    head = body(RAW_X)
    assert "the body has" in refusal(head, len(head) + 1)
    assert "Inference-Header-Content-Length" in refusal(head, None)
    assert "add up to 8" in refusal(head + b"1234567", len(head))
    assert "add up to 8" in refusal(head + b"123456789", len(head))
    lying = body({**RAW_X, "parameters": {"binary_data_size": 7}})
    assert "8 bytes by shape" in refusal(lying + b"1234567", len(lying))
    negative = body({**RAW_X, "parameters": {"binary_data_size": -8}})
    assert "8 bytes by shape" in refusal(negative, len(negative))
    assert "add up to 0" in refusal(body(X) + b"more", len(body(X)))


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"+5", b"1e3", b"5 ", b"99999999999", "٣".encode()])
def test_the_length_of_the_head_is_a_plain_number(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        read_header_length(value)


def test_no_header_means_that_all_of_it_is_json() -> None:
    assert read_header_length(None) is None
    assert read_header_length(b"120") == 120


def test_json_has_a_lower_limit_than_the_body() -> None:
    with pytest.raises(TooLarge, match="as binary data"):
        parse_infer(b" " * (MAX_JSON_BYTES + 1), None)
    assert MAX_JSON_BYTES < MAX_INFER_BYTES


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([0], b"[" + b"[]," * MAX_JSON_LISTS + b"[]]"),
        ([MAX_JSON_LISTS + 1, 1], b"[" + b"[1]," * MAX_JSON_LISTS + b"[1]]"),
        ([MAX_JSON_NUMBERS + 1], b"[" + b"1," * MAX_JSON_NUMBERS + b"1]"),
    ],
    ids=["empty lists", "lists", "numbers"],
)
def test_what_would_keep_a_worker_reading_is_to_be_sent_as_binary(shape: list[int], data: bytes) -> None:
    raw = b'{"inputs":[{"name":"x","datatype":"FP32","shape":%b,"data":%b}]}' % (json.dumps(shape).encode(), data)
    with pytest.raises(TooLarge, match="binary"):
        parse_infer(raw, None)


def test_many_tensors_with_long_names_do_not_burst_the_frame() -> None:
    many = [{**X, "name": f"{number:03}".ljust(256, "é")} for number in range(MAX_TENSORS)]
    assert "send fewer tensors" in refusal(body(*many))
    assert f"length <= {MAX_TENSORS}" in refusal(body(*many, X))
    fits = [{**X, "name": f"n{number}"} for number in range(MAX_TENSORS)]
    request = parse_infer(body(*fits, outputs=[{"name": f"o{number}"} for number in range(MAX_TENSORS)]), None)
    infer = Infer(2**62, "v" * 200, "m" * 64, request.inputs, request.outputs, True, 1e9, "c" * 64, "p" * 64, 7)
    assert len(encode(infer)) < 2**16


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={key: _JSON for key in (*X, "parameters")}), _JSON, _JSON)
def test_whatever_is_sent_the_end_is_a_request_or_a_refusal(tensor: Any, outputs: Any, parameters: Any) -> None:
    raw = json.dumps({"inputs": [{**X, **tensor}], "outputs": outputs, "parameters": parameters}).encode()
    try:
        request = parse_infer(raw, None)
    except PlatformError as error:
        assert 400 <= error.status < 500
    else:
        assert sum(item.json_bytes for item in request.inputs) == len(request.payload)


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_cut_or_grown_body_is_never_read_past_its_end(tail: bytes, header_length: int) -> None:
    head = body(RAW_X)
    try:
        request = parse_infer(head + tail, len(head) - 30 + header_length)
    except InvalidRequest:
        return
    assert len(request.payload) == 8 == len(tail) + 30 - header_length
