"""A small server that speaks like Serai, for tests of what calls one. Real sockets, real streams, no algorithms.

with run_server(FakeMarket()) as address:
    serai.client("simkey", address).algo("demo/echo").pipe("hi")
"""

import base64
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Received:
    """One request as it arrived. Header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """`body` as bytes is sent whole; as anything else, each piece is sent when it is produced."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Received], Answer]


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def error_answer(status: int, code: str, message: str, *, retriable: bool = False, **headers: str) -> Answer:
    """A refusal in the platform's form."""
    error = {"code": code, "message": message, "status": status, "request_id": "req-1", "retriable": retriable}
    return json_answer({"error": error}, status, **headers)


def result_answer(result: Any, content_type: str = "json", **metadata: Any) -> Answer:
    about = {"content_type": content_type, "duration": 0.001, "request_id": "req-1", **metadata}
    return json_answer({"result": result, "metadata": about})


def events_answer(events: Iterable[tuple[str, Any]]) -> Answer:
    """Server-sent events, each sent when it is produced: a name and what is sent as JSON."""
    pieces = (b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(value).encode()) for name, value in events)
    return Answer(200, pieces, {"Content-Type": "text/event-stream; charset=utf-8", "X-Request-Id": "req-1"})


class FakeMarket:
    """Algorithms `demo/echo` (its input), `demo/reverse` (bytes backwards), `demo/fail` and a few to list; publishing.

    `demo/count` yields the numbers below its input. Whatever is called for events answers with them.
    `received` holds every request. With a `key`, others are refused.
    """

    def __init__(self, key: str | None = None, listed: int = 3) -> None:
        self.key = key
        self.received: list[Received] = []
        self.listing = [
            {"owner": "demo", "name": name, "version": "1.0.0", "tagline": f"Does {name}", "visibility": "public"}
            for name in ("echo", "fail", "reverse", *(f"spare{number}" for number in range(listed - 3)))
        ]

    def __call__(self, request: Received) -> Answer:
        self.received.append(request)
        if self.key is not None and request.headers.get("authorization") != f"Simple {self.key}":
            return error_answer(401, "unauthenticated", "unknown or invalid API key")
        if request.path.startswith("/v1/algo/"):
            return self._call(request)
        if request.path == "/v1/publish":
            return Answer(200, self._publish(request), {"Content-Type": "application/x-ndjson"})
        if request.path == "/v1/algorithms":
            return self._list(request.query)
        known = {f"/v1/algorithms/{info['owner']}/{info['name']}": info for info in self.listing}
        info = known.get(request.path)
        return json_answer(info) if info else error_answer(404, "not_found", "no such algorithm")

    def _call(self, request: Received) -> Answer:
        name = "/".join(request.path.split("/")[3:5])
        if request.headers.get("accept") == "text/event-stream":
            return self._stream(name, request)
        if name == "demo/count":
            return result_answer(list(range(int(request.body))))
        kind = request.headers["content-type"].partition(";")[0]
        if name == "demo/fail":
            error = {"message": "cannot do that", "error_type": "InputError", "stacktrace": "File main.py, line 1"}
            return json_answer({"error": error, "metadata": {"duration": 0.002, "request_id": "req-1"}})
        if name not in ("demo/echo", "demo/reverse"):
            return error_answer(404, "not_found", f"algorithm algo://{name} not found")
        body = request.body[::-1] if name == "demo/reverse" else request.body
        if request.query.get("output") == "raw":
            return Answer(200, body, {"Content-Type": kind, "X-Request-Id": "req-1"})
        printed = {"stdout": "working\n"} if request.query.get("stdout") == "true" else {}
        if kind == "text/plain":
            return result_answer(body.decode(), "text", **printed)
        if kind == "application/json":
            return result_answer(json.loads(body), "json", **printed)
        return result_answer(base64.b64encode(body).decode(), "binary", **printed)

    def _stream(self, name: str, request: Received) -> Answer:
        if name == "demo/count":
            return events_answer(_count(int(request.body)))
        answer = self._call(replace(request, headers={**request.headers, "accept": "*/*"}))
        if answer.status != 200 or not isinstance(answer.body, bytes):
            return answer
        told = json.loads(answer.body)
        return events_answer([("error" if "error" in told else "result", told)])

    def _list(self, query: dict[str, str]) -> Answer:
        matching = [info for info in self.listing if query.get("q", "") in info["name"]]
        at, limit = int(query.get("marker", 0)), int(query["limit"])
        marker = str(at + limit) if at + limit < len(matching) else None
        return json_answer({"results": matching[at : at + limit], "marker": marker, "next_link": None})

    def _publish(self, request: Received) -> Iterator[bytes]:
        with tarfile.open(fileobj=io.BytesIO(request.body), mode="r:gz") as archive:
            names = sorted(archive.getnames())
        for name in names:
            yield json.dumps({"log": f"read {name}"}).encode() + b"\n"
        if "algorithm.toml" in names:
            version = {
                "owner": "demo",
                "name": "fresh",
                "version": "1.0.0",
                "visibility": request.query.get("visibility"),
            }
            yield json.dumps({"version": version}).encode() + b"\n"
        else:
            yield error_answer(422, "unprocessable", "algorithm.toml: missing").body + b"\n"  # pyright: ignore


def _count(num_items: int) -> Iterator[tuple[str, Any]]:
    yield "waiting", {"state": "queued", "position": 1, "estimate_s": 0.01}
    for number in range(num_items):
        yield "progress", {"fraction": number / num_items, "text": f"at {number}"}
        yield "item", number
    about = {"content_type": "void", "duration": 0.001, "request_id": "req-1", "num_items": num_items}
    yield "result", {"result": None, "metadata": about}


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


class _Server(ThreadingHTTPServer):
    #: Leaving the server waits for its threads, so that none outlives a test.
    daemon_threads = False
    #: The default of 5 drops connections when a test opens many at once.
    request_queue_size = 128


@contextmanager
def run_server(handler: Handler) -> Iterator[str]:
    """Serve `handler` on a free port of this machine; gives the address. All threads have ended when it is left."""

    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 10  # a client that forgot to close must not keep a test from ending

        def handle_one_request(self) -> None:
            try:
                self.raw_requestline = self.rfile.readline(65537)
            except ConnectionError:  # closed by a client that had not read all
                self.raw_requestline = b""
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._respond(handler(self._receive()))

        def _receive(self) -> Received:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            return Received(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)

        def _respond(self, answer: Answer) -> None:
            if isinstance(answer.body, bytes):
                pieces, length = iter((answer.body,)), ("Content-Length", str(len(answer.body)))
            else:
                pieces, length = _chunks(answer.body), ("Transfer-Encoding", "chunked")
            self.send_response(answer.status)
            for name, value in (*answer.headers.items(), length):
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except ConnectionError:  # the client has left, as it may in mid-stream
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with _Server(("127.0.0.1", 0), Handling) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
