"""Inference through a real gateway and real sockets, with a pool that gives back what it gets."""

import json
import struct
import threading
import time
from typing import Any

import msgspec
import pytest

from serai.ipc.messages import Cancel, Failure, Infer, Inferred, Refusal, Wanted, Written
from serai_gateway.api.v2.testing.fake_pool import FakePool, give_back
from serai_gateway.api.v2.testing.gateway import Gateway, error_of, request
from serai_gateway.server.testing import wait_until


def test_json_goes_in_and_comes_out(gateway: Gateway, pool: FakePool) -> None:
    answer = gateway.infer(request(1, 2.5, -3, id="my id"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {
        "model_name": "alice/same",
        "model_version": "1.1.0",
        "id": "my id",
        "outputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.5, -3.0]}],
    }
    message, payload = pool.last(Infer)
    assert isinstance(message, Infer)
    assert payload == b"[1, 2.5, -3]"
    assert (message.payer, message.model, message.priority) == ("alice", "same", 0)
    assert message.call_id == answer.headers["x-request-id"]


def test_raw_bytes_go_in_and_come_out(gateway: Gateway) -> None:
    raw = struct.pack("<200000f", *range(200_000))
    tensor = {"name": "x", "shape": [200_000], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = gateway.infer(head + raw, Inference_Header_Content_Length=len(head))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    at = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:at])["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert answer.body[at:] == raw


def test_a_body_of_more_than_ten_mebibytes_is_taken_when_it_is_binary(gateway: Gateway) -> None:
    raw = bytes(12 << 20)
    tensor = {"name": "x", "shape": [len(raw)], "datatype": "UINT8", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "none"}]}).encode()
    answer = gateway.infer(head + raw, Inference_Header_Content_Length=len(head))
    assert answer.status == 200, answer.body
    too_much = gateway.infer(b" " * len(raw))
    assert too_much.status == 413
    assert "10 MiB" in error_of(too_much)


def test_outputs_come_in_the_form_that_each_of_them_was_asked_for(gateway: Gateway) -> None:
    tensor = {"shape": [2], "datatype": "INT16"}
    inputs = [{"name": name, "data": [number, 7], **tensor} for number, name in enumerate("abc")]
    outputs = [{"name": "A"}, {"name": "B", "parameters": {"binary_data": True}}]
    answer = gateway.infer(json.dumps({"inputs": inputs, "outputs": outputs}).encode())
    at = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.body[:at])["outputs"]
    assert [output["name"] for output in told] == ["A", "B"]
    assert told[0]["data"] == [0, 7]
    assert struct.unpack("<2h", answer.body[at:]) == (1, 7)


def test_a_model_is_named_by_owner_and_algorithm_or_by_its_own_name_too(gateway: Gateway, pool: FakePool) -> None:
    for path, model in (("alice/many/first", "first"), ("alice/many/infer", "infer"), ("ALICE/Same/same", "same")):
        assert gateway.infer(request(1), path=path).status == 200
        message, _ = pool.last(Infer)
        assert isinstance(message, Infer)
        assert message.model == model
    unnamed = gateway.infer(request(1), path="alice/many")
    assert unnamed.status == 404
    assert error_of(unnamed) == "alice/many has 2 models; name one of alice/many/first, alice/many/infer"
    assert "there are alice/many/first" in error_of(gateway.infer(request(1), path="alice/many/third"))


def test_versions_are_those_of_calls(gateway: Gateway) -> None:
    for version, resolved in (("1.0.0", "1.0.0"), ("1", "1.1.0"), ("1.0.*", "1.0.0"), ("latest", "1.1.0")):
        answer = gateway.infer(request(1), path=f"alice/same/versions/{version}")
        assert json.loads(answer.body)["model_version"] == resolved
    assert gateway.infer(request(1), path="alice/same/versions/9.9.9").status == 404
    assert gateway.infer(request(1), path="alice/same/versions/1.2.3.4").status == 400


