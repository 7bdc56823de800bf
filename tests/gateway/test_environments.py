"""Environments, templates, source-code hosts, and what the management API says of operations that are not here."""

import gzip
import http.client
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Iterator

import pytest

from serai_gateway.api.management.not_here import NOT_HERE
from serai_gateway.api.v2.testing.gateway import running_gateway
from serai_gateway.catalogue import ensure_operator, open_catalogue
from serai_gateway.server.testing import wait_until
from serai_gateway.testing import PATIENCE_S, Answer
from serai_runner import pythons

Ask = Callable[..., Answer]
_EDGE = "/v1/algorithm-environments/edge"


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask a gateway that nothing stands behind, as the operator, or as nobody with `key=""`."""
    home = tmp_path_factory.mktemp("surface") / "home"
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue).key
    catalogue.close()
    with running_gateway(home, "--log-level", "warning") as server:

        def ask(method: str, path: str, body: str | None = None, key: str = operator) -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
            try:
                connection.request(method, path, body, {"Authorization": f"Simple {key}"} if key else {})
                answer = connection.getresponse()
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            finally:
                connection.close()

        wait_until(lambda: ask("GET", "/healthz").status == 200, "the gateway is up")
        yield ask


def _refusal(answer: Answer) -> tuple[int, int]:
    error = answer.json()["error"]
    uuid.UUID(error["id"])
    assert error["message"], answer.body
    return answer.status, error["code"]


def test_languages_are_listed_with_condas_first(ask: Ask) -> None:
    languages = ask("GET", f"{_EDGE}/languages").json()
    assert languages[0]["name"] == "anaconda3" and languages[-1]["name"] == "python3"
    for language in languages:
        assert set(json.loads(language["configuration"])) == {"display_name", "req_files", "artifacts"}
    assert _refusal(ask("GET", f"{_EDGE}/languages", key="")) == (401, 2002)


def test_environments_of_python_are_the_interpreters_of_this_machine(ask: Ask) -> None:
    found = ask("GET", f"{_EDGE}/languages/python3/environments").json()["environments"]
    names = [environment["display_name"] for environment in found]
    assert f"Python {pythons.OURS}" in names and set(names) <= {f"Python {one}" for one in pythons.installed()}
    assert {environment["machine_type"] for environment in found} == {"CPU"}
    for environment in found:
        assert ask("GET", f"{_EDGE}/environments/{environment['id']}").json() == environment
    current = ask("GET", f"{_EDGE}/languages/python3/environments/current").json()
    assert current["display_name"] == f"Python {pythons.OURS}"
    available = ask("GET", f"{_EDGE}/environments/available").json()["environments"]
    assert all(environment in available for environment in found)


def test_unknown_environments_and_languages_are_refused(ask: Ask) -> None:
    assert _refusal(ask("GET", f"{_EDGE}/languages/python2/environments")) == (404, 4001)
    assert _refusal(ask("GET", f"{_EDGE}/languages/java11/environments/current")) == (404, 4001)
    assert _refusal(ask("GET", f"{_EDGE}/languages/klingon/environments")) == (404, 4001)
    assert _refusal(ask("GET", f"{_EDGE}/environments/{uuid.uuid4()}")) == (404, 4001)
    assert _refusal(ask("GET", f"{_EDGE}/environment-specifications/{uuid.uuid4()}/template")) == (404, 4001)


def test_every_template_is_an_archive_for_everybody(ask: Ask) -> None:
    for environment in ask("GET", f"{_EDGE}/environments/available").json()["environments"]:
        path = f"{_EDGE}/environment-specifications/{environment['environment_specification_id']}/template"
        answer = ask("GET", path, key="")
        assert answer.status == 200 and answer.body == ask("GET", path).body
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(answer.body))) as tar:
            conf = tar.extractfile("algorithmia.conf")
            assert conf is not None and json.load(conf)["algoname"] == "__ALGO__"
            assert any(name.startswith("src/__ALGO__.") for name in tar.getnames())


def test_there_is_one_place_for_source_code(ask: Ask) -> None:
    internal = {"id": "internal", "name": "", "provider": "internal", "default": True, "enabled": True}
    assert ask("GET", "/v1/scms").json() == {"results": [internal]}
    assert ask("GET", "/v1/scms/internal").json() == internal
    for status in ("oauth", "token"):
        assert ask("GET", f"/v1/scms/internal/{status}/status").json() == {"authorization_status": "unauthorized"}
    assert _refusal(ask("GET", "/v1/scms/github")) == (404, 4009)
    assert _refusal(ask("GET", "/v1/scms", key="")) == (401, 2002)


def test_webhooks_are_refused_and_tell_nothing(ask: Ask) -> None:
    for algorithm in ("operator/nothing", str(uuid.uuid4())):
        refused = ask("POST", f"/v1/algorithms/{algorithm}/scm/webhook", '{"ref": "x"}', key="")
        assert _refusal(refused) == (400, 4012)


@pytest.mark.parametrize("operation", NOT_HERE, ids=lambda operation: operation.path)
def test_what_is_not_here_says_so(ask: Ask, operation) -> None:
    path = operation.path.replace("{path:path}", "s3/a/b").replace("{", "").replace("}", "")
    for method in operation.methods:
        answer, for_nobody = ask(method, path), ask(method, path, key="")
        assert for_nobody.status == (501 if operation.is_open else 401), method
        assert answer.status == 501
        if method == "HEAD":
            assert answer.body == b"" and "not implemented" in answer.headers["x-error-message"]
            continue
        error = answer.json()["error"]
        assert error["code"] == 5005 and error["retriable"] is False
        assert error["message"] == f"Feature not implemented. {operation.why}"


def test_a_wrong_method_names_what_a_path_serves(ask: Ask) -> None:
    refused = ask("PATCH", "/v1/organization/types")
    assert _refusal(refused)[0] == 405 and refused.headers["allow"] == "GET, HEAD"
    refused = ask("PATCH", "/v1/admin/features")
    assert _refusal(refused)[0] == 405 and refused.headers["allow"] == ""
