"""An author's exception as the fields of a Failure."""

from __future__ import annotations

import os
import traceback

#: What an exception's `error_type` may say; anything else is an AlgorithmError.
ERROR_TYPES = frozenset(
    {
        "AlgorithmError",
        "InputError",
        "UnsupportedError",
        "InitializationError",
        "OutOfMemoryError",
        "OutOfGpuMemoryError",
        "LanguageError",
        "TooLargeError",
        "ParsingError",
        "EntityNotFoundError",
        "ThirdPartyCredentialError",
        "LoadingError",
    }
)
#: A frame's header holds 64 KiB: both together fit with room for the rest.
MAX_MESSAGE_BYTES = 8 * 1024
MAX_STACKTRACE_BYTES = 40 * 1024

_OURS = os.path.dirname(os.path.abspath(__file__))


def clip(text: str, max_bytes: int) -> str:
    """`text` cut to `max_bytes` of UTF-8; what is no Unicode becomes "?"."""
    raw = text.encode("utf-8", "replace")
    return raw[:max_bytes].decode("utf-8", "ignore")


def coerce_type(name: object) -> str:
    return name if isinstance(name, str) and name in ERROR_TYPES else "AlgorithmError"


def describe(error: BaseException) -> tuple[str, str, str]:
    """(error type, message, stack trace without our own frames)."""
    if isinstance(error, MemoryError):
        kind = "OutOfMemoryError"
    else:
        kind = coerce_type(getattr(error, "error_type", None))
    return kind, clip(_message(error), MAX_MESSAGE_BYTES), clip(_stacktrace(error), MAX_STACKTRACE_BYTES)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    if isinstance(error, Exception) and text and not isinstance(error, KeyError):  # whose text is the key alone
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _stacktrace(error: BaseException) -> str:
    if type(error).__module__.startswith("serai_runner.inside"):
        return ""  # a refusal of ours: its message says all
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # an exception may be built so that it cannot be shown
        return type(error).__name__


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib")) or os.path.dirname(filename).endswith("/importlib")