@pytest.mark.parametrize("action", ["", "/infer", "/ready", "/stats", "/config"])
def test_what_is_private_looks_like_what_does_not_exist(gateway: Gateway, action: str) -> None:
    method, body = ("POST", request(1)) if action == "/infer" else ("GET", b"")
    private = gateway.ask(method, f"/v2/models/alice/secret{action}", body, key="bob")
    unknown = gateway.ask(method, f"/v2/models/alice/nobody{action}", body, key="bob")
    assert private.status == unknown.status == 404
    assert private.body.replace(b"secret", b"nobody") == unknown.body
    assert private.headers.keys() == unknown.headers.keys()
    assert gateway.ask(method, f"/v2/models/alice/secret{action}", body).status == 200


def test_keys_are_those_of_calls(gateway: Gateway) -> None:
    assert gateway.infer(request(1), key=None).status == 401
    assert gateway.infer(request(1), key=None, Authorization="Bearer simnonsense").status == 401
    assert gateway.infer(request(1), key=None, Authorization=f"Bearer {gateway.keys['bob']}").status == 200
    assert gateway.infer(request(1), key=None, Authorization=gateway.keys["bob"]).status == 200
    assert "may not call algorithms" in error_of(gateway.infer(request(1), key="no calls"))
    assert gateway.infer(request(1), key="no calls").status == gateway.infer(request(1), key="other").status == 403
    assert gateway.ask("GET", "/v2/models/alice/same", key=None).status == 401
    assert gateway.ask("POST", "/v2/repository/index", key=None).status == 401


def test_priority_and_timeout_reach_the_pool(gateway: Gateway, pool: FakePool) -> None:
    before = time.monotonic()
    assert gateway.infer(request(1, parameters={"priority": 1, "timeout": 2_000_000})).status == 200
    message, _ = pool.last(Infer)
    assert isinstance(message, Infer)
    assert message.priority == -1
    assert before + 2 <= message.deadline <= time.monotonic() + 2


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        (Failure(0, "InputError", "x has the wrong shape"), 400, "x has the wrong shape"),
        (Failure(0, "InitializationError", "cannot be loaded"), 400, "cannot be loaded"),
        (Refusal(0, "busy", "too many calls wait", retriable=True, retry_after_s=2.0), 503, "too many calls wait"),
        (Refusal(0, "deadline", "it cannot be met"), 504, "it cannot be met"),
        (Refusal(0, "crashed", "the worker died", retriable=True), 502, "the worker died"),
        (Refusal(0, "invalid", "no such output"), 400, "no such output"),
        (Refusal(0, "too_large", "the result is too large"), 413, "the result is too large"),
        (Inferred(0, (Written("y", "float32", (9,)),), 0.0), 500, "longer than what came"),
    ],
)
def test_what_the_pool_refuses_is_an_error_of_the_protocol(
    gateway: Gateway, pool: FakePool, reply: Any, status: int, says: str
) -> None:
    pool.reply = lambda infer, _: [(msgspec.structs.replace(reply, id=infer.id), b"")]
    answer = gateway.infer(request(1, 2, 3))
    assert answer.status == status
    assert says in error_of(answer)
    assert ("retry-after" in answer.headers) == (status == 503)
    pool.reply = None
    assert gateway.infer(request(1, 2, 3)).status == 200


def test_a_pool_that_says_nothing_is_a_timeout_and_is_told(gateway: Gateway, pool: FakePool) -> None:
    pool.reply = lambda _infer, _payload: []
    answer = gateway.infer(request(1, parameters={"timeout": 100_000}))
    assert answer.status == 504
    assert "0.1 s" in error_of(answer)
    asked, _ = pool.last(Infer)
    told, _ = pool.last(Cancel)
    assert isinstance(asked, Infer)
    assert isinstance(told, Cancel)
    assert told.id == asked.id


