"""Calls as the wire reference has them, through the whole service."""

import base64
import json

import pytest

from serai_gateway.testing import Service


def test_text_json_and_binary_come_back_as_they_went(service: Service) -> None:
    text = service.call("operator/odd", "grüß dich".encode(), "text/plain").json()
    assert text["result"] == "grüß dich"
    assert text["metadata"]["content_type"] == "text"
    value = {"a": [1, 2.5, None, True, "é", {"b": []}], "big": 2**64}
    answer = service.call("operator/odd", json.dumps(value).encode()).json()
    assert answer["result"] == value
    assert answer["metadata"]["content_type"] == "json"
    assert answer["metadata"]["duration"] > 0
    assert answer["metadata"]["request_id"].startswith("req-")
    data = bytes(range(256)) * 100
    binary = service.call("operator/odd", data, "application/octet-stream").json()
    assert base64.b64decode(binary["result"]) == data
    assert binary["metadata"]["content_type"] == "binary"


def test_null_is_void(service: Service) -> None:
    answer = service.call("operator/odd", b"null").json()
    assert answer["result"] is None
    assert answer["metadata"]["content_type"] == "void"


def test_raw_output_is_the_bare_result(service: Service) -> None:
    data = bytes(range(256))
    raw = service.call("operator/odd?output=raw", data, "application/octet-stream")
    assert (raw.body, raw.headers["content-type"]) == (data, "application/octet-stream")
    raw = service.call("operator/odd?output=raw", "grüß".encode(), "text/plain")
    assert (raw.body.decode(), raw.headers["content-type"]) == ("grüß", "text/plain; charset=utf-8")
    raw = service.call("operator/odd?output=raw", b'{"a": 1}')
    assert (raw.json(), raw.headers["content-type"]) == ({"a": 1}, "application/json")


@pytest.mark.parametrize("form", ["{}", "Simple {}", "Bearer {}"])
def test_the_key_is_accepted_in_three_forms(service: Service, form: str) -> None:
    headers = {"Authorization": form.format(service.key), "Content-Type": "text/plain"}
    assert service.request("POST", "/v1/algo/demo/hello", b"HAL", headers).json()["result"] == "Hello HAL"


@pytest.mark.parametrize(
    "path",
    [
        "demo/hello",
        "Demo/HELLO",
        "demo/hello/",
        "demo/hello/latest",
        "demo/hello/1.0.0",
        "demo/hello/1.*",
        "demo/hello/1.0.x",
    ],
)
def test_names_are_found_in_any_case_and_versions_resolve(service: Service, path: str) -> None:
    assert service.call(path, b'"HAL"').json()["result"] == "Hello HAL"


def test_the_scheme_in_the_path_is_stripped(service: Service) -> None:
    assert service.call("algo://demo/hello", b'"HAL"').json()["result"] == "Hello HAL"


def test_a_web_page_may_ask_first_and_then_call(service: Service) -> None:
    preflight = service.request("OPTIONS", "/v1/web/algo/demo/hello", headers={"Origin": "http://example.org"})
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    headers = {"Authorization": f"Simple {service.key}", "Content-Type": "application/json"}
    answer = service.request("POST", "/v1/web/algo/demo/hello", b'"HAL"', headers)
    assert answer.json()["result"] == "Hello HAL"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_an_algorithm_that_raises_is_an_outcome_with_an_error_object(service: Service) -> None:
    answer = service.call("operator/odd", b'"raise"')
    assert answer.status == 200
    error = answer.json()["error"]
    assert (error["message"], error["error_type"]) == ("as asked", "AlgorithmError")
    assert "ValueError" in error["stacktrace"]
    assert "odd.py" in error["stacktrace"]
    assert answer.json()["metadata"]["duration"] > 0
    assert service.call("operator/odd", b'"input error"').json()["error"]["error_type"] == "InputError"


def test_with_raw_output_an_algorithm_that_raises_is_400(service: Service) -> None:
    answer = service.call("operator/odd?output=raw", b'"raise"')
    assert answer.status == 400
    assert answer.json()["error"]["message"] == "as asked"


def test_the_stack_trace_and_the_output_are_for_the_owner(service: Service, stranger_key: str) -> None:
    answer = service.call("operator/odd", b'"raise"', key=stranger_key).json()
    assert answer["error"]["message"] == "as asked"
    assert "stacktrace" not in answer["error"]
    mine = service.call("operator/odd?stdout=true", b'"print"').json()
    assert mine["metadata"]["stdout"] == "printed\nand on stderr\n"
    assert "stdout" not in service.call("operator/odd", b'"print"').json()["metadata"]
    assert "stdout" not in service.call("operator/odd?stdout=true", b'"print"', key=stranger_key).json()["metadata"]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ('"nan"', "result is not JSON: NaN at $.a[3]"),
        ('"object"', "result is not JSON"),
        ('["deep", 150]', "nest"),
        ('["deep", 100000]', "nest"),
        ('["big", 10485761]', "10 MiB"),
    ],
)
def test_a_result_that_cannot_be_sent_is_the_algorithms_error(service: Service, what: str, says: str) -> None:
    answer = service.call("operator/odd", what.encode())
    assert answer.status == 200
    assert says in answer.json()["error"]["message"]
    assert service.call("operator/odd", b'"fine"').json()["result"] == "fine"


def test_ten_mebibytes_go_in_and_come_out(service: Service) -> None:
    body = b'"' + b"x" * (10 * 1024 * 1024 - 2) + b'"'
    answer = service.call("operator/odd?output=raw", body)
    assert answer.status == 200
    assert len(answer.body) == len(body) - 2


def test_metrics_tell_what_was_answered(service: Service) -> None:
    service.call("demo/hello", b'"HAL"')
    text = service.request("GET", "/metrics").body.decode()
    assert 'serai_calls_total{outcome="ok"}' in text
    assert "serai_call_duration_seconds_bucket" in text
    assert "serai_runner_" in text
    assert "serai_pool_" in text


def test_health_and_readiness(service: Service) -> None:
    assert service.request("GET", "/healthz").json() == {"status": "ok"}
    ready = service.request("GET", "/readyz").json()
    assert ready == {"status": "ready", "parts": {"runner": True, "pool": True, "database": True}}


def test_the_list_shows_what_is_public_to_anybody(service: Service) -> None:
    names = {f"{one['owner']}/{one['name']}" for one in service.request("GET", "/v1/algorithms").json()["results"]}
    assert {"demo/hello", "vision/classify", "vision/cutout", "vision/digits", "audio/speech"} <= names
    page = service.request("GET", "/v1/algorithms?limit=2").json()
    assert len(page["results"]) == 2
    following = service.request("GET", page["next_link"].removeprefix(service.address)).json()
    assert following["results"][0] not in page["results"]
    found = service.request("GET", "/v1/algorithms?q=hello").json()["results"]
    assert [one["name"] for one in found] == ["hello"]
