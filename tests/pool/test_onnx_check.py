"""Files that reach outside of themselves or carry foreign code are refused before a library sees them."""

import contextlib

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serai_gpu_pool.device.onnx_check import check_onnx
from serai_gpu_pool.formats.base import ModelFileError
from serai_gpu_pool.testing import models

GOOD = [models.add_one(), models.loop(), models.two_in_two_out(), models.huge_constant(), models.take_row()]


@pytest.mark.parametrize("data", GOOD)
def test_ordinary_models_pass(data):
    check_onnx(data)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights.bin", ""])
def test_weights_in_another_file_are_refused(location):
    with pytest.raises(ModelFileError, match="another file"):
        check_onnx(models.external(location))


def test_weights_in_another_file_are_found_wherever_they_hide():
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    in_attribute = helper.make_node("Constant", [], ["y"], value=tensor)
    inner = helper.make_graph([in_attribute], "t", [], [])
    hidden = [
        helper.make_graph([in_attribute], "g", [], []),
        helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)], "g", [], []),
        helper.make_graph([], "g", [], [], sparse_initializer=[onnx.SparseTensorProto(values=tensor)]),
    ]  # fmt: skip
    for graph in hidden:
        with pytest.raises(ModelFileError, match="another file"):
            check_onnx(helper.make_model(graph).SerializeToString())


def test_a_second_graph_in_the_same_file_is_looked_at_too():
    with pytest.raises(ModelFileError, match="another file"):
        check_onnx(models.add_one() + models.external("x"))


@pytest.mark.parametrize(
    ("domain", "name", "says"),
    [
        ("com.example", "Run", 'domain "com.example"'),
        ("ai.onnx.contrib", "PyOp", "domain"),
        ("com.microsoft", "EPContext", "EPContext is not allowed"),
        ("com.microsoft", "PythonOp", "PythonOp is not allowed"),
    ],
)
def test_operators_that_are_code_of_their_own_are_refused(domain, name, says):
    with pytest.raises(ModelFileError, match=says):
        check_onnx(models.foreign_operator(domain, name))


def test_functions_of_the_model_itself_are_refused_with_the_way_out():
    function = helper.make_function(
        "local", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="local")], []
    )
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="local")], "g", [], [])
    with pytest.raises(ModelFileError, match="inline"):
        check_onnx(helper.make_model(graph, functions=[function]).SerializeToString())


def test_graphs_nested_very_deep_are_refused():
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    with pytest.raises(ModelFileError, match="deep"):
        check_onnx(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08", b"\x08\x09", b"PK\x03\x04", b"\x80" * 100, bytes(1000)])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(ModelFileError):
        check_onnx(data)


@pytest.mark.parametrize("data", GOOD)
def test_a_truncated_model_is_refused_or_cut_between_two_fields(data):
    for size in range(len(data)):
        try:
            check_onnx(data[:size])
        except ModelFileError:
            continue


@given(st.binary(max_size=300))
def test_no_bytes_break_the_walk(data):
    with contextlib.suppress(ModelFileError):
        check_onnx(data)
