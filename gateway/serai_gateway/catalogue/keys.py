"""API keys: how their text looks and what is kept of it."""

import hashlib
import re
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_PREFIX = "sim"
#: Characters of a key, as in Algorithmia: clients and secret scanners know keys by it. 25 random ones are 148 bits.
KEY_CHARS = 28

_KEY = re.compile(rf"{_PREFIX}[A-Za-z0-9]{{{KEY_CHARS - len(_PREFIX)}}}\Z")


def new_key_text() -> str:
    return _PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_CHARS - len(_PREFIX)))


def is_key_text(text: str) -> bool:
    return _KEY.match(text) is not None


def hash_of(text: str) -> str:
    """What the database keeps. A plain hash: nobody can try 2**148 texts, so slowing each try down buys nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def mask_of(text: str) -> str:
    return f"{text[:6]}…{text[-2:]}"
