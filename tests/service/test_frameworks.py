"""One net published in every format to a real service: callers cannot tell which framework answers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serai_gateway.build.testing import write_tree
from serai_gateway.testing import Service
from serai_gpu_pool.testing import models, nets
from serai_gpu_pool.testing.formats import maker

pytestmark = pytest.mark.needs_bubblewrap

FORMATS = ("onnx", "torchscript", "torch_export", "saved_model")
DECLARED = nets.declared("net")


def files_of(format: str, folder: Path) -> tuple[dict[str, bytes], str]:
    """The model's files, and what the manifest says of it."""
    module = maker(format)
    if format == "onnx":
        return {"net.onnx": module.onnx_net()}, 'file = "net.onnx"'
    if format == "torchscript":
        return {"net.pt": module.net_script()}, 'file = "net.pt"' + DECLARED
    if format == "torch_export":
        return {"net.pt2": module.net_export()}, 'file = "net.pt2"'
    saved = module.save(module.Net(), folder / "saved")
    found = {f"net/{path.relative_to(saved)}": path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    return found, 'file = "net"'


@pytest.fixture(scope="module")
def published(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Publishes the net in a format, once; its name."""
    names: dict[str, str] = {}

    def publish(format: str) -> str:
        if format not in names:
            folder = tmp_path_factory.mktemp(format)
            files, entry = files_of(format, folder)
            name = f"net-{format.replace('_', '-')}"
            manifest = f'[algorithm]\nowner = "operator"\nname = "{name}"\n[models.net]\n{entry}\n'
            service.publish(
                write_tree(folder / "source", {"algorithm.toml": manifest, "README.md": "# net\n", **files})
            )
            names[format] = f"operator/{name}"
        return names[format]

    return publish


def test_every_format_gives_the_same_answers_as_json_and_as_bytes(service: Service, published) -> None:
    x = nets.example(3)
    answers: dict[str, list[np.ndarray]] = {}
    for format in FORMATS:
        name = published(format)
        as_json = service.call(name, json.dumps(x.tolist()).encode())
        assert as_json.status == 200 and "error" not in as_json.json(), (format, as_json.body[:500])
        as_bytes = service.call(f"{name}?output=raw", x.tobytes(), "application/octet-stream")
        assert as_bytes.status == 200, (format, as_bytes.body[:500])
        answers[format] = [
            np.array(as_json.json()["result"], np.float32),
            np.frombuffer(as_bytes.body, np.float32).reshape(3, 10),
        ]
    expected = answers["onnx"][0]
    assert expected.shape == (3, 10) and np.ptp(expected) > 0.1
    for format, results in answers.items():
        for result in results:
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6, err_msg=format)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_wrong_with_an_input_is_said_the_same_way(service: Service, published, format: str) -> None:
    error = service.call(published(format), json.dumps([[1, 2], [3, 4]]).encode()).json()["error"]
    assert error["error_type"] == "InputError"
    assert '"input": float32 [?, 1, 8, 8]' in error["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "send null"),
        (b"[1, NaN]", "NaN is not JSON"),
        (b"[1e999]", "out of range"),
        (b"[" * 100_000, "nesting exceeds 100"),
        (b'["\xff"]', "UTF-8"),
        (b"[" + b"1.5," * 30_000 + b"1e999]", "out of range"),
    ],
)
def test_json_that_is_none_is_refused_by_a_model_as_by_code(
    service: Service, published, body: bytes, says: str
) -> None:
    answer = service.call(published("onnx"), body)
    assert answer.status == 400 and says in answer.json()["error"]["message"]


def test_a_declaration_that_is_put_right_counts_from_the_next_version_on(service: Service, tmp_path: Path) -> None:
    file = maker("torchscript").net_script()

    def publish(entry: str) -> str:
        about = f'[algorithm]\nowner = "operator"\nname = "corrected"\n[models.net]\nfile = "net.pt"{entry}'
        return service.publish(write_tree(tmp_path / "source", {"algorithm.toml": about, "net.pt": file}))

    body = json.dumps(nets.example(2).tolist()).encode()
    wrong = DECLARED.replace('"input"', '"picture"').replace("8, 8", "9, 9")
    assert "WARNING: model net ran with no input" in publish(wrong)
    assert '"picture": float32 [?, 1, 9, 9]' in service.call("operator/corrected", body).json()["error"]["message"]
    assert "WARNING" not in publish(DECLARED)
    assert len(service.call("operator/corrected", body).json()["result"]) == 2
    assert '"picture"' in service.call("operator/corrected/1.0.0", body).json()["error"]["message"]


def test_several_models_without_code_say_where_one_of_them_is_run(service: Service, tmp_path: Path) -> None:
    about = '[algorithm]\nowner = "operator"\nname = "pair"\n[models.a]\nfile = "a.onnx"\n[models.b]\nfile = "b.onnx"\n'
    files = {"algorithm.toml": about, "a.onnx": models.add_one(), "b.onnx": models.take_row()}
    service.publish(write_tree(tmp_path / "source", files))
    answer = service.call("operator/pair", b"[[1, 2, 3]]")
    assert (
        answer.status == 422
        and "(a, b) with POST /v2/models/operator/pair/MODEL/infer" in answer.json()["error"]["message"]
    )
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    headers = {"Authorization": f"Simple {service.key}"}
    answer = service.request("POST", "/v2/models/operator/pair/a/infer", json.dumps(body).encode(), headers)
    assert answer.json()["outputs"][0]["data"] == [2, 3, 4]
