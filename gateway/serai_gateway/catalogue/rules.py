"""What holds for every catalogue: names, pages, and who may do what. Pure."""

import re

from serai_gateway.catalogue.errors import InvalidName
from serai_gateway.catalogue.records import Account

#: Entries on a page unless asked otherwise, as Algorithmia had it; and the most one may ask for.
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

#: Longest build log kept, in characters. The builder cuts it before; here it is a wall.
MAX_LOG_CHARS = 1 << 20

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
#: What ids look like. A name like that would be taken for one, perhaps for somebody else's.
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\Z", re.IGNORECASE)


def check_name(name: str, what: str = "name") -> str:
    """`name` itself. Raises InvalidName unless it may name an account or an algorithm."""
    if not _NAME.match(name):
        raise InvalidName(
            f"{name[:70]!r} is not a valid {what}: a letter, then letters, digits, '-' and '_', 64 in all at most"
        )
    if _ID.match(name):
        raise InvalidName(f"{name!r} is not a valid {what}: it looks like an id; take another one")
    return name


def may_manage(caller: Account | None, owner: Account) -> bool:
    """Whether `caller` sees and changes what belongs to `owner`: push, compile, publish privately, secrets, logs."""
    return may_administer(caller, owner) or (caller is not None and belongs_to(caller, owner.id))


def may_administer(caller: Account | None, owner: Account) -> bool:
    """Whether `caller` decides for `owner`: publish publicly, route, delete, say who belongs to it."""
    if caller is None:
        return False
    return (
        caller.kind == "operator"
        or caller.id in (owner.id, owner.owner_id)
        or dict(caller.memberships).get(owner.id) == "owner"
    )


def belongs_to(caller: Account, owner_id: str) -> bool:
    """`may_manage`, for one who was loaded as a caller, of an owner whose id is all that is known."""
    return caller.kind == "operator" or caller.id == owner_id or owner_id in dict(caller.memberships)
