"""What a secret may be called and hold. Pure."""

import re

MAX_VALUE_BYTES = 8 * 1024
MAX_SHORT_NAME_CHARS = 128
MAX_DESCRIPTION_CHARS = 1000

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

#: What our boxes set themselves, and what would change how programs start rather than what they know.
RESERVED = frozenset({
    "PATH", "HOME", "TMPDIR", "LANG", "USER", "SHELL", "PWD", "IFS", "ENV", "BASH_ENV", "TZ", "ORT_DISABLE_TELEMETRY",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH",
})  # fmt: skip
RESERVED_PREFIXES = ("LD_", "LC_", "PYTHON", "NODE_", "ALGORITHMIA_", "SERAI_", "BASH_FUNC_")


class BadSecret(ValueError):
    """It cannot be kept like that; its text says what may."""


def check_key(key: str) -> str:
    """`key` itself. Raises BadSecret unless a variable of an algorithm may be called so."""
    if not _KEY.fullmatch(key):
        raise BadSecret(
            f"secret_key {key[:140]!r} is no name of a variable: a letter or '_', then letters, digits and '_', 128 in "
            "all at most"
        )
    if key.upper() in RESERVED or key.upper().startswith(RESERVED_PREFIXES):
        raise BadSecret(
            f"secret_key {key!r} is reserved for what the platform sets: take a name that is none of "
            f"{', '.join(sorted(RESERVED))} and does not begin with {', '.join(RESERVED_PREFIXES)}"
        )
    return key


def check_value(value: str) -> str:
    """`value` itself. Raises BadSecret, without a word of it."""
    if not value:
        raise BadSecret("secret_value is empty; remove the secret instead")
    try:
        num_bytes = len(value.encode())
    except UnicodeEncodeError:
        raise BadSecret("secret_value is no text; write binary data in base64") from None
    if num_bytes > MAX_VALUE_BYTES:
        raise BadSecret(f"secret_value has {num_bytes:,} bytes, over the limit of {MAX_VALUE_BYTES:,}")
    if _CONTROL.search(value):
        raise BadSecret("secret_value holds control characters; write binary data in base64")
    return value


def check_short_name(name: str) -> str:
    if not name.strip() or len(name) > MAX_SHORT_NAME_CHARS or not name.isprintable():
        raise BadSecret(f"short_name must be one line of 1 to {MAX_SHORT_NAME_CHARS} characters")
    return name


def check_description(text: str) -> str:
    if len(text) > MAX_DESCRIPTION_CHARS or _CONTROL.search(text):
        raise BadSecret(f"description must be text of at most {MAX_DESCRIPTION_CHARS} characters")
    return text
