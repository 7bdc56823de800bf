"""The limits: the least that a Python server must do to answer the same request. Served by uvicorn, one worker."""

import os

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


async def _echo(request: Request) -> Response:
    body = await request.body()
    if request.headers["content-type"] == "application/json":
        body = msgspec.json.encode(msgspec.json.decode(body))
    return Response(body, headers={"content-type": request.headers["content-type"]})


#: Raw uvicorn echo as the targets mean it: Starlette, one route, JSON decoded and encoded again.
echo = Starlette(routes=[Route("/", _echo, methods=["POST"])])


async def bare_echo(scope, receive, send) -> None:
    """The same without a framework."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    kind = dict(scope["headers"])[b"content-type"]
    if kind == b"application/json":
        body = msgspec.json.encode(msgspec.json.decode(body))
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class InProcess:
    """ONNX Runtime behind bare uvicorn: raw tensor in, raw tensor out, no queue, no second process."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()[0]
        self._name, self._shape = given.name, [1, *given.shape[1:]]
        self._asarray = np.asarray
        self._frombuffer = lambda body: np.frombuffer(body, np.float32).reshape(self._shape)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message["body"])
            if not message.get("more_body"):
                break
        output = self._asarray(self._session.run(None, {self._name: self._frombuffer(b"".join(parts))})[0]).tobytes()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(output))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": output})


def in_process() -> InProcess:
    """Factory for uvicorn --factory."""
    return InProcess()
