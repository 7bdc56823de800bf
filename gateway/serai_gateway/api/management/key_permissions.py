"""What a key may do, in Algorithmia's words and in ours, and whether one key may do all that another may."""

import re
from typing import Any, Literal

import msgspec

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.catalogue import Permissions

KeyType = Literal["ManagementKey", "PlatformAdminKey", "AlgorithmKey"]

#: Entries of a key's list of algorithms.
MAX_ALGORITHMS = 100

_SCHEME = "algo://"
_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_ENTRY = re.compile(rf"\*|{_NAME}/\*|({_NAME}/{_NAME})(?:/\*)?")
_DATA = ("none", "read", "write")


class AuthPermissions(msgspec.Struct):
    """As clients send them. What is left out is not allowed."""

    allow_data: bool = False
    allow_data_write: bool = False
    allow_algo: bool = False
    referer_host: str = ""
    allow_algo_management: bool | None = None  # None: as the key's type says, where it says one
    algo_acl: list[str] = []


def wanted_permissions(given: AuthPermissions | None, key_type: KeyType | None, own: Permissions) -> Permissions:
    """What a new key shall be able to do; if nothing is said, what the key can that asks for it.

    Raises ManagementError for what cannot be granted.
    """
    if given is None:
        return msgspec.structs.replace(own, manage=key_type != "AlgorithmKey")
    if given.referer_host:
        raise ManagementError(Codes.INVALID_INPUT, "keys cannot be tied to a web page here; leave referer_host empty")
    manage = given.allow_algo_management
    if manage is None:
        manage = key_type in ("ManagementKey", "PlatformAdminKey")
    elif manage and key_type == "AlgorithmKey":
        raise ManagementError(Codes.INVALID_INPUT, "an AlgorithmKey never manages; ask for a ManagementKey")
    if len(given.algo_acl) > MAX_ALGORITHMS:
        raise ManagementError(Codes.INVALID_INPUT, f"algo_acl has at most {MAX_ALGORITHMS} entries; use algo://OWNER/*")
    return Permissions(
        call=given.allow_algo,
        manage=manage,
        data=("write" if given.allow_data_write else "read") if given.allow_data else "none",
        algorithms=tuple(_entry(text) for text in given.algo_acl),
    )


def check_covers(own: Permissions, wanted: Permissions) -> None:
    """Raises ManagementError unless `own` may do all that `wanted` may: a key makes no key that can do more."""
    missing = [
        what
        for what, is_missing in (
            ("allow_algo", wanted.call and not own.call),
            ("allow_algo_management", wanted.manage and not own.manage),
            ("allow_data", _DATA.index(wanted.data) > _DATA.index(own.data)),
            ("algo_acl", not all(_is_among(entry, own.algorithms) for entry in wanted.algorithms)),
        )
        if is_missing
    ]
    if missing:
        raise ManagementError(
            Codes.NOT_AUTHORIZED, f"a key cannot make one that may do more than itself: {', '.join(missing)}"
        )


def auth_permissions(permissions: Permissions) -> dict[str, Any]:
    """As clients read them."""
    return {
        "allow_data": permissions.data != "none",
        "allow_data_write": permissions.data == "write",
        "allow_algo": permissions.call,
        "allow_web_algo": False,
        "referer_host": "",
        "allow_algo_management": permissions.manage,
        "algo_acl": [_SCHEME + (entry if entry.endswith("*") else f"{entry}/*") for entry in permissions.algorithms],
    }


def _entry(text: str) -> str:
    match = _ENTRY.fullmatch(text.removeprefix(_SCHEME))
    if match is None:
        raise ManagementError(
            Codes.INVALID_INPUT,
            f"{text[:140]!r} names no algorithms; write algo://*, algo://OWNER/* or algo://OWNER/NAME/*",
        )
    return match[1] or match[0]


def _is_among(entry: str, allowed: tuple[str, ...]) -> bool:
    entry = entry.lower()
    return any(
        one == "*" or one == entry or (one.endswith("/*") and entry.startswith(one[:-1]))
        for one in map(str.lower, allowed)
    )
