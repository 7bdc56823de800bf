"""The inference protocol through the whole service: NVIDIA's client, real models, the real pool."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from serai_gateway.testing import Service

ALGORITHMS = Path(__file__).parents[2] / "algorithms"

Headers = Callable[[], dict[str, str]]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}", connection_timeout=60, network_timeout=60)
    yield client
    client.close()


@pytest.fixture
def headers(service: Service) -> Headers:
    """Headers with the operator's key, new ones each time: the client adds to those that it gets."""
    return lambda: {"Authorization": f"Simple {service.key}"}


@pytest.fixture(scope="module")
def three() -> Any:
    manifest = tomllib.loads((ALGORITHMS / "vision/digits/algorithm.toml").read_text())
    return np.array(manifest["sample"]["input"], dtype=np.float32)[None]


def image(array: Any, *, binary: bool = True) -> Any:
    return triton.InferInput("image", list(array.shape), "FP32").set_data_from_numpy(array, binary_data=binary)


def output_of(client: Any, headers: Headers) -> str:
    return client.get_model_metadata("vision/digits", headers=headers())["outputs"][0]["name"]


def error_of(answer: Any) -> str:
    return answer.json()["error"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_digit_is_read_in_every_form(
    client: Any, headers: Headers, three: Any, binary_in: bool, binary_out: bool
) -> None:
    name = output_of(client, headers)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out)]
    given = [image(three, binary=binary_in)]
    result = client.infer("vision/digits", given, outputs=wanted, headers=headers(), request_id="a three")
    assert result.as_numpy(name).shape == (1, 10)
    assert result.as_numpy(name).argmax() == 3
    assert result.get_response()["id"] == "a three"


def test_it_says_the_same_as_the_call_api(client: Any, service: Service, headers: Headers, three: Any) -> None:
    called = service.call("vision/digits", json.dumps(three.tolist()).encode()).json()["result"]
    result = client.infer("vision/digits", [image(three)], headers=headers())
    assert np.allclose(result.as_numpy(output_of(client, headers)), called, atol=1e-5)


def test_a_batch_is_answered_row_by_row(client: Any, headers: Headers, three: Any) -> None:
    rows = np.concatenate([three, 1 - three, np.zeros_like(three)])
    together = client.infer("vision/digits", [image(rows)], headers=headers())
    name = output_of(client, headers)
    alone = [client.infer("vision/digits", [image(row[None])], headers=headers()).as_numpy(name)[0] for row in rows]
    assert np.allclose(together.as_numpy(name), np.stack(alone), atol=1e-5)


def test_the_model_of_an_algorithm_with_code_is_reachable_too(client: Any, headers: Headers) -> None:
    about = client.get_model_metadata("vision/classify", headers=headers())
    given = about["inputs"][0]
    shape = [1 if dim < 0 else dim for dim in given["shape"]]
    picture = triton.InferInput(given["name"], shape, given["datatype"])
    picture.set_data_from_numpy(np.zeros(shape, triton_to_np_dtype(given["datatype"])))
    result = client.infer("vision/classify", [picture], headers=headers())
    assert result.as_numpy(about["outputs"][0]["name"]).shape[-1] == 1000


def test_metadata_is_that_of_the_file(client: Any, headers: Headers) -> None:
    about = client.get_model_metadata("vision/digits", headers=headers())
    assert about["platform"] == "onnxruntime_onnx"
    assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28]}]
    names = {entry["name"] for entry in client.get_model_repository_index(headers=headers())}
    assert {"vision/digits", "vision/classify"} <= names
    assert "demo/hello" not in names  # it has no model


