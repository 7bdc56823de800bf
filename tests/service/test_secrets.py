"""Secrets, errors and insights through the whole service, with real boxes."""

import json
import os
import subprocess
import time
import warnings
from collections.abc import Iterator

import pytest

from serai_gateway.testing import PATIENCE_S, Answer, Service, until, write_algorithm
from serai_gateway.write_behind import WRITE_S

with warnings.catch_warnings():  # its modules have escapes that Python will refuse one day
    warnings.simplefilter("ignore")
    import Algorithmia
    from Algorithmia.errors import AlgorithmException

CANARY = "canary-7c1f9b2e-do-not-tell"

_SOURCE = """
import os, sys
print("loaded with", os.environ.get("BANK_TOKEN"))

def apply(input):
    token = os.environ.get("BANK_TOKEN")
    if input == "fail":
        raise ValueError("the bank refused " + token)
    if input == "print":
        print("my token is", token, flush=True)
    if input == "exit":
        print("dying with", token, file=sys.stderr, flush=True)
        os._exit(3)
    return token
"""

_THEIRS = """
import os
import Algorithmia

client = Algorithmia.client()

def apply(input):
    client.report_insights({"cats_in_image": input, "aKey": "aValue"})
    return os.environ.get("BANK_TOKEN")
"""


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("secrets")
    with Service(folder / "home", "--sandbox", sandbox, "--workers", "2") as running:
        running.publish(write_algorithm(folder / "bank", _SOURCE))
        running.publish(write_algorithm(folder / "nosy", _SOURCE))
        theirs = folder / "theirs"
        (theirs / "src").mkdir(parents=True)
        (theirs / "src" / "theirs.py").write_text(_THEIRS)
        (theirs / "requirements.txt").write_text("algorithmia>=2,<3\nsix\n")
        conf = {"username": "operator", "algoname": "theirs", "language": "python3"}
        (theirs / "algorithmia.conf").write_text(json.dumps(conf))
        running.publish(theirs)
        yield running


def manage(service: Service, method: str, path: str, body: object = None) -> Answer:
    headers = {"Authorization": f"Simple {service.key}", "Content-Type": "application/json"}
    return service.request(method, path, None if body is None else json.dumps(body).encode(), headers)


def set_secret(service: Service, algorithm: str, value: str) -> None:
    """Make it, or give it another value."""
    path = f"/v1/algorithms/operator/{algorithm}/secrets"
    there = [one for one in manage(service, "GET", path).json()["secrets"] if one["secret_key"] == "BANK_TOKEN"]
    if there:
        answer = manage(service, "PUT", f"{path}/{there[0]['id']}", {"secret_value": value})
    else:
        given = {"short_name": "bank", "secret_key": "BANK_TOKEN", "secret_value": value, "description": " "}
        answer = manage(service, "POST", path, given)
    assert answer.status == 200, answer.body


def call(service: Service, algorithm: str, input: object = 1) -> object:
    answer = service.call(f"operator/{algorithm}", json.dumps(input).encode()).json()
    return answer.get("result", answer.get("error"))


def test_a_secret_reaches_its_algorithm_and_no_other(service: Service) -> None:
    set_secret(service, "bank", "first-value")
    until(lambda: call(service, "bank") == "first-value", "it has arrived", 5)
    assert call(service, "nosy") is None


def test_a_changed_one_counts_within_a_second_in_every_worker(service: Service) -> None:
    for number in range(5):
        set_secret(service, "bank", f"value-{number}")
        changed_at = time.monotonic()
        until(lambda number=number: call(service, "bank") == f"value-{number}", "it has arrived", 5)
        while time.monotonic() < changed_at + 0.2:  # what a worker remembers is no older than that
            call(service, "bank")
        assert {call(service, "bank") for _ in range(20)} == {f"value-{number}"}


def test_a_replica_that_is_kept_warm_is_replaced_without_a_call(service: Service) -> None:
    folder = service.home.parent / "warm"
    service.publish(write_algorithm(folder, _SOURCE, extra="[scaling]\nmin = 1\n"))

    def log() -> str:
        return manage(service, "GET", "/v1/algorithms/operator/warm/logs").body.decode()

    until(lambda: "loaded with None" in log(), "it stands without a secret")
    for value in ("v1", "v2"):  # too short to be hidden
        set_secret(service, "warm", value)
        until(lambda value=value: f"loaded with {value}" in log(), "it stands with the new one")


def test_no_call_fails_while_secrets_change(service: Service) -> None:
    set_secret(service, "bank", "value-0")
    answers: list[object] = []
    for number in range(1, 4):
        answers += [call(service, "bank") for _ in range(10)]
        set_secret(service, "bank", f"value-{number}")
    assert all(isinstance(answer, str) and answer.startswith("value-") for answer in answers), answers


