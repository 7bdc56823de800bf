"""ONNX files, real and hostile, read without onnxruntime; and compared with what onnx itself says of them."""

import os

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from serai_gateway.build.testing import onnx_fields, tiny_onnx
from serai_gpu_pool.formats import ModelFileError, Tensor, onnx_file, read_onnx


def read(data):
    return read_onnx(memoryview(data))


def graph_of(*nodes, inputs=None, outputs=None, constants=()):
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    outputs = outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])]
    return helper.make_graph(list(nodes), "g", inputs, outputs, list(constants))


def model_of(*nodes, functions=(), opsets=(("", 17),), **rest):
    opset_imports = [helper.make_opsetid(*opset) for opset in opsets]
    graph = graph_of(*nodes, **rest)
    model = helper.make_model(graph, functions=list(functions), opset_imports=opset_imports, ir_version=10)
    return model.SerializeToString()


MINE = (("", 17), ("mine", 1))
RELU = helper.make_node("Relu", ["x"], ["y"])


def test_inputs_and_outputs_are_what_onnx_says_they_are():
    weights = numpy_helper.from_array(np.zeros((3, 4), np.float32), "w")
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", None, 3]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, []),
        helper.make_tensor_value_info("half", TensorProto.FLOAT16, None),
        helper.make_tensor_value_info("text", TensorProto.STRING, [-1]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]),  # a constant, listed as old exporters do
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.BOOL, [2**40])]
    found = read(model_of(RELU, RELU, inputs=inputs, outputs=outputs, constants=[weights]))
    assert found.inputs == (
        Tensor("x", "float32", ("N", "", 3)),
        Tensor("ids", "int64", ()),
        Tensor("half", "float16", None),
        Tensor("text", "string", ("",)),
    )
    assert found.outputs == (Tensor("y", "bool", (2**40,)),)
    assert (found.opsets, found.num_nodes) == ({"": 17}, 2)


def test_the_models_that_tests_write_by_hand_are_real_ones():
    onnx.checker.check_model(onnx.load_from_string(tiny_onnx()))


def test_every_type_of_element_has_numpys_name():
    for number, name in onnx_file.DTYPES.items():
        if name != "string":
            assert helper.tensor_dtype_to_np_dtype(number).name == name


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_operators_of_these_domains_may_run(domain):
    assert read(tiny_onnx("Gelu", domain)).num_nodes == 1


@pytest.mark.parametrize(
    ("operator", "domain"),
    [("EPContext", "com.microsoft"), ("PyOp", "com.microsoft"), ("Relu", "com.evil"), ("X", "ai.onnx.preview.training"),
     ("X", "ai.onnx.contrib"), ("Conv", "com.microsoft.nchwc"), ("X", "AI.ONNX"), ("X", " ")],
)  # fmt: skip
def test_other_operators_may_not(operator, domain):
    with pytest.raises(ModelFileError, match="is not allowed"):
        read(tiny_onnx(operator, domain))