def test_what_does_not_fit_the_model_is_refused_with_what_would(client: Any, headers: Headers) -> None:
    wrong = np.zeros((1, 3), np.float32)
    with pytest.raises(InferenceServerException, match=r"400.*image"):
        client.infer("vision/digits", [image(wrong)], headers=headers())
    other = triton.InferInput("picture", [1, 3], "FP32").set_data_from_numpy(wrong)
    with pytest.raises(InferenceServerException, match=r"400.*image"):
        client.infer("vision/digits", [other], headers=headers())
    with pytest.raises(InferenceServerException, match=r"400.*no output"):
        wanted = [triton.InferRequestedOutput("nothing")]
        client.infer("vision/digits", [image(np.zeros((1, 28, 28), np.float32))], outputs=wanted, headers=headers())


def test_a_timeout_that_cannot_be_met_is_refused(client: Any, service: Service, headers: Headers, three: Any) -> None:
    body = {"inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": three.ravel().tolist()}]}
    client.infer("vision/digits", [image(three)], headers=headers())
    body["parameters"] = {"timeout": 1}  # pyright: ignore[reportArgumentType]
    answer = service.request("POST", "/v2/models/vision/digits/infer", json.dumps(body).encode(), headers())
    assert answer.status in (503, 504)
    assert error_of(answer)


def test_unload_takes_it_out_of_memory_and_the_next_call_brings_it_back(
    client: Any, service: Service, headers: Headers, three: Any
) -> None:
    def memory() -> list[Any]:
        return client.get_inference_statistics("vision/digits", headers=headers())["model_stats"][0]["memory_usage"]

    client.load_model("vision/digits", headers=headers())
    assert memory()[0]["byte_size"] > 0
    client.unload_model("vision/digits", headers=headers())
    assert memory() == []
    assert client.is_model_ready("vision/digits", headers=headers())
    again = client.infer("vision/digits", [image(three)], headers=headers())
    assert again.as_numpy(output_of(client, headers)).argmax() == 3


def test_statistics_count_what_was_run(client: Any, headers: Headers, three: Any) -> None:
    def count() -> int:
        client.load_model("vision/digits", headers=headers())  # after it the gateway looks at the pool anew
        return client.get_inference_statistics("vision/digits", headers=headers())["model_stats"][0]["inference_count"]

    before = count()
    for _ in range(3):
        client.infer("vision/digits", [image(three)], headers=headers())
    assert count() == before + 3


def test_the_operator_sees_the_pool_and_steers_it(service: Service, headers: Headers, stranger_key: str) -> None:
    def serai(*arguments: str) -> str:
        command = [sys.executable, "-m", "serai", "pool", *arguments]
        done = subprocess.run(command, env=service.environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    serai("pin", "vision/digits")
    pool = json.loads(serai("--json"))
    (digits,) = [model for model in pool["models"] if model["name"] == "digits"]
    assert digits["pinned"]
    assert digits["state"] == "resident"
    picture = serai()
    assert "vision/digits" in picture
    assert next(line for line in picture.splitlines() if line.startswith("["))[1] in "a+"
    serai("unpin", "vision/digits")
    assert "digits" not in [model["name"] for model in json.loads(serai("--json"))["models"] if model["pinned"]]
    assert service.request("GET", "/v1/pool", headers={"Authorization": stranger_key}).status == 403


def test_a_stranger_may_call_and_may_not_steer(service: Service, stranger_key: str) -> None:
    headers = {"Authorization": f"Bearer {stranger_key}"}
    assert service.request("GET", "/v2/models/vision/digits", headers=headers).status == 200
    assert service.request("POST", "/v2/repository/models/vision/digits/unload", b"", headers).status == 403
    assert service.request("GET", "/v2/models/vision/digits/stats", headers=headers).status == 403
    assert service.request("GET", "/v2/models/demo/secret", headers=headers).status == 404


def test_the_example_of_the_page_runs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERAI_ADDRESS", "SERAI_API_KEY"):
        monkeypatch.setenv(name, service.environment()[name])
    page = (ALGORITHMS.parent / "docs/v2.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "docs/v2.md", "exec"), names)
    names["client"].close()
