"""What the pool sends becomes an answer of the protocol, or is seen through."""

import json
import struct

import pytest

from serai.ipc.messages import Inferred, Written
from serai_gateway.api.v2.infer_answer import write_answer
from serai_gateway.errors import Internal


def inferred(*outputs: Written) -> Inferred:
    return Inferred(1, outputs, 0.1)


def test_json_outputs_are_put_in_as_they_are() -> None:
    answer = write_answer("o/n", "1.0.0", 'my "id"', inferred(Written("y", "float32", (2,), 9)), b"[1.0,2e5]")
    assert answer.binary is None
    assert json.loads(answer.head) == {
        "model_name": "o/n",
        "model_version": "1.0.0",
        "id": 'my "id"',
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2e5]}],
    }
    assert b'"data":[1.0,2e5]' in answer.head


def test_raw_outputs_follow_without_a_copy() -> None:
    payload = struct.pack("<2f", 1, 2) + struct.pack("<q", 3)
    answer = write_answer("o/n", "1", "", inferred(Written("a", "float32", (2,)), Written("b", "int64", ())), payload)
    assert answer.binary is payload
    assert json.loads(answer.head)["outputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "b", "datatype": "INT64", "shape": [], "parameters": {"binary_data_size": 8}},
    ]


def test_mixed_outputs_keep_their_order_and_only_raw_ones_follow() -> None:
    outputs = inferred(Written("a", "uint8", (2,)), Written("b", "bool", (1,), 6), Written("c", "uint8", (1,)))
    answer = write_answer("o/n", "1", "", outputs, b"\x01\x02[true]\x03")
    assert answer.binary == b"\x01\x02\x03"
    assert json.loads(answer.head)["outputs"][1]["data"] == [True]


def test_an_empty_raw_output_is_still_binary() -> None:
    answer = write_answer("o/n", "1", "", inferred(Written("a", "float64", (0, 4))), b"")
    assert answer.binary == b""


@pytest.mark.parametrize(
    ("output", "payload"),
    [
        (Written("a", "float32", (2,)), b"1234567"),
        (Written("a", "float32", (2,)), b"123456789"),
        (Written("a", "float32", (-1, -2)), b"12345678"),
        (Written("a", "float32", (2**40, 2**40)), b"12345678"),
        (Written("a", "object", (1,)), b"12345678"),
        (Written("a", "float32", (1,), 5), b"[1]"),
        (Written("a", "float32", (1,), 4), b"[1],"),
        (Written("a", "float32", (1,), 1), b"1"),
        (Written("a", "float32", (1,), 22), b'[1],"id":"x","data":[1]'[:22]),
        (Written("a", "float32", (1,), 5), b'["x"]'),
        (Written("a", "float32", (1,), 9), b'[{"a":1}]'),
        (Written("a", "float32", (1,), 0), b""),
    ],
)
def test_a_worker_that_lies_is_seen_through(output: Written, payload: bytes) -> None:
    with pytest.raises(Internal):
        write_answer("o/n", "1", "", inferred(output), payload)
