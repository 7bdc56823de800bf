"""A replica's reply as its caller may see it."""

import dataclasses
from typing import TypeVar

import msgspec

from serai.ipc.messages import Failure, Ready, Result
from serai.ipc.secrets import Secrets
from serai_runner.scheduling.calls import Ending, PendingCall

_Told = TypeVar("_Told", Failure, Ready, Ending)


def checked_reply(
    call: PendingCall, message: Result | Failure, payload: bytes, now: float
) -> tuple[Result | Failure, bytes]:
    """With the caller's id, and no more time or output than is due."""
    duration_s, stdout_bytes = message.duration_s, message.stdout_bytes
    longest_s = now - call.sent_at
    if duration_s > longest_s:
        duration_s = max(0.0, longest_s)  # time is money: an author's code must not make it longer than it was
    if stdout_bytes and not call.call.wants_stdout:
        payload = payload[: len(payload) - stdout_bytes]
        stdout_bytes = 0
    call_id = call.call.id
    if type(message) is Result:
        return Result(call_id, message.content_type, duration_s, stdout_bytes), payload
    assert type(message) is Failure
    failure = Failure(call_id, message.error_type, message.message, message.stacktrace, duration_s, stdout_bytes)
    return failure, payload[len(payload) - stdout_bytes :] if stdout_bytes else b""


def without_secrets(message: _Told, secrets: Secrets) -> _Told:
    """What went wrong, as callers, logs and we ourselves may see it: code that fails often says with what."""
    if not secrets:
        return message
    hide = secrets.hide
    if isinstance(message, Ending):
        return dataclasses.replace(message, how=hide(message.how), output=hide(message.output))
    if isinstance(message, Ready):
        return msgspec.structs.replace(
            message,
            error=hide(message.error),
            stacktrace=hide(message.stacktrace),
            complaint=hide(message.complaint),
        )
    return msgspec.structs.replace(message, message=hide(message.message), stacktrace=hide(message.stacktrace))
