"""Small ONNX models for tests, made with the `onnx` package. Each function returns a file's bytes."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def build(nodes, inputs, outputs, weights=(), opset: int = 17, domains=()) -> bytes:
    """Inputs and outputs as (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model: ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return model.SerializeToString()


def add_one(rows: int | str | None = "N") -> bytes:
    """x [N, 3] + 1."""
    shape = [rows, 3]
    node = helper.make_node("Add", ["x", "one"], ["y"])
    return build([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], [("one", np.float32(1))])


def scaled(factor: float, num_bytes: int) -> bytes:
    """x [N, 4] * factor, in a file of at least so many bytes: `at` [N, 1] picks any of them, so all have to be held."""
    ballast = np.random.default_rng(0).standard_normal(num_bytes // 4).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["ballast", "at"], ["some"]),
        helper.make_node("Mul", ["some", "zero"], ["nothing"]),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["y"]),
    ]
    weights = [("ballast", ballast), ("zero", np.float32(0)), ("factor", np.float32(factor))]
    inputs = [("x", FLOAT, ["N", 4]), ("at", TensorProto.INT64, ["N", 1])]
    return build(nodes, inputs, [("y", FLOAT, ["N", 4])], weights)


def two_in_two_out() -> bytes:
    """sum = a + b, difference = a - b; all [N, 2]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    shape = ["N", 2]
    return build(
        nodes,
        [("a", FLOAT, shape), ("b", FLOAT, shape)],
        [("sum", FLOAT, shape), ("difference", FLOAT, shape)],
    )


def typed(element_type: int) -> bytes:
    """Its input [N, 2] as it is."""
    shape = ["N", 2]
    node = helper.make_node("Identity", ["x"], ["y"])
    return build([node], [("x", element_type, shape)], [("y", element_type, shape)])


def take_row() -> bytes:
    """Row x of a table with 4 rows; an index outside of it fails at run time."""
    table = np.arange(4, dtype=np.float32)
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return build([node], [("x", TensorProto.INT64, ["N"])], [("y", FLOAT, ["N"])], [("table", table)])


def loop() -> bytes:
    """Counts to x (int64, [1]): as slow as it is told to be."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["x"], ["turns"]),
        helper.make_node("Loop", ["turns", "yes", "start"], ["y"], body=body),
    ]
    weights = [("yes", np.array(True)), ("start", np.ones(1, np.float32))]
    return build(nodes, [("x", TensorProto.INT64, [1])], [("y", FLOAT, [1])], weights)


def explosion() -> bytes:
    """As many zeros as x (int64, [1]) says."""
    node = helper.make_node("ConstantOfShape", ["x"], ["y"])
    return build([node], [("x", TensorProto.INT64, [1])], [("y", FLOAT, ["N"])])


def huge_constant() -> bytes:
    """A tiny file that asks for 16 TB as soon as it is loaded."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return build(nodes, [("x", FLOAT, ["N"])], [("y", FLOAT, ["N"])], [("size", np.array([1 << 42], np.int64))])


def external(location: str) -> bytes:
    """A model whose weight lies in another file."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    node = helper.make_node("Add", ["x", "w"], ["y"])
    infos = [helper.make_tensor_value_info(name, FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def foreign_operator(domain: str, name: str) -> bytes:
    shape = ["N", 3]
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    return build([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], domains=(domain,))
