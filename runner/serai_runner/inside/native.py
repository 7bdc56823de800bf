"""Python algorithms of our own kind: `src/ENTRY.py` with `apply(input)` and perhaps `load()`."""

import asyncio
import importlib
import importlib.util
import inspect
import os
import site
import socket
import sys
import threading
import types
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Any

from serai import _wire
from serai_runner.inside import errors, values
from serai_runner.inside.output import Output

Apply = Callable[[Any], Any]


def serve(sock: socket.socket, output: Output, job: dict[str, Any]) -> None:
    """Load the author's code, say so, and answer calls until the host closes the socket."""
    _import_ours()
    try:
        apply = load(job)
    except BaseException as error:
        _, message, stacktrace = errors.describe(error)
        _wire.send_frame(sock, [_wire.READY, message, stacktrace])
        return
    output.take(wanted=False)
    _wire.send_frame(sock, [_wire.READY, "", ""])
    replica = _Replica(sock, output, apply)
    extra = [threading.Thread(target=replica.answer_calls, daemon=True) for _ in range(job["concurrency"] - 1)]
    for thread in extra:
        thread.start()
    replica.answer_calls()
    for thread in extra:
        thread.join()


def load(job: dict[str, Any]) -> Apply:
    """Import the author's module and run its `load`. Whatever that raises goes through.

    The standard library comes first in `sys.path`, so that an author's `json.py` breaks nobody else's import; then
    the author's folders, then the packages.
    """
    root = job["algorithm"]
    source = os.path.join(root, "src")
    sys.path += [root, source]
    if job["environment"]:
        site.addsitedir(job["environment"])
    _make_package("src", source)
    module = importlib.import_module(f"src.{job['entry']}")
    apply = getattr(module, "apply", None)
    if not callable(apply):
        raise AttributeError(f"src/{job['entry']}.py has no function apply(input)")
    prepare = getattr(module, "load", None)
    if callable(prepare):
        _finish(prepare())
    return apply


def _import_ours() -> None:
    """What authors import from us, found before their folders are searched."""
    if importlib.util.find_spec("serai.model") is not None:
        importlib.import_module("serai.model")


def _make_package(name: str, folder: str) -> None:
    """`name` as a package whose modules lie in `folder`, whatever else on the path bears that name."""
    if os.path.exists(os.path.join(folder, "__init__.py")):
        return  # an ordinary package, and the author's folder is searched first
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


_own = threading.local()


def _finish(result: Any) -> Any:
    """The value of what an `async def` returned."""
    if not inspect.iscoroutine(result):
        return result
    loop = getattr(_own, "loop", None)
    if loop is None:
        loop = _own.loop = asyncio.new_event_loop()
    return loop.run_until_complete(result)


class _Replica:
    """Takes calls from the socket, one at a time in each thread that runs `answer_calls`."""

    def __init__(self, sock: socket.socket, output: Output, apply: Apply) -> None:
        self._sock = sock
        self._reader = _wire.FrameReader(sock)
        self._output = output
        self._apply = apply
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._pid = os.getpid()

    def answer_calls(self) -> None:
        read, reading = self._reader.read, self._reading
        while True:
            with reading:
                frame = read()
            if frame is None:
                return
            header, payload = frame
            _, call_id, _, content_type, deadline, _, _, wants_output = header
            if deadline <= monotonic():  # it expired on its way here; the host has answered it
                self._send([_wire.FAILURE, call_id, "TimeoutError", "expired", "", 0.0, 0])
                continue
            self._answer(call_id, content_type, payload, wants_output)

    def _answer(self, call_id: int, content_type: str, payload: bytes, wants_output: bool) -> None:
        began = perf_counter()
        try:
            value = values.decode_input(content_type, payload)
            began = perf_counter()
            value = self._apply(value)
            if type(value) is types.CoroutineType:
                value = _finish(value)
            took = perf_counter() - began
            kind, body = values.encode_result(value)
        except BaseException as error:
            self._leave_fork()
            took = perf_counter() - began
            error_type, message, stacktrace = errors.describe(error)
            text = self._output.take(wants_output)
            self._send([_wire.FAILURE, call_id, error_type, message, stacktrace, took, len(text)], text)
            return
        self._leave_fork()
        text = self._output.take(wants_output)
        self._send([_wire.RESULT, call_id, kind, took, len(text)], body, text)

    def _send(self, header: list[Any], *payload: Any) -> None:
        with self._writing:
            _wire.send_frame(self._sock, header, *payload)

    def _leave_fork(self) -> None:
        """A child that the author forked and that came back to us must not answer for its parent."""
        if os.getpid() != self._pid:
            os._exit(0)