def nested(depth):
    body = graph_of(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft"))
    for _ in range(depth):
        body = graph_of(helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))
    return helper.make_model(body, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def test_an_operator_hidden_in_a_graph_within_graphs_is_found():
    with pytest.raises(ModelFileError, match="EPContext is not allowed"):
        read(nested(6))
    with pytest.raises(ModelFileError, match="nested more than 16"):
        deep = onnx_fields((1, onnx_fields((4, b"Relu"))))
        for _ in range(40):
            deep = onnx_fields((1, onnx_fields((4, b"If"), (5, onnx_fields((6, deep))))))
        read(onnx_fields((1, 8), (7, deep), (8, onnx_fields((2, 17)))))


def external(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def branches(then, otherwise=RELU):
    return helper.make_node("If", ["x"], ["y"], then_branch=graph_of(then), else_branch=graph_of(otherwise))


def function(name, *nodes, domain="mine"):
    return helper.make_function(domain, name, ["x"], ["y"], list(nodes), [helper.make_opsetid("", 17)])


def call(name, domain="mine"):
    return helper.make_node(name, ["x"], ["y"], domain=domain)


def test_weights_in_other_files_are_refused_wherever_they_hide():
    with pytest.raises(ModelFileError, match="save it as one file"):
        read(tiny_onnx(external=True))
    weights = external(numpy_helper.from_array(np.zeros(3, np.float32), "w"))
    constant = helper.make_node("Constant", [], ["y"], value=weights)
    sparse = helper.make_sparse_tensor(weights, numpy_helper.from_array(np.zeros(3, np.int64)), [9])
    places = [
        model_of(RELU, constants=[weights]),
        model_of(constant),
        model_of(branches(constant)),
        model_of(branches(RELU, branches(constant))),
        model_of(helper.make_node("Constant", [], ["y"], sparse_value=sparse)),
    ]
    for model in places:
        with pytest.raises(ModelFileError, match="save it as one file"):
            read(model)


def test_functions_of_the_file_itself_are_refused_with_what_inlines_them():
    model = model_of(call("f"), functions=[function("f", RELU, call("g")), function("g", RELU, RELU)], opsets=MINE)
    with pytest.raises(ModelFileError, match="it has functions of its own; inline them: ") as error:
        read(model)
    changed = {"model": onnx.load_from_string(model), "onnx": onnx}
    exec("import onnx.inliner; " + str(error.value).rpartition("inline them: ")[2], changed)
    assert read(changed["model"].SerializeToString()).num_nodes == 3


def test_a_hundred_thousand_functions_are_refused_at_the_first():
    one = onnx_fields((1, b"f"), (10, b"mine"), (7, onnx_fields((4, b"g"), (7, b"mine"))))
    with pytest.raises(ModelFileError, match="functions of its own"):
        read(onnx_fields((1, 8), *[(25, one)] * 100_000))


def test_settings_for_the_runtime_inside_the_file_are_refused():
    model = onnx.load_from_string(tiny_onnx())
    helper.set_model_props(model, {"ort_config": '{"session_options": {}}'})
    with pytest.raises(ModelFileError, match="ort_config"):
        read(model.SerializeToString())


def test_what_a_model_cannot_be():
    graph = onnx_fields((1, onnx_fields((4, b"Relu"))), (12, onnx_fields((1, b"y"))))
    opset = onnx_fields((2, 17))
    for data, reason in {
        b"": "empty",
        b"not a model": "not an ONNX file",
        b"\x80\x04\x95.": "not an ONNX file",
        b"PK\x03\x04": "not an ONNX file",
        b"\xff" * 100: "not an ONNX file",
        onnx_fields((1, 8), (8, opset)): "no version, graph",
        onnx_fields((1, 8), (7, graph), (7, graph), (8, opset)): "no version, graph",
        onnx_fields((1, 8), (7, graph)): "no version, graph",
        onnx_fields((1, 8), (7, graph), (8, opset)): "only tensors",
        onnx_fields((1, 8), (7, b""), (8, opset)): "no outputs",
        onnx_fields((1, 8), (7, 3), (8, opset)): "not an ONNX file",
        onnx_fields((1, 8), (20, b"x"), (8, opset)): "training",
        tiny_onnx(dtype=0): "only tensors",
        tiny_onnx(dtype=99): "only tensors",
    }.items():
        with pytest.raises(ModelFileError, match=reason):
            read(data)


def test_a_model_cut_anywhere_is_refused():
    data = tiny_onnx()
    for end in range(len(data)):
        with pytest.raises(ModelFileError):
            read(data[:end])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.tuples(st.integers(0, 150), st.integers(0, 255)))
def test_no_bytes_lead_to_any_other_error(change):
    data = bytearray(tiny_onnx())
    if isinstance(change, tuple):
        data[change[0] % len(data)] = change[1]
    try:
        read(data if isinstance(change, tuple) else change)
    except ModelFileError as error:
        assert str(error).isprintable()


def test_a_file_full_of_fields_is_given_up(monkeypatch):
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 1000)
    with pytest.raises(ModelFileError, match="more than 1,000 fields"):
        read(onnx_fields((1, 8), (7, onnx_fields(*[(1, b"")] * 1000)), (8, onnx_fields((2, 17)))))


def versioned(ir_version, opset):
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph_of(RELU), opset_imports=imports, ir_version=ir_version)


@pytest.mark.parametrize(
    ("ir_version", "opset", "has", "change"),
    [
        (14, 21, "it has IR version 14;", "model.ir_version = 13"),
        (10, 27, "it has opset 27;", "model = onnx.version_converter.convert_version(model, 26)"),
        (14, 28, "it has opset 28 and IR version 14;", "convert_version(model, 26); model.ir_version = 13"),
    ],
)
def test_files_newer_than_the_runtime_are_refused_with_all_there_is_to_change(ir_version, opset, has, change):
    model = versioned(ir_version, opset)
    with pytest.raises(ModelFileError) as error:
        read(model.SerializeToString())
    text = str(error.value)
    assert text.startswith(has) and text.endswith(change)
    changed = {"model": model, "onnx": onnx}
    exec(text.rpartition("before saving: ")[2], changed)  # what the message says, as it stands there
    assert read(changed["model"].SerializeToString()).num_nodes == 1


def test_the_newest_versions_that_are_taken_are_the_runtimes():
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ort = pytest.importorskip("onnxruntime")

    def opens(ir_version, opset):
        try:
            ort.InferenceSession(versioned(ir_version, opset).SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception:
            return False
        return True

    newest = onnx_file.MAX_IR_VERSION, onnx_file.MAX_OPSET
    assert opens(*newest)
    assert not opens(newest[0] + 1, newest[1]) and not opens(newest[0], newest[1] + 1)
