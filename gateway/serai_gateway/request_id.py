"""Request ids: "req-" and a random UUID, as Algorithmia had them. The id is also the call id."""

import os
from collections.abc import Iterator

#: Ids made from one read of the system's random numbers: the read costs more than the ids.
_BATCH = 64


def _uuids() -> Iterator[str]:
    while True:
        block = os.urandom(16 * _BATCH)
        for at in range(0, len(block), 16):
            digits = block[at : at + 16].hex()
            variant = "89ab"[int(digits[16], 16) & 3]
            yield f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


_next_uuid = _uuids().__next__


def new_request_id() -> str:
    """Random version-4 UUIDs (RFC 9562). For the event loop's thread: the generator is not shared between threads."""
    return f"req-{_next_uuid()}"
