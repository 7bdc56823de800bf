"""Paths of the inference protocol are read by position."""

import pytest

from serai_gateway.api.v2.names import METHODS, ModelPath, is_infer, parse_path
from serai_gateway.errors import NotFound


@pytest.mark.parametrize(
    ("path", "action", "model", "version"),
    [
        ("vision/classify", "metadata", None, None),
        ("vision/classify/", "metadata", None, None),
        ("vision/classify/infer", "infer", None, None),
        ("vision/classify/ready", "ready", None, None),
        ("vision/classify/stats", "stats", None, None),
        ("vision/classify/config", "config", None, None),
        ("vision/classify/mobilenet", "metadata", "mobilenet", None),
        ("vision/classify/mobilenet/infer", "infer", "mobilenet", None),
        ("vision/classify/versions/1.0.0", "metadata", None, "1.0.0"),
        ("vision/classify/versions/1.*/infer", "infer", None, "1.*"),
        ("vision/classify/versions/LATEST/infer", "infer", None, "LATEST"),
        ("vision/classify/mobilenet/versions/1/ready", "ready", "mobilenet", "1"),
        ("vision/classify/versions", "metadata", "versions", None),
        ("vision/classify/versions/infer", "infer", "versions", None),
        ("vision/classify/versions/versions/2.1.0/infer", "infer", "versions", "2.1.0"),
        ("vision/classify/ready/infer", "infer", "ready", None),
        ("vision/classify/infer/infer", "infer", "infer", None),
        ("vision/classify/stats/versions/1.0.0", "metadata", "stats", "1.0.0"),
        ("vision/classify/v1.onnx/infer", "infer", "v1.onnx", None),
    ],
)
def test_a_model_is_two_or_three_segments_and_the_shorter_reading_counts(
    path: str, action: str, model: str | None, version: str | None
) -> None:
    assert parse_path(f"/v2/models/{path}") == ModelPath(action, "vision", "classify", model, version)  # pyright: ignore


@pytest.mark.parametrize(("path", "model"), [("o/n/load", None), ("o/n/load/load", "load"), ("o/n/m/load", "m")])
def test_the_last_segment_in_the_repository_is_the_command(path: str, model: str | None) -> None:
    assert parse_path(f"/v2/repository/models/{path}") == ModelPath("load", "o", "n", model, None)


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/v2", "server"),
        ("/v2/", "server"),
        ("/v2/health/live", "live"),
        ("/v2/health/ready", "health"),
        ("/v2/models/stats", "all stats"),
        ("/v2/repository/index", "index"),
    ],
)
def test_the_server_has_paths_of_its_own(path: str, action: str) -> None:
    assert parse_path(path) == action
    assert METHODS[action]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models",
        "/v2/models/",
        "/v2/models/alone",
        "/v2/models//x/infer",
        "/v2/models/o/n/m/x/infer",
        "/v2/models/o/n/infer/x",
        "/v2/models/o/n/versions/none/extra",
        "/v2/models/o/n\n/infer",
        "/v2/models/o/n/in\x00fer",
        "/v2/models/../../v1/pool",
        "/v2/models/ö/n/infer",
        "/v2/models/o/n/m/generate",
        "/v2/repository/models/o/n",
        "/v2/repository/models/o/n/pin",
        "/v2/systemsharedmemory/region/x/register",
        "/v2/models/" + "a" * 1000 + "/n/infer",
        "/v2x",
    ],
)
def test_anything_else_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        parse_path(path)


def test_only_tensors_may_be_large() -> None:
    assert is_infer("/v2/models/o/n/versions/1.0.0/infer")
    assert not is_infer("/v2/models/o/n")
    assert not is_infer("/v1/publish/infer")
