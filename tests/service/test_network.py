"""A version with the network permission, published by anybody: it reaches public addresses and nothing of ours."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from serai_gateway.testing import Service, write_algorithm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="networks are made by root only")

_SOURCE = """
import errno, socket
def apply(input):
    host, port = input
    with socket.socket() as sock:
        sock.settimeout(5)
        try:
            sock.connect((host, port))
            return sock.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, "timeout")
"""


@pytest.fixture
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("network")
    with Service(folder / "home", "--sandbox", sandbox) as running:
        running.publish(write_algorithm(folder / "net", _SOURCE, extra="[permissions]\nnetwork = true\n"))
        yield running


def test_public_addresses_are_reached_and_ours_are_not(service: Service) -> None:
    from serai_runner.sandbox.testing import Internet

    def reach(host: str, port: int) -> str:
        answer = service.call("operator/net", json.dumps([host, port]).encode()).json()
        assert "result" in answer, answer
        return answer["result"]

    with Internet() as internet, socket.create_server(("0.0.0.0", 0)) as ours:  # each of our addresses
        port = ours.getsockname()[1]
        assert reach(internet.public, 8080).strip() == internet.public
        own_address = _address_of_this_machine()
        for host, at in ((own_address, port), (internet.private, 8080), (internet.metadata, 8080), ("127.0.0.1", port)):
            assert reach(host, at) in ("EHOSTUNREACH", "ECONNREFUSED", "EACCES", "ENETUNREACH"), host
        assert reach("127.0.0.1", service.port) == "ECONNREFUSED"


def _address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing; the kernel says what address it would come from
        return sock.getsockname()[0]
