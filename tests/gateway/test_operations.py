"""Every operation of Algorithmia's management API is served, or says that it is not here."""

import http.client
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serai_gateway.api.management.ids import public_id
from serai_gateway.api.v2.testing.gateway import publish_model, running_gateway
from serai_gateway.catalogue import ensure_operator, open_catalogue
from serai_gateway.server.testing import wait_until
from serai_gateway.testing import PATIENCE_S, Answer

_FILE = Path(__file__).parent / "operations.txt"
_OPERATIONS = [line.split() for line in _FILE.read_text().splitlines() if not line.startswith("#")]
_NAMES = {"username": "alice", "algoname": "same", "orgName": "team", "keyname": "x", "scmId": "internal"}

Ask = Callable[[str, str], Answer]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask as the operator, of paths like `…/{username}/…`: alice, who owns the algorithm `same`, and the team."""
    home = tmp_path_factory.mktemp("operations") / "home"
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue)
    alice = catalogue.ensure_account("alice")
    catalogue.ensure_account("team", "organization", owner=operator.account)
    catalogue.close()
    ids = {"algorithmId": public_id(publish_model(home, alice, "same", {"same": b"one"}).algorithm_id)}
    with running_gateway(home, "--log-level", "warning") as server:

        def ask(method: str, path: str) -> Answer:
            for segment in path.split("/"):
                if segment.startswith("{"):
                    name = segment[1:-1]
                    path = path.replace(segment, _NAMES.get(name) or ids.get(name) or str(uuid.uuid4()))
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
            try:
                # What would change something is nothing that can be done: a body that is no object.
                connection.request(method, path, "[]", {"Authorization": f"Simple {operator.key}"})
                answer = connection.getresponse()
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            finally:
                connection.close()

        wait_until(lambda: ask("GET", "/healthz").status == 200, "the gateway is up")
        yield ask


def test_the_list_is_whole() -> None:
    assert len(_OPERATIONS) == len({tuple(one) for one in _OPERATIONS}) == 142


@pytest.mark.parametrize(("method", "path"), sorted(_OPERATIONS, key=lambda one: one[0] == "DELETE"))
def test_an_operation_is_served_or_says_that_it_is_not(ask: Ask, method: str, path: str) -> None:
    if path == "/v1/algorithms/{username}" and method != "POST":
        path = "/v1/algorithms/{algorithmId}"  # as its document means it
    answer = ask(method, path)
    assert answer.status != 405 and b"no such path" not in answer.body, answer.body
    assert answer.status < 500 or answer.status in (501, 503), answer.body
    if answer.status >= 400 and method != "HEAD" and not path.startswith("/v1/algo/"):
        error = answer.json()["error"]
        assert isinstance(error, str) or isinstance(error["code"], int), answer.body
    if answer.status == 501 and method != "HEAD":
        assert json.loads(answer.body)["error"]["code"] == 5005
    is_read = method == "GET" and not path.rpartition("/")[2].startswith("{") and "buildid" not in path
    if is_read and "/algorithms/{" in path and answer.status != 501:
        assert answer.status == 200, answer.body
