"""One real Serai for the tests of this folder, with algorithms that misbehave in chosen ways."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_gateway.testing import Service, write_algorithm

_ODD = """
import os, sys, time

def apply(input):
    what, *rest = input if isinstance(input, list) else [input]
    if what == "nan":
        return {"a": [1, 2, 3, float("nan")]}
    if what == "object":
        return {"x": object()}
    if what == "raise":
        raise ValueError("as asked")
    if what == "input error":
        error = ValueError("a number, please")
        error.error_type = "InputError"
        raise error
    if what == "print":
        print("printed", flush=True)
        os.write(2, b"and on stderr\\n")
        return "done"
    if what == "sleep":
        time.sleep(rest[0])
        return "slept"
    if what == "exit":
        os._exit(3)
    if what == "hog":
        return len(bytearray(rest[0]))
    if what == "big":
        return "x" * rest[0]
    if what == "deep":
        value = []
        for _ in range(rest[0]):
            value = [value]
        return value
    if what == "pid":
        return os.getpid()
    return input
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.needs_bubblewrap),
        pytest.param("docker", marks=pytest.mark.needs_docker),
    ],
)
def sandbox(request: pytest.FixtureRequest) -> str:
    """Whoever asks for it is run once in each."""
    return request.param


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with Service(folder / "home") as running:
        odd = write_algorithm(folder / "odd", _ODD, extra='[limits]\nmemory = "256MiB"\ntimeout = "20s"\n')
        running.publish(odd)
        write_algorithm(folder / "secret", "def apply(input):\n    return 'secret'\n", owner="demo")
        yield running


@pytest.fixture(scope="session")
def stranger_key(service: Service) -> str:
    """The key of an account that owns nothing."""
    from serai_gateway.catalogue import open_catalogue

    catalogue = open_catalogue(Path(service.home))
    account = catalogue.ensure_account("stranger")
    key = catalogue.create_key(account, "test").text
    catalogue.close()
    return key
