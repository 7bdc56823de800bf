"""Times as clients read them: 2022-05-08T22:43:09.050Z, with exactly three digits, or they fail."""

from datetime import UTC, datetime


def iso_time(seconds: float) -> str:
    """Seconds since 1970, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
