"""Ids: 32 hexadecimal digits inside, and with the dashes of a UUID where clients see them."""

import re
import uuid

_ID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")


def public_id(id: str) -> str:
    """An id of ours as clients see it."""
    return str(uuid.UUID(id))


def internal_id(text: str) -> str | None:
    """The id that a client means, with dashes or without; None for what is no id."""
    return text.replace("-", "").lower() if _ID.fullmatch(text) else None
