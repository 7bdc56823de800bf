"""Publishing over HTTP, where many do it at once."""

import http.client
import io
import socket
import tarfile
from pathlib import Path

import pytest

from serai_gateway.catalogue import Permissions, open_catalogue
from serai_gateway.testing import PATIENCE_S, Service

pytestmark = pytest.mark.needs_bubblewrap


@pytest.fixture
def other_key(service: Service) -> str:
    """Of an account of its own."""
    catalogue = open_catalogue(Path(service.home))
    key = catalogue.create_key(catalogue.ensure_account("busybody"), "test", Permissions(manage=True)).text
    catalogue.close()
    return key


def _archive(owner: str, name: str, *, pause_s: float = 0) -> bytes:
    """An algorithm whose trial takes so long."""
    about = f'[algorithm]\nowner = "{owner}"\nname = "{name}"\nlanguage = "python"\n[sample]\ninput = {pause_s}\n'
    files = {
        "algorithm.toml": about,
        f"src/{name}.py": "import time\n\n\ndef apply(pause_s):\n    time.sleep(pause_s)\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def _begin(service: Service, key: str, archive: bytes) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A build whose log has begun, so that it counts."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Simple {key}", "Content-Type": "application/gzip"}
    connection.request("POST", "/v1/publish", archive, headers)
    return connection, connection.getresponse()


def test_the_builds_of_one_account_leave_places_for_others(service: Service, other_key: str) -> None:
    """One is built, eight wait, and the next is refused; somebody else's is built meanwhile."""
    begun = [_begin(service, service.key, _archive("operator", f"busy{at}", pause_s=0 if at else 5)) for at in range(9)]
    try:
        assert [answer.status for _, answer in begun] == [200] * 9
        connection, refused = _begin(service, service.key, _archive("operator", "busy9"))
        assert refused.status == 429 and b"8 builds of yours are waiting" in refused.read()
        connection.close()
        connection, other = _begin(service, other_key, _archive("busybody", "quick"))
        assert other.status == 200 and b'"version"' in other.read()
        connection.close()
        assert service.call("operator/busy8/latestPrivate", b"{}").status != 200, "it still waits"
        for _, answer in begun:
            assert b'"version"' in answer.read()
    finally:
        for connection, _ in begun:
            connection.close()


def test_one_account_has_so_many_uploads_at_once(service: Service, other_key: str) -> None:
    def send_head(key: str) -> bytes:
        """What is answered before a byte of the archive is sent."""
        connection = socket.create_connection(("127.0.0.1", service.port), PATIENCE_S)
        connections.append(connection)
        head = f"POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Simple {key}\r\nContent-Length: 100000\r\n"
        connection.sendall(f"{head}Content-Type: application/gzip\r\nExpect: 100-continue\r\n\r\n".encode())
        return connection.recv(12)

    connections: list[socket.socket] = []
    try:
        assert [send_head(other_key) for _ in range(5)] == [b"HTTP/1.1 100"] * 4 + [b"HTTP/1.1 429"]
        assert send_head(service.key) == b"HTTP/1.1 100", "others have their own"
    finally:
        for connection in connections:
            connection.close()
