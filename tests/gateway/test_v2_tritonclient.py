"""NVIDIA's client, unmodified, against the gateway."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serai.ipc.messages import Command, Infer
from serai_gateway.api.v2.testing.fake_pool import FakePool
from serai_gateway.api.v2.testing.gateway import publish_model, running_gateway
from serai_gateway.api.v2.testing.views import model_view, snapshot
from serai_gateway.catalogue import ensure_operator, open_catalogue


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, FakePool, Callable[[], dict[str, str]]]]:
    """The client, the pool, and what makes headers with a key: the client adds to those that it gets."""
    home = tmp_path_factory.mktemp("triton") / "home"
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue)
    vision = catalogue.ensure_account("vision")
    catalogue.close()
    publish_model(home, vision, "classify", {"mobilenet": b"m"})
    publish_model(home, vision, "two", {"first": b"f", "second": b"s"}, semver="2.0.0")
    with FakePool(home / "run") as pool, running_gateway(home) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", connection_timeout=20, network_timeout=20)
        yield client, pool, lambda: {"Authorization": f"Bearer {operator.key}"}
        client.close()


def tensor(name: str, array: Any, *, binary: bool = True) -> Any:
    datatypes = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "float16": "FP16", "uint8": "UINT8"}
    given = triton.InferInput(name, list(array.shape), datatypes[array.dtype.name])
    return given.set_data_from_numpy(array, binary_data=binary)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "uint8"])
def test_tensors_of_every_form_come_back(served: Any, dtype: str, binary_in: bool, binary_out: bool) -> None:
    client, _, headers = served
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    wanted = [triton.InferRequestedOutput("X", binary_data=binary_out)]
    given = [tensor("x", array, binary=binary_in)]
    result = client.infer("vision/classify", given, outputs=wanted, headers=headers(), request_id="7")
    back = result.as_numpy("X")
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    told = result.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("vision/classify", "1.0.0", "7")


def test_without_named_outputs_all_come_as_binary_data(served: Any) -> None:
    client, _, headers = served
    big = np.random.default_rng(1).random((64, 3, 56, 56)).astype("float32")
    small = np.array([[1.5]], np.float16)
    result = client.infer("vision/two/second", [tensor("big", big), tensor("small", small)], headers=headers())
    assert np.array_equal(result.as_numpy("BIG"), big)
    assert np.array_equal(result.as_numpy("SMALL"), small)
    assert result.as_numpy("nothing") is None


def test_the_clients_options_arrive(served: Any) -> None:
    client, pool, headers = served
    array = np.zeros((1, 3), "float32")
    client.infer(
        "vision/classify", [tensor("x", array)], model_version="1.0.0", priority=1, timeout=5_000_000, headers=headers()
    )
    message, _ = pool.last(Infer)
    assert isinstance(message, Infer)
    assert message.priority == -1


def test_asynchronous_inference_works(served: Any) -> None:
    client, _, headers = served
    asked = [
        client.async_infer("vision/classify", [tensor("x", np.full((1, 3), number, "float32"))], headers=headers())
        for number in range(4)
    ]
    assert [answer.get_result().as_numpy("X")[0, 0] for answer in asked] == [0, 1, 2, 3]


def test_the_client_learns_about_server_and_models(served: Any) -> None:
    client, _, headers = served
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "serai"
    assert client.is_model_ready("vision/classify", headers=headers())
    assert client.is_model_ready("vision/two/first", "2.0.0", headers=headers())
    assert not client.is_model_ready("vision/nothing", headers=headers())
    about = client.get_model_metadata("vision/classify", headers=headers())
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert client.get_model_config("vision/classify", "1", headers=headers())["platform"] == "onnxruntime_onnx"
    index = client.get_model_repository_index(headers=headers())
    assert [entry["name"] for entry in index] == ["vision/classify", "vision/two/first", "vision/two/second"]


def test_statistics_have_what_the_client_shows(served: Any) -> None:
    client, pool, headers = served
    everything = client.get_inference_statistics(headers=headers())["model_stats"]
    assert len(everything) == 3
    client.infer("vision/classify", [tensor("x", np.zeros((1, 3), "float32"))], headers=headers())
    message, _ = pool.last(Infer)
    assert isinstance(message, Infer)
    pool.snapshot = snapshot(model_view(pool.versions[message.version].models[0]))
    client.load_model("vision/classify", headers=headers())  # after a command the gateway looks at the pool anew
    (one,) = client.get_inference_statistics("vision/classify", headers=headers())["model_stats"]
    assert one["inference_stats"]["success"]["count"] == one["inference_count"] == 10


def test_load_and_unload_reach_the_pool(served: Any) -> None:
    client, pool, headers = served
    for verb in ("load", "unload"):
        getattr(client, f"{verb}_model")("vision/two/first", headers=headers())
        message, _ = pool.last(Command)
        assert isinstance(message, Command)
        assert (message.verb, message.model) == (verb, "first")


def test_errors_are_the_clients_exceptions_with_our_words(served: Any) -> None:
    client, _, headers = served
    given = [tensor("x", np.zeros((1, 3), "float32"))]
    with pytest.raises(InferenceServerException, match="model vision/nothing not found"):
        client.infer("vision/nothing", given, headers=headers())
    with pytest.raises(InferenceServerException, match="authorization required"):
        client.infer("vision/classify", given)
    with pytest.raises(InferenceServerException, match="classification extension is not offered"):
        wanted = [triton.InferRequestedOutput("X", class_count=3)]
        client.infer("vision/classify", given, outputs=wanted, headers=headers())
    with pytest.raises(InferenceServerException, match="compressed bodies are not accepted"):
        client.infer("vision/classify", given, headers=headers(), request_compression_algorithm="gzip")
    text = triton.InferInput("x", [1], "BYTES").set_data_from_numpy(np.array([b"text"], object))
    with pytest.raises(InferenceServerException, match="'BYTES', which is not supported"):
        client.infer("vision/classify", [text], headers=headers())
