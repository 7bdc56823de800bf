"""Who may do what with accounts: one table, and the account that a path is about.

What somebody is to an account decides, together with a key that may manage:

    operator   runs this Serai
    itself     comes in with a key of that account
    owner      decides for that organization
    member     belongs to it
    stranger   anybody else: for them the account might as well not exist
"""

import asyncio
from typing import Literal

from starlette.requests import Request

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.who import manager_of
from serai_gateway.catalogue import (
    Account,
    Caller,
    Catalogue,
    InvalidName,
    NotFound,
    check_name,
    may_administer,
    may_manage,
)

Standing = Literal["operator", "itself", "owner", "member", "stranger"]

_OPERATOR: frozenset[Standing] = frozenset({"operator"})
_PERSON: frozenset[Standing] = frozenset({"operator", "itself"})
_OWNERS: frozenset[Standing] = frozenset({"operator", "itself", "owner"})
_MEMBERS: frozenset[Standing] = frozenset({"operator", "itself", "owner", "member"})

#: What may be done by whom.
RIGHTS: dict[str, frozenset[Standing]] = {
    "list users": _OPERATOR,
    "create user": _OPERATOR,
    "read user": _PERSON,
    "update user": _PERSON,
    "delete user": _OPERATOR,
    "keys of user": _PERSON,
    "admin keys of user": _OPERATOR,
    "list organizations": _OPERATOR,
    "read organization": _MEMBERS,
    "update organization": _OWNERS,
    "delete organization": _OWNERS,
    "read members": _MEMBERS,
    "set member": _OWNERS,
    "remove member": _OWNERS,  # and whoever leaves
    "keys of organization": _OWNERS,
}


def standing(caller: Account, account: Account) -> Standing:
    if caller.kind == "operator":
        return "operator"
    if caller.id == account.id:
        return "itself"
    if may_administer(caller, account):
        return "owner"
    return "member" if may_manage(caller, account) else "stranger"


def check_right(caller: Caller, account: Account, right: str) -> None:
    """Raises ManagementError."""
    if standing(caller.account, account) not in RIGHTS[right]:
        raise ManagementError(Codes.NOT_AUTHORIZED)


async def operator_of(request: Request, right: str) -> Caller:
    """Who asks, for what is no single account's. Raises ManagementError, Unauthenticated, Forbidden."""
    caller = await manager_of(request)
    if caller.account.kind not in RIGHTS[right]:
        raise ManagementError(Codes.NOT_AUTHORIZED)
    return caller


async def user_of(request: Request, right: str) -> tuple[Caller, Account]:
    """Who asks, and the user of the path; `me` is whoever asks, nobody has that name.

    Raises ManagementError, Unauthenticated, Forbidden.
    """
    caller = await manager_of(request)
    name = request.path_params["username"]
    is_me = name == "me"
    user = await find_account(request, caller.account.name if is_me else name)
    is_person = user is not None and (user.kind != "organization" or (is_me and right != "update user"))
    if user is None or not is_person or standing(caller.account, user) == "stranger":
        raise ManagementError(Codes.USER_NOT_FOUND)
    check_right(caller, user, right)
    return caller, user


async def organization_of(request: Request, right: str | None) -> tuple[Caller, Account]:
    """Who asks, and the organization of the path. Raises ManagementError, Unauthenticated, Forbidden."""
    caller = await manager_of(request)
    organization = await find_account(request, request.path_params["organization"])
    if (
        organization is None
        or organization.kind != "organization"
        or standing(caller.account, organization) == "stranger"
    ):
        raise ManagementError(Codes.ORGANIZATION_NOT_FOUND)
    if right is not None:
        check_right(caller, organization, right)
    return caller, organization


async def find_account(request: Request, name: str) -> Account | None:
    catalogue: Catalogue = request.app.state.catalogue
    try:
        return await asyncio.to_thread(catalogue.account_named, check_name(name))
    except (NotFound, InvalidName):
        return None
