"""Algorithmia's pipe protocol, spoken to one long-lived process: a JSON line on stdin, a JSON value through a FIFO."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from time import monotonic, perf_counter
from typing import Any

from serai import _wire
from serai_runner.inside import errors, values
from serai_runner.inside.host_link import HostLink
from serai_runner.inside.inbox import Inbox
from serai_runner.inside.output import Output
from serai_runner.inside.pipe_process import PipeEnded, PipeProcess
from serai_runner.inside.scratch import Scratch

#: The processes of Algorithmia's time take their own names for these two.
_LANGUAGES = {"python": "python", "anaconda": "python", "javascript": "node", "node": "node"}
_HERE = os.path.dirname(os.path.abspath(__file__))


def serve(link: HostLink, output: Output, job: dict[str, Any]) -> None:
    """Start the author's process, say when it is ready, and pass calls through until the host closes the socket."""
    try:
        process = PipeProcess(find_command(job), _environment(job), output)
    except (OSError, ValueError) as error:
        _refuse(link, str(error), "")
        return
    try:
        answer = process.wait_ready()
        if answer and b'"is_complaint": true' not in answer:
            raise PipeEnded("answered before it was ready", answer)
    except PipeEnded as error:
        reason, trace = _why(error.answer)
        trace = trace or output.text()
        reason = reason or _headline(trace)
        _refuse(link, f"{error}: {reason}" if reason else str(error), trace)
        return
    process.collect_output()
    complaint, trace = _why(answer)
    link.send([_wire.READY, "", trace, False, "", complaint], output.take())
    _answer_calls(link, output, process, Scratch(is_private=job["is_private"]))
    process.stop()


#: How Python and Node say what went wrong, somewhere in many lines.
_REASON = re.compile(r"^(?:Uncaught )?[A-Za-z_.]*(?:Error|Exception|Exit)\b.*", re.MULTILINE)


def _headline(text: str) -> str:
    """The line of what a process printed that says why it ended: the last that names an error, else the last."""
    reasons = _REASON.findall(text)
    return reasons[-1].strip() if reasons else text.rstrip().rpartition("\n")[2]


def _why(answer: bytes) -> tuple[str, str]:
    """Message and stack trace of an answer that came before anything was asked: Algorithmia's way to fail."""
    if not answer:
        return "", ""
    try:
        decode_reply(answer)
    except PipeFailure as error:
        message = str(error) or error.error_type
        return errors.clip(message, errors.MAX_MESSAGE_BYTES), errors.clip(
            error.stacktrace, errors.MAX_STACKTRACE_BYTES
        )
    except values.ResultRefused as error:
        return str(error), ""
    return "", ""


def _refuse(link: HostLink, message: str, trace: str) -> None:
    message = errors.clip(message, errors.MAX_MESSAGE_BYTES)
    link.send([_wire.READY, message, errors.clip(trace, errors.MAX_STACKTRACE_BYTES), False, ""])


def _answer_calls(link: HostLink, output: Output, process: PipeProcess, scratch: Scratch) -> None:
    inbox = Inbox(_wire.FrameReader(link.sock))
    while (frame := inbox.next_call()) is not None:
        header, payload = frame
        call_id, content_type, deadline = header[1], header[3], header[4]
        if deadline <= monotonic():
            link.send([_wire.FAILURE, call_id, "TimeoutError", "expired", "", 0.0, 0])
            continue
        reply, body = _answer(process, call_id, content_type, payload)
        process.collect_output()
        text = output.take()
        scratch.empty()
        link.send([*reply, len(text)], body, text)


def _answer(process: PipeProcess, call_id: int, content_type: str, payload: bytes) -> tuple[list[Any], bytes]:
    began = perf_counter()
    try:
        line = encode_request(content_type, payload)
        began = perf_counter()
        raw = process.request(line)  # does not return when the process dies: we die alike, and the host tells why
        took = perf_counter() - began
        kind, body = decode_reply(raw)
    except (PipeFailure, values.InputRefused, values.ResultRefused) as error:
        trace, took = getattr(error, "stacktrace", ""), perf_counter() - began
        return [_wire.FAILURE, call_id, error.error_type, str(error), trace, took], b""
    return [_wire.RESULT, call_id, kind, took], body


