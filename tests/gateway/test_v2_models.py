"""What a gateway tells of its models and of the pool, and who may steer them."""

import json
from typing import Any

import msgspec
import pytest

from serai.ipc.messages import Command, Infer
from serai_gateway.api.v2.testing.fake_pool import FakePool
from serai_gateway.api.v2.testing.gateway import Gateway, error_of, request
from serai_gateway.api.v2.testing.views import model_view, snapshot
from serai_gateway.server.testing import wait_until
from serai_gpu_pool.snapshot import Snapshot


def test_the_server_says_what_it_is_to_anybody(gateway: Gateway) -> None:
    about = json.loads(gateway.ask("GET", "/v2", key=None).body)
    assert about["name"] == "serai"
    assert {"binary_tensor_data", "model_repository", "schedule_policy", "statistics"} <= set(about["extensions"])
    assert json.loads(gateway.ask("GET", "/v2/health/live", key=None).body) == {"live": True}
    assert json.loads(gateway.ask("GET", "/v2/health/ready", key=None).body) == {"ready": True}


def test_a_model_says_what_goes_in_and_what_comes_out(gateway: Gateway) -> None:
    about = json.loads(gateway.ask("GET", "/v2/models/alice/same", key="bob").body)
    assert about == {
        "name": "alice/same",
        "versions": ["1.1.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}],
    }
    odd = json.loads(gateway.ask("GET", "/v2/models/alice/odd").body)["inputs"]
    assert odd == [
        {"name": "t", "datatype": "BYTES", "shape": [-1]},
        {"name": "n", "datatype": "INT64", "shape": [-1, 2, -1]},
    ]
    told = json.loads(gateway.ask("GET", "/v2/models/alice/odd/config").body)
    assert (told["name"], told["backend"], told["max_batch_size"]) == ("alice/odd", "onnxruntime", 0)
    assert told["input"][0] == {"name": "t", "data_type": "TYPE_STRING", "dims": [-1]}
    assert told["input"][1] == {"name": "n", "data_type": "TYPE_INT64", "dims": [-1, 2, -1]}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("net/infer", "POST /v2/models/OWNER/NAME/infer"),
        ("alice/same", "POST /v2/models/OWNER/NAME/infer"),
        ("alice/same/load", "to load a model: POST /v2/repository/models/OWNER/NAME/load"),
        ("net/unload", "to unload a model: POST /v2/repository/models/OWNER/NAME/unload"),
    ],
)
def test_what_is_posted_to_the_wrong_path_is_told_the_right_one(gateway: Gateway, path: str, says: str) -> None:
    answer = gateway.ask("POST", f"/v2/models/{path}", b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert error_of(answer).startswith("use GET here; ")
    assert says in error_of(answer)


def spec_of(gateway: Gateway, pool: FakePool, path: str) -> Any:
    """What the pool was told of a model. Runs it once."""
    assert gateway.infer(request(1), path=path).status == 200
    message, _ = pool.last(Infer)
    assert isinstance(message, Infer)
    return next(model for model in pool.versions[message.version].models if model.name == message.model)


def answers_that(gateway: Gateway, method: str, path: str, is_so: Any, **more: Any) -> None:
    """Ask until the gateway's look at the pool is new enough to show what has just been changed there."""
    wait_until(lambda: is_so(gateway.ask(method, path, **more)), f"{path} tells the pool's new state")


def test_a_model_that_is_held_to_be_broken_is_not_ready_and_says_why(gateway: Gateway, pool: FakePool) -> None:
    path = "/v2/models/alice/same/ready"
    assert json.loads(gateway.ask("GET", path).body) == {"name": "alice/same", "ready": True}
    pool.snapshot = snapshot(model_view(spec_of(gateway, pool, "alice/same"), verdict="crashed its worker 3 times"))
    answers_that(gateway, "GET", path, lambda answer: answer.status == 503 and "3 times" in error_of(answer))
    index = json.loads(gateway.ask("POST", "/v2/repository/index").body)
    entry = {entry["name"]: entry for entry in index}["alice/same"]
    assert entry["state"] == "UNAVAILABLE"
    assert entry["reason"] == "crashed its worker 3 times"
    ready = json.loads(gateway.ask("POST", "/v2/repository/index", b'{"ready": true}').body)
    assert "alice/same" not in {entry["name"] for entry in ready}


def test_the_index_lists_what_the_key_may_see(gateway: Gateway, pool: FakePool) -> None:
    public = {"alice/same", "alice/many/first", "alice/many/infer", "alice/odd", "team/ours"}
    for key, more in (("bob", set()), ("alice", {"alice/secret"}), ("operator", {"alice/secret"})):
        index = json.loads(gateway.ask("POST", "/v2/repository/index", key=key).body)
        assert {entry["name"] for entry in index} == public | more
    path = "/v2/repository/index"
    answers_that(gateway, "POST", path, lambda answer: b"UNAVAILABLE" not in answer.body)
    assert {entry["state"] for entry in json.loads(gateway.ask("POST", path).body)} == {"READY"}
    assert gateway.ask("POST", "/v2/repository/index", b"[1]").status == 400
    assert gateway.ask("POST", "/v2/repository/index", b" " * 100_000).status == 413


def test_statistics_are_the_pools_and_for_those_who_manage_the_model(gateway: Gateway, pool: FakePool) -> None:
    pool.snapshot = snapshot(model_view(spec_of(gateway, pool, "alice/same"), device="cuda:1"))
    path = "/v2/models/alice/same/stats"
    answers_that(gateway, "GET", path, lambda answer: b'"GPU"' in answer.body)
    (told,) = json.loads(gateway.ask("GET", path).body)["model_stats"]
    assert (told["name"], told["version"]) == ("alice/same", "1.1.0")
    assert (told["inference_count"], told["execution_count"]) == (10, 6)
    assert told["inference_stats"]["success"] == {"count": 10, "ns": 750_000_000}
    assert told["inference_stats"]["fail"]["count"] == 3
    assert told["batch_stats"][1]["compute_infer"] == {"count": 2, "ns": 200_000_000}
    assert told["memory_usage"] == [{"type": "GPU", "id": 1, "byte_size": 50_000_000}]
    assert told["last_inference"] > 1_600_000_000_000
    assert gateway.ask("GET", path, key="bob").status == 403
    assert gateway.ask("GET", path, key="no calls").status == 403
    everything = json.loads(gateway.ask("GET", "/v2/models/stats", key="operator").body)["model_stats"]
    assert {"alice/same", "alice/secret", "team/ours"} <= {entry["name"] for entry in everything}
    bobs = json.loads(gateway.ask("GET", "/v2/models/stats", key="bob").body)["model_stats"]
    assert [(entry["name"], entry["inference_count"]) for entry in bobs] == [("team/ours", 0)]


def test_load_and_unload_are_for_owner_manager_and_operator(gateway: Gateway, pool: FakePool) -> None:
    for key, path in (("alice", "alice/same"), ("operator", "alice/many/infer"), ("bob", "team/ours")):
        for verb in ("load", "unload"):
            assert gateway.ask("POST", f"/v2/repository/models/{path}/{verb}", b"{}", key=key).status == 200
            message, _ = pool.last(Command)
            assert isinstance(message, Command)
            asked = "release" if verb == "unload" and key != "operator" else verb
            assert (message.verb, message.model) == (asked, path.rpartition("/")[2])
    assert gateway.ask("POST", "/v2/repository/models/alice/same/load", key="bob").status == 403
    assert gateway.ask("POST", "/v2/repository/models/alice/secret/load", key="bob").status == 404
    assert gateway.ask("POST", "/v2/repository/models/alice/same/unload", key="no calls").status == 403
    changing = gateway.ask("POST", "/v2/repository/models/alice/same/load", b'{"parameters": {"config": "{}"}}')
    assert changing.status == 400
    assert "config" in error_of(changing)


def test_the_pool_is_the_operators_to_see_and_to_steer(gateway: Gateway, pool: FakePool) -> None:
    seen = gateway.ask("GET", "/v1/pool", key="operator")
    assert msgspec.json.decode(seen.body, type=Snapshot) == pool.snapshot
    for verb in ("load", "unload", "pin", "unpin"):
        done = gateway.ask("POST", f"/v1/pool/models/alice/same/{verb}?version=1.0.0", key="operator")
        assert json.loads(done.body) == {"model": "alice/same", "version": "1.0.0", "done": verb}
        message, _ = pool.last(Command)
        assert isinstance(message, Command)
        assert message.verb == verb
    assert gateway.ask("POST", "/v1/pool/models/alice/many/first/pin", key="operator").status == 200
    assert gateway.ask("POST", "/v1/pool/models/alice/same/explode", key="operator").status == 404
    assert gateway.ask("POST", "/v1/pool/models/alice/none/pin", key="operator").error["code"] == "not_found"
    for key in ("alice", "no calls"):
        assert gateway.ask("GET", "/v1/pool", key=key).status == 403
        assert gateway.ask("POST", "/v1/pool/models/alice/same/pin", key=key).status == 403
    assert gateway.ask("GET", "/v1/pool", key=None).status == 401
