"""Secrets of algorithms over HTTP, and what a runner host is told of them."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_gateway.api.management.secrets import PROVIDER_ID
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.catalogue import Permissions, open_catalogue
from serai_gateway.catalogue.secrets import MAX_SECRETS
from serai_gateway.secret_rules import MAX_VALUE_BYTES, RESERVED, RESERVED_PREFIXES
from serai_gateway.server.testing import Answer, wait_until
from serai_runner.sandbox.base import Box, Limits, box_variables
from serai_runner.testing import python_version

CANARY = "canary-5f1d0c6e-do-not-tell"
SAME = "/v1/algorithms/alice/same/secrets"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    with running_calls(tmp_path_factory.mktemp("secrets")) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def nothing_is_left(gateway: CallGateway) -> Iterator[None]:
    yield
    for path, key in ((SAME, "alice"), ("/v1/algorithms/team/ours/secrets", "bob")):
        for secret in json.loads(gateway.ask("GET", path, key=key).body)["secrets"]:
            assert gateway.ask("DELETE", f"{path}/{secret['id']}", key=key).status == 204


def body(**changes: object) -> dict[str, object]:
    given = {"owner_type": "algorithm", "short_name": "tst", "provider_id": PROVIDER_ID, "secret_key": "TEST_KEY",
             "secret_value": CANARY, "description": "loreum epsum"}  # fmt: skip
    return {name: value for name, value in (given | changes).items() if value is not ...}


def create(gateway: CallGateway, **changes: object) -> dict[str, str]:
    answer = gateway.ask("POST", SAME, body(**changes))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def refusal(answer: Answer) -> tuple[int, int]:
    assert CANARY.encode() not in answer.body
    return answer.status, answer.error["code"]


def told(gateway: CallGateway) -> dict[str, str]:
    """What the host has been told with the next call of alice/same."""
    assert gateway.call().status == 200
    found = [secrets for key, secrets in gateway.host.secrets if key.startswith("alice/same@")]
    return dict(max(found, key=lambda one: one.changed_at).values)


def test_there_is_one_provider(gateway: CallGateway) -> None:
    [provider] = json.loads(gateway.ask("GET", "/v1/secret-provider").body)
    assert provider["id"] == PROVIDER_ID and provider["isDefault"] and provider["isEnabled"]
    assert refusal(gateway.ask("GET", "/v1/secret-provider", key="")) == (401, 2002)


def test_a_secret_is_made_listed_changed_and_removed_and_its_value_never_told(gateway: CallGateway) -> None:
    made = create(gateway)
    assert set(made) == {"id", "short_name", "description", "secret_key", "owner_type", "owner_id", "provider_id",
                         "created", "modified"}  # fmt: skip
    assert (made["short_name"], made["secret_key"], made["owner_type"]) == ("tst", "TEST_KEY", "algorithm")
    assert str(uuid.UUID(made["id"])) == made["id"] and made["created"].endswith("Z")
    listed = gateway.ask("GET", SAME)
    assert json.loads(listed.body) == {"results": [made], "secrets": [made]} and CANARY.encode() not in listed.body
    changed = json.loads(gateway.ask("PUT", f"{SAME}/{made['id']}", {"description": "new", "short_name": "x"}).body)
    assert (changed["description"], changed["short_name"], changed["secret_key"]) == ("new", "x", "TEST_KEY")
    assert told(gateway) == {"TEST_KEY": CANARY}
    assert gateway.ask("DELETE", f"{SAME}/{made['id']}").status == 204
    assert refusal(gateway.ask("DELETE", f"{SAME}/{made['id']}")) == (404, 8008)
    assert refusal(gateway.ask("PUT", f"{SAME}/{made['id']}", body())) == (404, 8008)
    assert told(gateway) == {}


def test_the_algorithms_id_leads_to_the_same(gateway: CallGateway) -> None:
    made = create(gateway)
    by_id = f"/v1/algorithms/{made['owner_id']}/secrets"
    assert json.loads(gateway.ask("GET", by_id).body)["results"] == [made]
    other = json.loads(
        gateway.ask(
            "POST", by_id, body(secret_key="OTHER", short_name="other", owner_id=made["owner_id"], description=" ")
        ).body
    )
    assert gateway.ask("PUT", f"{by_id}/{other['id']}", body(secret_key="O", short_name="o")).status == 200
    assert gateway.ask("DELETE", f"{by_id}/{uuid.UUID(other['id']).hex}").status == 204


def test_a_change_reaches_the_next_call(gateway: CallGateway) -> None:
    made = create(gateway)
    for number in range(5):
        assert gateway.ask("PUT", f"{SAME}/{made['id']}", {"secret_value": f"value-{number}"}).status == 200
        assert told(gateway) == {"TEST_KEY": f"value-{number}"}
    assert gateway.ask("PUT", f"{SAME}/{made['id']}", {"secret_key": "RENAMED"}).status == 200
    assert told(gateway) == {"RENAMED": "value-4"}


def test_what_another_worker_has_changed_counts_within_a_moment(gateway: CallGateway, tmp_path_factory) -> None:
    made = create(gateway)
    assert told(gateway) == {"TEST_KEY": CANARY}
    catalogue = open_catalogue(gateway.home)
    catalogue.remove_secret(uuid.UUID(made["owner_id"]).hex, uuid.UUID(made["id"]).hex)
    catalogue.close()
    began = time.monotonic()
    wait_until(lambda: told(gateway) == {}, "the worker has looked again")
    assert time.monotonic() - began < 2


def test_other_changes_are_not_told_again(gateway: CallGateway) -> None:
    create(gateway)
    told(gateway)
    num = len(gateway.host.secrets)
    catalogue = open_catalogue(gateway.home)
    catalogue.ensure_account(f"somebody{uuid.uuid4().hex[:8]}")
    catalogue.close()
    time.sleep(0.2)  # the worker looks at the catalogue no more often than every 0.1 s
    told(gateway)
    assert len(gateway.host.secrets) == num


def test_only_who_manages_the_algorithm_comes_near(gateway: CallGateway) -> None:
    made = create(gateway)
    paths = (("GET", SAME), ("POST", SAME), ("PUT", f"{SAME}/{made['id']}"), ("DELETE", f"{SAME}/{made['id']}"))
    catalogue = open_catalogue(gateway.home)
    weak = catalogue.create_key(catalogue.account_named("alice"), "weak", Permissions(manage=False)).text
    catalogue.close()
    for method, path in paths:
        assert refusal(gateway.ask(method, path, body(), key="bob")) == (403, 2001)
        assert refusal(gateway.ask(method, path, body(), key="")) == (401, 2002)
        assert refusal(gateway.ask(method, path, body(), key=weak))[0] == 403
        assert refusal(gateway.ask(method, path.replace("same", "nothing"), body()))[0] == 404
    ours = "/v1/algorithms/team/ours/secrets"
    assert gateway.ask("POST", ours, body(), key="bob").status == 200  # who manages the organization
    assert gateway.ask("GET", ours, key="operator").status == 200
    other = json.loads(gateway.ask("GET", ours, key="bob").body)["results"][0]["id"]
    assert refusal(gateway.ask("DELETE", f"{SAME}/{other}")) == (404, 8008)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"secret_value": ...}, (400, 8004)),
        ({"secret_value": ""}, (400, 8004)),
        ({"secret_value": None}, (400, 8004)),
        ({"secret_key": ...}, (400, 8000)),
        ({"short_name": ...}, (400, 8000)),
        ({"secret_value": [CANARY]}, (400, 8000)),
        ({"secret_key": "1ST"}, (400, 8001)),
        ({"secret_key": "A-B"}, (400, 8001)),
        ({"secret_key": "É"}, (400, 8001)),
        ({"secret_key": "A\n"}, (400, 8001)),
        ({"secret_key": "A" * 129}, (400, 8001)),
        ({"secret_key": ""}, (400, 8001)),
        ({"secret_key": "LD_PRELOAD"}, (400, 8001)),
        ({"secret_key": "pythonpath"}, (400, 8001)),
        ({"secret_key": "NODE_OPTIONS"}, (400, 8001)),
        ({"secret_key": "ALGORITHMIA_API"}, (400, 8001)),
        ({"secret_key": "SERAI_API_KEY"}, (400, 8001)),
        ({"secret_key": "PATH"}, (400, 8001)),
        ({"secret_value": CANARY + "x" * MAX_VALUE_BYTES}, (400, 8001)),
        ({"secret_value": CANARY + "\0"}, (400, 8001)),
        ({"short_name": " "}, (400, 8001)),
        ({"short_name": "a\nb"}, (400, 8001)),
        ({"description": "x" * 1001}, (400, 8001)),
        ({"provider_id": str(uuid.uuid4())}, (404, 8006)),
        ({"owner_type": "user"}, (400, 8001)),
        ({"owner_id": str(uuid.uuid4())}, (400, 8001)),
    ],
)
def test_what_is_refused(gateway: CallGateway, changes: dict[str, object], expected: tuple[int, int]) -> None:
    assert refusal(gateway.ask("POST", SAME, body(**changes))) == expected
    assert json.loads(gateway.ask("GET", SAME).body)["secrets"] == []


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b'{"secret_value": "' + CANARY.encode(), b"\xff", b"nan"])
def test_what_is_no_description_is_refused(gateway: CallGateway, raw: bytes) -> None:
    assert refusal(gateway.ask("POST", SAME, raw)) in ((400, 8000), (400, 8004))


def test_the_limit_is_named(gateway: CallGateway) -> None:
    create(gateway, secret_value="x" * MAX_VALUE_BYTES, secret_key="A" * 128, short_name="longest")
    answer = gateway.ask("POST", SAME, body(secret_value="x" * (MAX_VALUE_BYTES + 1)))
    assert f"{MAX_VALUE_BYTES:,}" in answer.error["message"]
    for number in range(MAX_SECRETS - 1):
        create(gateway, secret_key=f"K{number}", short_name=f"k{number}")
    answer = gateway.ask("POST", SAME, body())
    assert refusal(answer) == (400, 8001) and f"at most {MAX_SECRETS}" in answer.error["message"]


def test_names_are_taken_once(gateway: CallGateway) -> None:
    create(gateway)
    assert refusal(gateway.ask("POST", SAME, body(short_name="other"))) == (409, 8001)
    assert refusal(gateway.ask("POST", SAME, body(secret_key="OTHER"))) == (409, 8001)


def test_whatever_a_box_sets_itself_is_reserved() -> None:
    box = Box(1, python_version("/code"), Limits(1, 1, 1.0, 1))
    for name in [*box_variables(box), "SERAI_POOL_SOCKET", "ALGORITHMIA_API_KEY", "NODE_PATH", "PYTHONPATH"]:
        assert name in RESERVED or name.startswith(RESERVED_PREFIXES), name


def test_one_that_cannot_be_read_stops_the_calls_and_can_be_set_again(gateway: CallGateway) -> None:
    made = create(gateway)
    catalogue = open_catalogue(gateway.home)
    [kept] = catalogue.all_secrets()
    catalogue.reseal_secret(kept, kept.sealed[:-1] + b"?")
    catalogue.ensure_account(f"somebody{uuid.uuid4().hex[:8]}")  # sealing anew is no change that caches must see
    catalogue.close()
    wait_until(lambda: gateway.call().status == 500, "it is noticed")
    answer = gateway.call()
    assert "secrets of alice/same" in answer.error["message"] and CANARY.encode() not in answer.body
    assert gateway.ask("PUT", f"{SAME}/{made['id']}", {"secret_value": CANARY}).status == 200
    assert told(gateway) == {"TEST_KEY": CANARY}


def test_it_lies_nowhere_in_the_clear(gateway: CallGateway) -> None:
    create(gateway)
    assert told(gateway) == {"TEST_KEY": CANARY}
    for path in Path(gateway.home).rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
