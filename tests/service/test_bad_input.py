"""Hostile and mistaken requests: each gets its status and a way out, and the service stays well."""

import json
import socket
import time

import pytest

from serai_gateway.testing import Service


@pytest.fixture(autouse=True)
def canary(service: Service):
    """After every case the service is healthy and right."""
    yield
    assert service.request("GET", "/healthz").status == 200
    assert service.is_ready()
    assert service.call("demo/hello", b'"canary"').json()["result"] == "Hello canary"


def refused(answer, status: int, says: str) -> dict:
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert says.lower() in error["message"].lower(), error
    assert error["status"] == status
    assert error["request_id"].startswith("req-")
    assert isinstance(error["retriable"], bool)
    for leak in ("Traceback", "/home", "/tmp", "sqlite", "site-packages", ".sock"):
        assert leak not in error["message"]
    return error


def post(service: Service, path: str, body: bytes, **headers: str):
    return service.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})


def test_without_a_key(service: Service) -> None:
    answer = post(service, "/v1/algo/demo/hello", b'"x"', Content_Type="application/json")
    refused(answer, 401, "authorization required")


@pytest.mark.parametrize("value", ["", "Simple", "Bearer x", "sim" + "0" * 25, "x" * 5000, "a b c"])
def test_with_a_wrong_key(service: Service, value: str) -> None:
    answer = post(service, "/v1/algo/demo/hello", b'"x"', Content_Type="application/json", Authorization=value)
    refused(answer, 401, "key")


def test_unknown_and_private_algorithms_get_the_same_answer(service: Service, stranger_key: str, tmp_path) -> None:
    from serai_gateway.testing import write_algorithm

    folder = write_algorithm(tmp_path / "hidden", "def apply(input):\n    return 'hidden'\n")
    service.publish(folder, public=False)
    unknown = service.call("operator/nothing", b'"x"', key=stranger_key)
    private = service.call("operator/hidden", b'"x"', key=stranger_key)
    refused(unknown, 404, "algorithm algo://operator/nothing not found")
    refused(private, 404, "algorithm algo://operator/hidden not found")
    blank = {"request_id": "", "message": ""}
    assert {**unknown.json()["error"], **blank} == {**private.json()["error"], **blank}
    skip = {"date", "x-request-id", "content-length", "x-error-message"}
    assert {k: v for k, v in unknown.headers.items() if k not in skip} == {
        k: v for k, v in private.headers.items() if k not in skip
    }


@pytest.mark.parametrize("version", ["9.9.9", "2.*", "f" * 40, "latestPrivate", "nonsense"])
def test_versions_that_are_not_there(service: Service, stranger_key: str, version: str) -> None:
    answer = service.call(f"demo/hello/{version}", b'"x"', key=stranger_key)
    assert answer.status in (400, 404)
    refused(answer, answer.status, "hello" if answer.status == 404 else "version")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "send null"),
        (b"{'a': 1}", "invalid JSON"),
        (b"[NaN]", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[1e999]", "out of range"),
        (b"[" * 101 + b"]" * 101, "nesting exceeds 100"),
        (b'{"a":' * 100_000, "nesting exceeds 100"),
        (b'"\xff"', "UTF-8"),
    ],
)
def test_json_that_is_none(service: Service, body: bytes, says: str) -> None:
    refused(service.call("operator/odd", body), 400, says)


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (b"NaN]", "NaN"),
        (b"1e999]", "out of range"),
        (b"[" * 150 + b"]" * 150 + b"]", "nesting exceeds 100"),
        (b'"\xff"]', "UTF-8"),
        (b"1", "truncated"),
    ],
)
def test_json_that_is_none_is_refused_in_large_bodies_too(service: Service, tail: bytes, says: str) -> None:
    refused(service.call("operator/odd", b"[" + b"1.5," * 30_000 + tail), 400, says)


@pytest.mark.parametrize(
    "value",
    [[1.5e300] * 200_000, ['"\\' * 1_500_000], ["[[" * 1_000_000], {"a": "\n" * 900_000}],
    ids=["floats", "escapes", "brackets in a string", "line feeds"],
)
def test_a_large_body_that_is_slow_to_read_comes_back_whole(service: Service, value: object) -> None:
    assert service.call("operator/odd?output=raw", json.dumps(value).encode()).json() == value


def test_control_characters_in_a_name_come_back_in_no_header(service: Service) -> None:
    headers = {"Authorization": f"Simple {service.key}"}
    path = "/v1/pool/models/nobody/nothing/unpin?version=X%11%10%0A%F2%AC%9F%99"
    answer = service.request("POST", path, b"", headers)
    assert answer.status in (400, 404)
    assert answer.headers["x-error-message"].isprintable()


def test_bytes_where_text_is_declared(service: Service) -> None:
    refused(service.call("operator/odd", b"\xff\xfe\x00", "text/plain"), 400, "octet-stream")


