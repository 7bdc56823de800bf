"""Structured logs on stderr: JSON lines, one event each. Every line has an `action`; calls have their id."""

from typing import Any

import structlog

_configured = False


def get_logger(name: str) -> Any:
    global _configured
    if not _configured:
        _configured = True
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(file=None),
            cache_logger_on_first_use=True,
        )
    return structlog.get_logger(part=name)