class PipeFailure(Exception):
    """The author's process answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(errors.clip(_text(error.get("message")), errors.MAX_MESSAGE_BYTES))
        self.error_type = errors.coerce_type(error.get("error_type"))
        trace = error.get("stacktrace") or error.get("stack_trace")
        self.stacktrace = errors.clip(_text(trace), errors.MAX_STACKTRACE_BYTES)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def encode_request(content_type: str, payload: bytes) -> bytes:
    """One line of JSON. Raises values.InputRefused."""
    if content_type == "json":
        # Parsed and written anew: the author's process reads one line, and it must be the JSON we say it is.
        return b'{"content_type":"json","data":' + values.encode_json(values.decode_input("json", payload)) + b"}\n"
    if content_type == "binary":
        return b'{"content_type":"binary","data":"' + base64.b64encode(payload) + b'"}\n'
    text = values.decode_input("text", payload) if content_type == "text" else None
    kind = "text" if content_type == "text" else "json"
    return json.dumps({"content_type": kind, "data": text}, separators=(",", ":")).encode() + b"\n"


def decode_reply(raw: bytes) -> tuple[str, bytes]:
    """(content type, payload). Raises PipeFailure for an error, values.ResultRefused for what is no reply."""
    try:
        reply = values.decode_input("json", raw)
    except values.InputRefused as error:
        raise values.ResultRefused(f"the algorithm's process did not answer with JSON: {error}") from None
    if not isinstance(reply, dict):
        raise values.ResultRefused("the algorithm's process answered with no JSON object")
    error = reply.get("error")
    if error is not None:
        raise PipeFailure(error if isinstance(error, dict) else {"message": error})
    if "result" not in reply:
        raise values.ResultRefused("the algorithm's process answered with neither result nor error")
    result, metadata = reply["result"], reply.get("metadata")
    kind = metadata.get("content_type") if isinstance(metadata, dict) else None
    if kind == "binary":
        return values.encode_result(_bytes(result))  # pyright: ignore[reportReturnType]
    if kind == "void" or (kind == "text" and isinstance(result, str)):
        return values.encode_result(None if kind == "void" else result)  # pyright: ignore[reportReturnType]
    body = values.encode_json(result)
    if len(body) > values.MAX_RESULT_BYTES:
        raise values.ResultTooLarge(f"result of {len(body)} bytes; at most {values.MAX_RESULT_BYTES}")
    return "json", body


def _bytes(result: Any) -> bytes:
    if not isinstance(result, str):
        raise values.ResultRefused(f"binary result is not base64 but of type {type(result).__name__}")
    try:
        return base64.b64decode("".join(result.split()), validate=True)  # Ruby's holds newlines
    except (binascii.Error, ValueError) as error:
        raise values.ResultRefused(f"binary result is not base64: {error}") from None


def find_command(job: dict[str, Any]) -> list[str]:
    """How to start the author's process. Raises ValueError, which says what is missing."""
    pipe = os.path.join(job["algorithm"], "bin", "pipe")
    if os.path.exists(pipe):
        if not os.access(pipe, os.X_OK):
            raise ValueError("bin/pipe is not executable: git update-index --chmod=+x bin/pipe")
        return [pipe]
    conf = _read_conf(job["algorithm"])
    entry = job["entry"] or conf.get("algoname", "")
    language = conf.get("language") or conf.get("langauge") or "python"  # the second spelling is in the wild
    runtime = next((name for prefix, name in _LANGUAGES.items() if str(language).lower().startswith(prefix)), None)
    if runtime == "python":
        return [sys.executable, "-B", os.path.join(_HERE, "langpack.py"), entry]
    if runtime == "node":
        return ["node", os.path.join(_HERE, "langpack.js"), entry]
    raise ValueError(f"language {language!r} needs an executable bin/pipe in the repository")


def _read_conf(root: str) -> dict[str, Any]:
    try:
        with open(os.path.join(root, "algorithmia.conf"), encoding="utf-8") as file:
            conf = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"algorithmia.conf is not JSON: {error}") from None
    return conf if isinstance(conf, dict) else {}


def _environment(job: dict[str, Any]) -> dict[str, str]:
    packages = job["environment"] or ""
    return {
        **os.environ,
        # Our sitecustomize appends the packages: in PYTHONPATH their backports would hide the standard library.
        "PYTHONPATH": os.pathsep.join((os.path.join(_HERE, "shim"), job["algorithm"])),
        "SERAI_ENVIRONMENT": packages,
        "SERAI_RUNTIME": os.path.dirname(os.path.dirname(_HERE)),
        "NODE_PATH": os.path.join(packages, "node_modules") if packages else "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",  # what was printed before a crash is there after it
    }
