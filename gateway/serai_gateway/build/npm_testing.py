"""A package index for npm, with packages that a test writes: what runs then is the real npm."""

import base64
import hashlib
import io
import json
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class NpmIndex:
    """On a port of this machine. `requests` has the path and the Authorization header of each question."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: list[tuple[str, str]] = []
        self._versions: dict[str, dict[str, dict[str, Any]]] = {}
        self._archives: dict[str, bytes] = {}

    def add(self, name: str, version: str, files: dict[str, str], **about: Any) -> str:
        """A package with these files and a package.json of `about`; its checksum, as lock files have it."""
        described = {"name": name, "version": version, **about}
        archive = _archive({"package.json": json.dumps(described), **files})
        path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
        described["dist"] = {"tarball": self.address + path, "integrity": integrity}
        described["hasInstallScript"] = bool(about.get("scripts"))
        self._versions.setdefault(name, {})[version] = described
        self._archives[path] = archive
        return integrity

    def answer(self, path: str, authorization: str) -> bytes | None:
        """The answer to a GET; None for what is not there."""
        path = urllib.parse.unquote(path)
        self.requests.append((path, authorization))
        if path in self._archives:
            return self._archives[path]
        versions = self._versions.get(path[1:])
        if versions is None:
            return None
        return json.dumps(
            {"name": path[1:], "versions": versions, "dist-tags": {"latest": list(versions)[-1]}}
        ).encode()


@contextmanager
def run_npm_index() -> Iterator[NpmIndex]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = index.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Tests look at `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index = NpmIndex(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _archive(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()