def test_a_caller_who_leaves_is_noticed_and_the_pool_is_told(gateway: Gateway, pool: FakePool) -> None:
    came = threading.Event()
    pool.reply = lambda _infer, _payload: came.set() or []
    body = request(1)
    with gateway.server.client() as client:
        head = f"POST /v2/models/alice/same/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        client.send(f"{head}Authorization: {gateway.keys['alice']}\r\n\r\n".encode() + body)
        assert came.wait(20)
    asked, _ = pool.last(Infer)
    assert isinstance(asked, Infer)
    wait_until(lambda: any(message == Cancel(asked.id) for message, _ in list(pool.received)), "the call is cancelled")


def test_a_pool_that_dies_is_a_502_and_the_next_call_works(gateway: Gateway, pool: FakePool) -> None:
    def die(_infer: Infer, _payload: bytes) -> list[Any]:
        pool.cut()
        return []

    pool.reply = die
    answer = gateway.infer(request(1, 2, 3))
    assert answer.status == 502
    assert "died" in error_of(answer)
    pool.reply = None
    assert gateway.infer(request(1, 2, 3)).status == 200  # on a new connection, where the version is defined anew


def test_many_at_once_get_each_their_own_answer(gateway: Gateway, pool: FakePool) -> None:
    held: list[tuple[Infer, bytes]] = []

    def backwards(infer: Infer, payload: bytes) -> list[Any]:
        held.append((infer, payload))
        return [give_back(*pair) for pair in reversed(held)] if len(held) == 8 else []

    pool.reply = backwards
    answers: dict[int, Any] = {}

    def one(number: int) -> None:
        answers[number] = json.loads(gateway.infer(request(number, id=str(number))).body)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: (told["id"], told["outputs"][0]["data"]) for number, told in answers.items()} == {
        number: (str(number), [float(number)]) for number in range(8)
    }


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{", {}, 400, "not JSON"),
        (request(1), {"Content_Encoding": "gzip"}, 415, "compressed"),
        (request(1), {"Content_Type": "application/x-python-pickle"}, 415, "octet-stream"),
        (request(1), {"Inference_Header_Content_Length": 1000}, 400, "the body has"),
        (request(1), {"Inference_Header_Content_Length": "1, 2"}, 400, "Inference-Header-Content-Length"),
        (request(1, outputs=[{"name": "X", "parameters": {"classification": 1}}]), {}, 400, "classification"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_pool_sees_it(
    gateway: Gateway, pool: FakePool, body: bytes, headers: dict[str, Any], status: int, says: str
) -> None:
    seen = len(pool.received)
    answer = gateway.infer(body, **headers)
    assert answer.status == status
    assert says in error_of(answer)
    assert len(pool.received) == seen


def test_the_wrong_method_and_the_wrong_path_say_what_is_right(gateway: Gateway) -> None:
    wrong = gateway.ask("GET", "/v2/models/alice/same/infer")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert gateway.ask("POST", "/v2").status == 405
    nowhere = gateway.ask("GET", "/v2/systemsharedmemory/status")
    assert nowhere.status == 404
    assert "/v2/models/OWNER/NAME" in error_of(nowhere)


def test_inferences_are_counted_like_calls(gateway: Gateway, pool: FakePool) -> None:
    def counted(outcome: str) -> int:
        text = gateway.ask("GET", "/metrics").body.decode()
        return int(float(text.partition(f'serai_calls_total{{outcome="{outcome}"}} ')[2].split()[0]))

    before = counted("ok"), counted("invalid_request"), counted("algorithm_error")
    gateway.infer(request(1, 2, 3))
    gateway.infer(b"{")
    pool.reply = lambda infer, _: [(Failure(infer.id, "InputError", "no"), b"")]
    gateway.infer(request(1, 2, 3))
    gateway.ask("GET", "/v2/models/alice/same")
    assert (counted("ok"), counted("invalid_request"), counted("algorithm_error")) == tuple(n + 1 for n in before)


def test_wanted_outputs_reach_the_pool(gateway: Gateway, pool: FakePool) -> None:
    gateway.infer(request(1, outputs=[{"name": "X", "parameters": {"binary_data": True}}]))
    message, _ = pool.last(Infer)
    assert isinstance(message, Infer)
    assert message.outputs == (Wanted("X", False),)
