"""Structured logs on stderr: JSON lines, one event each. Every line has an `action`; calls have their id."""

import contextlib
import functools
import io
from typing import Any


class _Forgiving(io.TextIOBase):
    """A stream whose disk may be full: that costs lines, and nobody who writes them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class Logger:
    """A structlog logger that is made when it is first used: the library costs more to import than a start may take."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(_logger(self._part), name)


def get_logger(part: str) -> Logger:
    return Logger(part)


@functools.cache
def _logger(part: str) -> Any:
    import sys

    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without the values of local variables: among them are callers' keys and inputs.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=_Forgiving(sys.stderr)),  # pyright: ignore[reportArgumentType]
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger(part=part)
