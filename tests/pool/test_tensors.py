"""JSON, raw bytes and tensors to arrays and back; what does not fit is an InputError that says what was expected."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.ipc.messages import Wanted, Written
from serai_gpu_pool.tensors.arguments import InputError, from_binary, from_json, from_tensors
from serai_gpu_pool.tensors.results import OutputError, OutputTooLarge, to_bytes, to_json, to_tensors
from serai_gpu_pool.tensors.signature import Signature, Slot


def signature(*shape, dtype="float32") -> Signature:
    return Signature((Slot("x", dtype, shape or None),), (Slot("y", dtype, shape or None),))


ONE = signature(None, 3)
TWO = Signature(
    (Slot("a", "float32", (None, 2)), Slot("b", "int64", (None,))), (Slot("y", "float32", (None,)),)
)  # fmt: skip


def test_the_only_input_may_come_alone_or_by_name():
    for body in (b"[[1,2,3]]", b'{"x": [[1,2,3]]}'):
        call = from_json(body, ONE)
        assert call.arrays["x"].dtype == np.float32
        assert call.arrays["x"].tolist() == [[1, 2, 3]] and not call.squeezed


def test_a_missing_batch_dimension_is_added_and_taken_away_again():
    call = from_json(b"[1,2,3]", ONE)
    assert call.arrays["x"].shape == (1, 3) and call.squeezed
    assert to_json({"y": np.array([[4.0, 5.0]])}, call.squeezed) == b"[4.0,5.0]"


def test_the_batch_dimension_is_only_added_where_every_input_lacks_it():
    assert from_json(b'{"a": [1, 2], "b": 7}', TWO).squeezed
    with pytest.raises(InputError, match="has shape"):
        from_json(b'{"a": [[1, 2]], "b": 7}', TWO)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1,2,NaN]", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"y": [1,2,3]}', 'names "y"'),
        (b'{"x": [1,2,3], "y": 1}', "names"),
        (b"[1,2]", "has shape"),
        (b"[[[1,2,3]]]", "has shape"),
        (b"[[1,2,3],[1,2]]", "regular nested list"),
        (b'["1","2","3"]', "holds text"),
        (b"[1,2,null]", "holds something else"),
        (b"[true,false,true]", "holds booleans"),
        (b'[1,2,{"a":1}]', "holds something else"),
        (b"null", "holds something else"),
        (b'"abc"', "holds text"),
        (b"[1,2,1e999]", "not JSON|holds|shape"),
    ],
)
def test_json_that_does_not_fit_is_refused_with_what_was_expected(body, says):
    with pytest.raises(InputError, match=says) as caught:
        from_json(body, ONE)
    assert "not JSON" in str(caught.value) or '"x": float32 [?, 3]' in str(caught.value)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_integers_take_no_fractions_and_nothing_out_of_range(dtype):
    assert from_json(b"[[1, 2, 3]]", signature(None, 3, dtype=dtype)).arrays["x"].dtype.name == dtype
    for body in (b"[[1.5, 2, 3]]", b"[[18446744073709551616, 1, 1]]", b"[[true, false, true]]"):
        with pytest.raises(InputError):
            from_json(body, signature(None, 3, dtype=dtype))
    if dtype == "uint8":
        with pytest.raises(InputError, match="outside of uint8"):
            from_json(b"[[256, 0, 0]]", signature(None, 3, dtype=dtype))


def test_booleans_are_only_booleans():
    assert from_json(b"[[true, false]]", signature(None, 2, dtype="bool")).arrays["x"].tolist() == [[True, False]]
    with pytest.raises(InputError, match="holds numbers"):
        from_json(b"[[1, 0]]", signature(None, 2, dtype="bool"))


def test_an_unknown_shape_takes_every_shape():
    assert from_json(b"[[1],[2]]", signature()).arrays["x"].shape == (2, 1)


def test_raw_bytes_find_the_free_dimension():
    rows = np.arange(6, dtype=np.float32)
    assert from_binary(rows.tobytes(), ONE).arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert from_binary(rows.tobytes(), signature(2, None)).arrays["x"].shape == (2, 3)
    assert from_binary(rows.tobytes(), signature(1, 6)).arrays["x"].shape == (1, 6)


@pytest.mark.parametrize(
    ("size", "of"), [(0, ONE), (11, ONE), (13, ONE), (24, signature(1, 3)), (12, signature(None, None)), (12, TWO)]
)
def test_raw_bytes_that_do_not_fit_are_refused(size, of):
    with pytest.raises(InputError):
        from_binary(b"x" * size, of)


def test_raw_bytes_at_an_odd_address_become_an_aligned_array():
    odd = memoryview(b"?" + np.arange(3, dtype=np.float32).tobytes())[1:]
    assert from_binary(odd, ONE).arrays["x"].flags.aligned


def test_tensors_come_back_as_they_went():
    a, b = np.ones((2, 2), np.float32), np.array([1, 2])
    tensors, body = to_tensors({"a": a, "b": b})
    call = from_tensors(memoryview(body), tensors, ("y",), TWO)
    assert call.arrays["a"].tolist() == a.tolist() and call.arrays["b"].tolist() == b.tolist()
    assert call.outputs == ("y",)


def test_the_only_tensor_needs_no_name():
    tensors, body = to_tensors({"": np.ones((1, 3), np.float32)})
    assert list(from_tensors(memoryview(body), tensors, (), ONE).arrays) == ["x"]


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        ((Written("x", "float32", (1, 3)),), 8),
        ((Written("x", "float32", (1, 3)),), 16),
        ((Written("x", "float32", (1 << 62, 3)),), 12),
        ((Written("x", "float32", (-1, 3)),), 12),
        ((Written("x", "float32", (-1, -3)),), 12),
        ((Written("x", "float32", (0, 1 << 62)),), 0),
        ((Written("x", "float64", (1, 3)),), 24),
        ((Written("x", "object", (1, 3)),), 24),
        ((Written("x", "float32", (1, 3)), Written("x", "float32", (1, 3))), 24),
        ((Written("x", "float32", (1,) * 1000),), 4),
        ((), 0),
    ],
)
def test_tensors_that_lie_are_refused(tensors, size):
    with pytest.raises(InputError):
        from_tensors(memoryview(bytes(size)), tensors, (), ONE)


@pytest.mark.parametrize(
    ("tensors", "of", "says"),
    [
        (
            (Written("x", "float64", (1, 3)),),
            ONE,
            r'input "x" is float64: .*"float32"\) does; .*"x": float32 \[\?, 3\]',
        ),
        ((Written("", "float32", (1, 2)),), TWO, r'for models with one input; run\(.*\) is for several; .*"b": int64'),
        ((Written("z", "float32", (1, 3)),), ONE, r'the input names "z"; .*"x": float32'),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_what_helps(tensors, of, says):
    with pytest.raises(InputError, match=says):
        from_tensors(memoryview(bytes(24)), tensors, (), of)


def test_tensors_may_be_written_as_json_flat_or_nested():
    for text in (b"[1, 2, 3, 4, 5, 6]", b"[[1, 2, 3], [4, 5, 6]]"):
        call = from_tensors(memoryview(text), (Written("x", "float32", (2, 3), len(text)),), (), ONE)
        assert call.arrays["x"].tolist() == [[1, 2, 3], [4, 5, 6]] and call.arrays["x"].dtype == np.float32


def test_raw_and_json_tensors_follow_each_other():
    body = np.ones((1, 2), np.float32).tobytes() + b"[7]"
    tensors = (Written("a", "float32", (1, 2)), Written("b", "int64", (1,), 3))
    call = from_tensors(memoryview(body), tensors, (), TWO)
    assert call.arrays["a"].tolist() == [[1, 1]] and call.arrays["b"].tolist() == [7]


@pytest.mark.parametrize(
    ("shape", "text", "num_bytes"),
    [
        ((1, 3), b"[1, 2]", 6),
        ((1, 3), b"[1, 2, 3", 8),
        ((1, 3), b"[1, 2, 3]", 1 << 40),
        ((1, 3), b"[1, 2, 3]", 5),
        ((1, 3), b'"abc"', 5),
        ((1, 3), b'{"a": 1}', 8),
        ((1, 3), b"[1, [2], 3]", 11),
        ((1, 3), b'["a", 1, 2]', 11),
        ((1, 3), b"[1e999, 1, 2]", 13),
        ((1, 3), b"[" * 100_000, 100_000),
        ((0, 3), b"[1]", 3),
        pytest.param((0, 1 << 62), b"[]", 2),
        pytest.param((1 << 62, 0), b"[]", 2),
    ],
)
def test_json_tensors_that_lie_are_refused(shape, text, num_bytes):
    of = ONE if shape[-1] == 3 else signature(None, None)
    with pytest.raises(InputError):
        from_tensors(memoryview(text), (Written("x", "float32", shape, num_bytes),), (), of)


@given(st.binary(max_size=40), st.integers(-2, 60), st.lists(st.integers(-1, 5) | st.just(1 << 62), max_size=4))
def test_no_tensor_is_worse_than_an_input_error(body, json_bytes, shape):
    for of in (ONE, signature(), signature(None, None), signature(None, None, dtype="bool")):
        dtype = of.inputs[0].dtype
        with contextlib.suppress(InputError):
            from_tensors(memoryview(body), (Written("x", dtype, tuple(shape), json_bytes),), (), of)


def test_outputs_are_written_as_each_is_wanted():
    outputs = {"a": np.float32([[1, 2]]), "b": np.array([True])}
    written, body = to_tensors(outputs, (Wanted("a", as_json=True),))
    assert [one.json_bytes for one in written] == [9, -1] and body == b"[1.0,2.0]\x01"
    assert [one.json_bytes >= 0 for one in to_tensors(outputs, (), as_json=True)[0]] == [True, True]
    with pytest.raises(OutputError, match="ask for binary data"):
        to_tensors({"a": np.float32([np.nan])}, (), as_json=True)
    assert np.isnan(np.frombuffer(to_tensors({"a": np.float32([np.nan])})[1], np.float32)).all()


def test_outputs_that_do_not_exist_are_refused_by_name():
    with pytest.raises(InputError, match='no output "z"'):
        from_tensors(memoryview(bytes(12)), (Written("x", "float32", (1, 3)),), ("z",), ONE)


@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_an_input_error(body):
    for read in (from_json, from_binary):
        for of in (ONE, TWO, signature(), signature(None, 2, dtype="bool")):
            with contextlib.suppress(InputError):
                read(body, of)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "a", "b"]), inner, max_size=3),
)


@given(json_values)
def test_no_json_is_worse_than_an_input_error(value):
    for of in (ONE, TWO, signature(), signature(None, 3, dtype="uint8")):
        try:
            call = from_json(json.dumps(value).encode(), of)
        except InputError:
            continue
        assert all(call.arrays[slot.name].dtype.name == slot.dtype for slot in of.inputs)


def test_several_outputs_come_by_name_and_what_json_cannot_say_is_an_error():
    outputs = {"a": np.array([1, 2]), "b": np.array([[True]])}
    assert json.loads(to_json(outputs, squeezed=False)) == {"a": [1, 2], "b": [[True]]}
    for bad in (np.nan, np.inf):
        with pytest.raises(OutputError, match='"a" holds NaN'):
            to_json({"a": np.array([1.0, bad])}, squeezed=False)


def test_results_over_the_limits_are_refused():
    zeros = np.broadcast_to(np.float32(0), (1 << 13, 1 << 13))
    with pytest.raises(OutputTooLarge):
        to_json({"y": zeros}, squeezed=False)
    with pytest.raises(OutputTooLarge):
        to_bytes({"y": zeros})
