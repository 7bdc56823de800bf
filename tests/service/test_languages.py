"""Repositories as Algorithmia's authors have them, and ours, side by side in one Serai, in each sandbox."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_gateway.catalogue import open_catalogue
from serai_gateway.testing import Service, write_algorithm

_REPOSITORIES = Path(__file__).parents[1] / "build" / "repositories"


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("languages")
    with Service(folder / "home", "--sandbox", sandbox) as running:
        catalogue = open_catalogue(running.home)
        catalogue.ensure_account("acme", kind="organization", owner=catalogue.account_named("operator"))
        catalogue.close()
        for name in ("plain", "adk", "node", "compiled"):
            shutil.copytree(_REPOSITORIES / name, folder / name)  # as it is, and from a place of its own
            running.publish(folder / name)
        running.publish(write_algorithm(folder / "native", "def apply(input):\n    return {'native': input}\n"))
        yield running


def _result(service: Service, algorithm: str, value: object) -> object:
    answer = service.call(algorithm, json.dumps(value).encode())
    assert answer.status == 200 and "result" in answer.json(), answer.body
    return answer.json()["result"]


def test_each_answers_in_its_language(service: Service) -> None:
    assert _result(service, "acme/WordCount", "one two two") == {"two": 2, "one": 1}
    assert _result(service, "acme/Thermostat", {"celsius": 100}) == {"value": 212.0, "scale": "fahrenheit"}
    assert _result(service, "acme/Slug", "Déjà vu, again!") == "deja-vu-again"
    assert _result(service, "acme/Statistics", [1, 2, 3, 4]) == {
        "count": 4, "min": 1, "max": 4, "mean": 2.5, "deviation": 1.118033988749895,
    }  # fmt: skip
    assert _result(service, "operator/native", 7) == {"native": 7}


def test_each_says_in_its_own_way_what_was_wrong_with_an_input(service: Service) -> None:
    for algorithm, value in (("acme/WordCount", 1), ("acme/Thermostat", 1), ("acme/Slug", 1), ("acme/Statistics", "x")):
        error = service.call(algorithm, json.dumps(value).encode()).json()["error"]
        assert error["message"] and error["error_type"] in ("InputError", "AlgorithmError"), (algorithm, error)


def test_bytes_go_in_and_come_out(service: Service) -> None:
    answer = service.call("acme/Slug", b"Ein Titel", "application/octet-stream").json()
    assert answer["metadata"]["content_type"] == "binary"
    assert base64.b64decode(answer["result"]) == b"ein-titel"


def test_all_of_them_at_once_answer_their_own_callers(service: Service) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> bool:
        words = f"a{number} b{number}"
        expected = {f"a{number}": 1, f"b{number}": 1}
        return (
            _result(service, "acme/WordCount", words) == expected
            and _result(service, "acme/Slug", words) == f"a{number}-b{number}"
            and _result(service, "acme/Thermostat", {"celsius": number})["value"] == round(1.8 * number + 32, 2)  # pyright: ignore
            and _result(service, "acme/Statistics", [number])["mean"] == number  # pyright: ignore
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(40)))
