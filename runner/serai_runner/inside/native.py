"""Python algorithms of our own kind: `src/ENTRY.py` with `apply(input)` and perhaps `load()`."""

from __future__ import annotations

import os
import threading
import types
from time import monotonic, perf_counter
from typing import Any

from serai import _running, _wire
from serai_runner.inside import coroutines, errors, items, loading, values
from serai_runner.inside.host_link import HostLink
from serai_runner.inside.inbox import Inbox, SharedInbox
from serai_runner.inside.output import Output
from serai_runner.inside.scratch import Scratch


def serve(link: HostLink, output: Output, job: dict[str, Any]) -> None:
    """Load the author's code, say so, and answer calls until the host closes the socket."""
    try:
        loading.import_ours()
        module = loading.import_author(job)
        loading.prepare(module, coroutines.finish)
    except BaseException as error:
        refuse(link, output, error)
        return
    answer_calls(link, output, job, module, Scratch(is_private=job["is_private"]))


def refuse(link: HostLink, output: Output, error: BaseException) -> None:
    """The code cannot be loaded: why, and what it printed."""
    _, message, stacktrace = errors.describe(error)
    link.send([_wire.READY, message, stacktrace, False, ""], output.take())


def answer_calls(
    link: HostLink, output: Output, job: dict[str, Any], module: types.ModuleType, scratch: Scratch, advice: str = ""
) -> None:
    """Say that we are ready, and answer until the host closes. `advice`: where the next box should fork."""
    printed = output.take()
    link.send([_wire.READY, "", "", False, advice], printed)
    reader = _wire.FrameReader(link.sock)
    num_threads = job["concurrency"]
    if num_threads == 1:
        Replica(link, Inbox(reader), output, module, scratch).answer_calls()
        return
    inbox = SharedInbox(reader)
    replica = Replica(link, inbox, output, module, Scratch(is_private=False))  # others are at work in the folder
    threads = [threading.Thread(target=replica.answer_calls, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    inbox.read_all(num_threads)


class Replica:
    """Answers calls, one at a time in each thread that runs `answer_calls`."""

    def __init__(
        self,
        link: HostLink,
        inbox: Inbox | SharedInbox,
        output: Output,
        module: types.ModuleType,
        scratch: Scratch,
    ) -> None:
        self._link = link
        self._inbox = inbox
        self._output = output
        self._apply = module.apply
        self._scratch = scratch
        self._writing = threading.Lock()
        self._pid = os.getpid()

    def answer_calls(self) -> None:
        next_call = self._inbox.next_call
        while (frame := next_call()) is not None:
            header, payload = frame
            call_id, content_type, deadline = header[1], header[3], header[4]
            if deadline <= monotonic():  # it expired on its way here; the host has answered it
                self.send([_wire.FAILURE, call_id, "TimeoutError", "expired", "", 0.0, 0])
                continue
            self._answer(call_id, content_type, payload, header[8])

    def _answer(self, call_id: int, content_type: str, payload: bytes, wants_items: bool) -> None:
        began = perf_counter()
        running = self._inbox.begin(call_id, wants_items)
        caller = items.Caller(self, self._inbox, running) if running is not None and wants_items else None
        _running.enter(caller)
        try:
            value = values.decode_input(content_type, payload)
            began = perf_counter()
            value = self._apply(value)
            if type(value) is types.CoroutineType:
                value = coroutines.finish(value, running)
            if isinstance(value, (types.GeneratorType, types.AsyncGeneratorType)):
                kind, body = items.consume(value, caller)
                took = perf_counter() - began
            else:
                took = perf_counter() - began
                kind, body = values.encode_result(value)
        except BaseException as error:
            self._leave_fork()
            took = perf_counter() - began
            error_type, message, stacktrace = errors.describe(error)
            reply = [_wire.FAILURE, call_id, error_type, message, stacktrace, took]
            body = b""
        else:
            self._leave_fork()
            reply = [_wire.RESULT, call_id, kind, took]
        self._inbox.end(running)
        _running.leave()
        text = self._output.take()
        self._scratch.empty()
        self.send([*reply, len(text)], body, text)

    def send(self, header: list[Any], *payload: Any) -> None:
        with self._writing:
            _wire.send_frame(self._link.sock, header, *payload)

    def _leave_fork(self) -> None:
        """A child that the author forked and that came back to us must not answer for its parent."""
        if os.getpid() != self._pid:
            os._exit(0)
