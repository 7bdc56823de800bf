"""Answers as bytes: Algorithmia's envelope around a result that is never decoded here."""

import base64

import msgspec

from serai.ipc.messages import Failure, Result
from serai_gateway.strict_json import NotJson, check_json

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
_RAW_TYPES = {"json": JSON, "text": b"text/plain; charset=utf-8", "binary": b"application/octet-stream", "void": JSON}

_encode = msgspec.json.encode


def split_stdout(message: Result | Failure, payload: bytes) -> tuple[bytes, str]:
    """The result and what was printed, which follows it in the payload."""
    if not message.stdout_bytes:
        return payload, ""
    at = len(payload) - message.stdout_bytes
    return payload[:at], payload[at:].decode("utf-8", "replace")


def check_result(result: Result, body: bytes) -> Failure | None:
    """A failure in place of a result that is not what it says it is: a replica is not to be trusted."""
    try:
        if result.content_type == "json":
            check_json(body)
        elif result.content_type == "text":
            body.decode()
    except NotJson as error:
        return _broken(result, f"result is not JSON: {error}")
    except UnicodeDecodeError:
        return _broken(result, "result is not UTF-8 text; return bytes for binary data")
    return None


def _broken(result: Result, message: str) -> Failure:
    return Failure(result.id, "AlgorithmError", message, duration_s=result.duration_s)


def result_body(result: Result, body: bytes, request_id: str, stdout: str | None, alert: str | None = None) -> bytes:
    """`{"result": …, "metadata": {"content_type", "duration", "request_id", "stdout"?, "alerts"?}}`."""
    kind = result.content_type
    if kind == "json":
        value = body
    elif kind == "text":
        value = _encode(body.decode())
    elif kind == "binary":
        value = b'"' + base64.b64encode(body) + b'"'
    else:
        value = b"null"
    tail = b"" if stdout is None else b',"stdout":' + _encode(stdout)
    if alert is not None:
        tail += b',"alerts":' + _encode([alert])
    return b'{"result":%b,"metadata":{"content_type":"%b","duration":%.7f,"request_id":"%b"%b}}' % (
        value,
        kind.encode(),
        result.duration_s,
        request_id.encode(),
        tail,
    )


def failure_body(
    failure: Failure, request_id: str, stdout: str | None, show_source: bool, alert: str | None = None
) -> bytes:
    """`{"error": {"message", "error_type", "stacktrace"?}, "metadata": {…}}`; the trace for who may read the source."""
    error = {"message": failure.message, "error_type": failure.error_type}
    if show_source and failure.stacktrace:
        # The platform and its documentation say `stacktrace`, the Python client reads `stack_trace`.
        error["stacktrace"] = error["stack_trace"] = failure.stacktrace
    metadata: dict[str, object] = {"duration": round(failure.duration_s, 7), "request_id": request_id}
    if stdout is not None:
        metadata["stdout"] = stdout
    if alert is not None:
        metadata["alerts"] = [alert]
    return _encode({"error": error, "metadata": metadata})


def raw_type(result: Result) -> bytes:
    return _RAW_TYPES[result.content_type]
