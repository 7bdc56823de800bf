"""Algorithmia's own Python client, as it was published, against this gateway."""

import warnings
from pathlib import Path

import pytest

from serai_gateway.testing import Service

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package predates this Python
    import Algorithmia
    from Algorithmia.errors import AlgorithmException

_PHOTO = Path(__file__).parents[2] / "algorithms/vision/classify/sample.jpg"


@pytest.fixture
def client(service: Service):
    return Algorithmia.client(service.key, service.address)


def test_it_calls_hello(client) -> None:
    answer = client.algo("demo/Hello").pipe("HAL")
    assert answer.result == "Hello HAL"
    assert answer.metadata.content_type == "text"
    assert answer.metadata.duration > 0


def test_it_classifies_a_photograph(client) -> None:
    answer = client.algo("vision/classify").pipe(bytearray(_PHOTO.read_bytes()))
    best = answer.result["labels"][0]
    assert "cat" in best["label"].lower()
    assert 0.3 < best["probability"] <= 1


def test_it_gets_bytes_back_and_raw_output(client) -> None:
    assert client.algo("operator/odd").pipe(b"\x00\x01\xff").result == b"\x00\x01\xff"
    raw = client.algo("operator/odd").set_options(output=Algorithmia.algorithm.OutputType.raw).pipe("plain")
    assert raw == "plain"


def test_it_raises_what_the_algorithm_raised(client) -> None:
    with pytest.raises(AlgorithmException, match="as asked"):
        client.algo("operator/odd").pipe("raise")


def test_its_options_reach_the_algorithm(client) -> None:
    answer = client.algo("operator/odd").set_options(timeout=60, stdout=True).pipe("print")
    assert answer.metadata.stdout == "printed\nand on stderr\n"