@pytest.mark.parametrize(
    "kind", ["application/x-python-pickle", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_content_types_that_are_not_accepted(service: Service, kind: str) -> None:
    refused(service.call("operator/odd", b"x", kind), 415, "application/json")


@pytest.mark.parametrize(
    "options", ["timeout=0", "timeout=abc", "timeout=1&timeout=2", "output=void", "stdout=perhaps"]
)
def test_options_out_of_range(service: Service, options: str) -> None:
    refused(service.call(f"operator/odd?{options}", b'"x"'), 400, options.partition("=")[0])


def test_more_options_than_anybody_needs(service: Service) -> None:
    refused(service.call("operator/odd?" + "a=1&" * 900, b'"x"'), 400, "100 options")


@pytest.mark.parametrize("doubled", ["Authorization: other", "Content-Type: text/plain"])
def test_a_header_that_is_given_twice(service: Service, doubled: str) -> None:
    with socket.create_connection(("127.0.0.1", service.port), 10) as sock:
        head = f"POST /v1/algo/demo/hello HTTP/1.1\r\nHost: x\r\nAuthorization: {service.key}\r\n"
        sock.sendall(f"{head}Content-Type: text/plain\r\n{doubled}\r\nContent-Length: 1\r\n\r\nx".encode())
        assert b" 400 " in sock.recv(4096).split(b"\r\n")[0]


def test_a_wrong_method_names_the_right_one(service: Service) -> None:
    answer = service.request("GET", "/v1/algo/demo/hello", headers={"Authorization": service.key})
    refused(answer, 405, "POST")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/algo/", "/v1/algo/demo", "/v1/algo/demo/hello/1/2/3"])
def test_paths_that_are_not_there(service: Service, path: str) -> None:
    answer = post(service, path, b'"x"', Content_Type="application/json", Authorization=service.key)
    assert answer.status in (404, 405)


def test_one_byte_over_the_limit(service: Service) -> None:
    limit = 10 * 1024 * 1024
    body = b'"' + b"x" * (limit - 1) + b'"'
    assert len(body) == limit + 1
    refused(service.call("operator/odd", body), 413, "10 MiB")


def test_over_the_limit_without_saying_how_much(service: Service) -> None:
    """A chunked body is cut when it passes the limit, not read to its end."""
    with socket.create_connection(("127.0.0.1", service.port), 10) as sock:
        head = f"POST /v1/algo/operator/odd HTTP/1.1\r\nHost: x\r\nAuthorization: {service.key}\r\n"
        sock.sendall(f"{head}Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        sent, answer = 0, b""
        sock.settimeout(0.2)
        while sent < 64 and not answer:
            try:
                sock.sendall(chunk)
                sent += 1
            except OSError:
                break
            try:
                answer = sock.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
    assert sent < 64, "the server read 64 MiB"
    assert answer == b"" or b" 413 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"not a picture", "application/octet-stream"),
        (b'"not base64 !"', "application/json"),
        (b"{}", "application/json"),
    ],
)
def test_an_image_that_is_none(service: Service, data: bytes, kind: str) -> None:
    answer = service.call("vision/classify", data, kind)
    assert answer.status == 200
    assert answer.json()["error"]["error_type"] == "InputError"


def test_a_caller_who_leaves_does_not_hold_up_the_next(service: Service) -> None:
    body = json.dumps(["sleep", 15]).encode()
    with socket.create_connection(("127.0.0.1", service.port), 10) as sock:
        head = f"POST /v1/algo/operator/odd HTTP/1.1\r\nHost: x\r\nAuthorization: {service.key}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.1)
    assert service.call("operator/odd", b'"next"').json()["result"] == "next"


def test_a_call_past_its_timeout_is_504_and_the_next_one_works(service: Service) -> None:
    answer = service.call("operator/odd?timeout=0.5", b'["sleep", 30]')
    error = refused(answer, 504, "")
    assert error["error_type"] == "TimeoutError"
    assert service.call("operator/odd", b'"next"').json()["result"] == "next"


def test_a_replica_that_exits_is_replaced(service: Service) -> None:
    error = refused(service.call("operator/odd", b'"exit"'), 502, "exit")
    assert error["retriable"] is True
    assert service.call("operator/odd", b'"next"').json()["result"] == "next"


def test_a_replica_over_its_memory_is_told_the_limit(service: Service) -> None:
    answer = service.call("operator/odd", json.dumps(["hog", 1 << 30]).encode())
    assert answer.status == 200
    assert answer.json()["error"]["error_type"] == "OutOfMemoryError"
    assert "256 MiB" in answer.json()["error"]["message"]
    assert service.call("operator/odd", b'"next"').json()["result"] == "next"


def test_the_key_is_in_no_log_metric_or_process_list(service: Service) -> None:
    service.call("operator/odd", b'"raise"')
    key = service.key
    for log in (service.home / "logs").glob("*.log"):
        assert key not in log.read_text(errors="replace"), log
    assert key not in service.request("GET", "/metrics").body.decode()
    for process in __import__("psutil").process_iter(["cmdline", "environ"]):
        assert key not in " ".join(process.info["cmdline"] or ())