def test_algorithmias_client_reports_insights_and_sees_its_secret(service: Service) -> None:
    set_secret(service, "theirs", CANARY)
    until(lambda: call(service, "theirs", 3) == CANARY, "it has arrived", PATIENCE_S)
    path = "/v1/algorithms/operator/theirs/insights"
    time.sleep(2 * WRITE_S)  # nothing tells that nothing was written
    assert manage(service, "GET", path).json()["results"] == []  # it was not published to have them kept
    enable_insights(service, "theirs")
    assert call(service, "theirs", 4) == CANARY
    until(lambda: manage(service, "GET", path).json()["results"], "it has been written", 10)
    [kept] = manage(service, "GET", path).json()["results"]
    assert (kept["cats_in_image"], kept["aKey"], kept["algorithm_name"]) == (4, "aValue", "theirs")
    assert kept["request_id"].startswith("req-") and kept["duration_milliseconds"] > 0


def enable_insights(service: Service, name: str) -> None:
    """What publishing with `insights_enabled` does, for a version that is published already."""
    import sqlalchemy as sa

    from serai_gateway.catalogue.database import Database, sqlite_url, touch
    from serai_gateway.catalogue.tables import algorithms, versions

    database = Database(sqlite_url(service.home / "serai.db"))
    with database.write() as connection:
        [id] = connection.scalars(sa.select(algorithms.c.id).where(algorithms.c.name == name))
        details = {"settings": {"insights_enabled": True}}
        connection.execute(sa.update(versions).where(versions.c.algorithm_id == id).values(details=details))
        touch(connection)
    database.close()


def test_algorithmias_client_sets_secrets_and_reads_errors(service: Service) -> None:
    client = Algorithmia.client(service.key, service.address)
    bank = client.algo("operator/nosy")
    made = bank.set_secret("mine", "CLIENT_KEY", CANARY, "for the bank")
    assert (made["short_name"], made["secret_key"], made["description"]) == ("mine", "CLIENT_KEY", "for the bank")
    listed = bank.get_secrets()
    assert listed["secrets"] == listed["results"] == [made]
    [provider] = client.get_secret_providers()
    assert made["provider_id"] == provider["id"]
    with pytest.raises(AlgorithmException) as unknown:
        client.get_algorithm_errors("hello")
    assert unknown.value.message == "No such algorithm"
    assert client.get_algorithm_errors(bank.get_algorithm_id()) == []
    assert client.get_organization_errors("nobody") == client.get_user_errors("nobody") == []


def test_the_errors_of_an_algorithm_are_listed(service: Service) -> None:
    assert "as asked" not in str(call(service, "nosy", "fail"))
    path = "/v1/algorithms/operator/nosy/errors"
    until(lambda: manage(service, "GET", path).json(), "it has been written", 10)
    [error] = manage(service, "GET", path).json()
    assert error["algoname"] == "nosy" and "TypeError" in error["error"] and error["input"] == '"fail"'
    algorithm = manage(service, "GET", "/v1/algorithms/operator/theirs/secrets").json()["secrets"][0]["owner_id"]
    assert manage(service, "GET", f"/v1/algorithms/{algorithm}/errors").json() == []


def test_the_value_is_written_nowhere(service: Service, sandbox: str) -> None:
    set_secret(service, "bank", CANARY)
    until(lambda: call(service, "bank") == CANARY, "it has arrived", 5)
    answers = [str(call(service, "bank", what)) for what in ("fail", "exit", "fail")]
    assert all(CANARY not in answer for answer in answers) and "[secret BANK_TOKEN]" in answers[0]
    assert call(service, "bank", "print") == CANARY
    service.publish(service.home.parent / "bank")  # a build
    assert call(service, "bank") == CANARY

    def log() -> str:
        return manage(service, "GET", "/v1/algorithms/operator/bank/logs").body.decode()

    until(lambda: "my token is [secret BANK_TOKEN]" in log(), "the log holds what was printed", 10)
    errors = "/v1/algorithms/operator/bank/errors"
    until(lambda: len(manage(service, "GET", errors).json()) >= 3, "the errors are written", 10)
    told = [log(), service.output, *(manage(service, "GET", path).body.decode() for path in (
        errors, "/v1/users/operator/errors", "/v1/algorithms/operator/bank/secrets", "/metrics", "/v1/pool",
        "/v1/algorithms/operator/bank", "/v1/algorithms"))]  # fmt: skip
    assert all(CANARY not in text for text in told)
    for path in service.home.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def test_the_value_is_in_no_list_of_processes_or_containers(service: Service, sandbox: str) -> None:
    set_secret(service, "bank", CANARY)
    until(lambda: call(service, "bank") == CANARY, "it has arrived", 5)
    listed = subprocess.run(["ps", "auxww"], capture_output=True, check=True, timeout=PATIENCE_S).stdout
    assert CANARY.encode() not in listed
    if sandbox == "docker":
        import docker

        engine = docker.from_env()
        try:
            for container in engine.containers.list(filters={"label": "serai.home"}):
                assert CANARY not in json.dumps(container.attrs)
        finally:
            engine.close()


def test_after_a_restart_of_everything_it_is_there_again(service: Service) -> None:
    set_secret(service, "bank", CANARY)
    for name in ("runner", "gateway"):
        before = service.daemon_pid(name)
        os.kill(before, 9)
        until(lambda name=name, before=before: service.daemon_pid(name) != before and service.is_ready(), "it is back")
    until(lambda: call(service, "bank") == CANARY, "it has arrived", PATIENCE_S)
