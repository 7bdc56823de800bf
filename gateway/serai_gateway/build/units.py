"""Sizes and durations as people write them: "512MiB", "30s". Pure."""

import re

_SIZE = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]i?)?B?\s*\Z", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|min|h)?\s*\Z", re.ASCII)

_FACTORS = {"": 1, **{f"{letter}": 1000**n for n, letter in enumerate("KMGT", 1)}}
_FACTORS |= {f"{letter}I": 1024**n for n, letter in enumerate("KMGT", 1)}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes. "1GiB" is 2**30, "1GB" is 10**9, a bare number is bytes. Raises ValueError with how to write it."""
    found = _SIZE.match(text)
    if not found:
        raise ValueError(f'"{text[:40]}" is not a size; write 512MiB or 1GiB')
    return int(float(found[1]) * _FACTORS[(found[2] or "").upper()])


def parse_duration(text: str) -> float:
    """Seconds. "30s", "5m", "1h", "500ms"; a bare number is seconds. Raises ValueError with how to write it."""
    found = _DURATION.match(text)
    if not found:
        raise ValueError(f'"{text[:40]}" is not a duration; write 30s or 5m')
    return float(found[1]) * _SECONDS[found[2] or ""]
