"""Who there is, as the gateway asks for it: accounts, organizations, keys."""

from collections.abc import Mapping
from typing import Protocol

from serai_gateway.catalogue.records import (
    Account,
    AccountKind,
    AccountPage,
    Caller,
    Key,
    Member,
    MemberPage,
    NewKey,
    Permissions,
    Role,
)
from serai_gateway.catalogue.rules import PAGE_SIZE


class People(Protocol):
    # accounts

    def ensure_operator(self, key_text: str) -> Account:
        """The operator's account, made if there is none, with this key. Once per key text."""
        ...

    def ensure_account(self, name: str, kind: AccountKind = "user", owner: Account | None = None) -> Account:
        """The account of this name, made if there is none. Once per name. Raises Taken, InvalidName."""
        ...

    def create_account(self, name: str, profile: Mapping[str, str]) -> Account:
        """A new user. Raises Taken, also for the name of an account that was deleted; InvalidName."""
        ...

    def account_named(self, name: str) -> Account:
        """Raises NotFound."""
        ...

    def account_by_id(self, account_id: str) -> Account:
        """Raises NotFound."""
        ...

    def list_accounts(self, *kinds: AccountKind, limit: int = PAGE_SIZE, marker: str | None = None) -> AccountPage:
        """By name, without their memberships."""
        ...

    def set_profile(self, account: Account, changes: Mapping[str, str]) -> Account:
        """What it says of itself; what is not named stays. Raises NotFound."""
        ...

    def delete_account(self, account: Account) -> None:
        """From now on nobody comes in with its keys. Its name stays taken for good.

        Raises:
            NotFound: it is gone already.
            InUse: it still has algorithms, manages organizations, or is the operator's.
            LastOwner: an organization would be left without an owner.
        """
        ...

    # organizations

    def create_organization(self, name: str, owner: Account, profile: Mapping[str, str]) -> Account:
        """A new organization and its first owner. Raises Taken, InvalidName, TooMany; NotFound unless `owner` is a
        person who is still there."""
        ...

    def members_of(self, organization: Account, *, limit: int = PAGE_SIZE, marker: str | None = None) -> MemberPage:
        """By name, owners among them."""
        ...

    def owners_of(self, organization: Account) -> tuple[str, ...]:
        """Ids of the accounts that decide for it."""
        ...

    def set_member(self, organization: Account, account: Account, role: Role | None = None) -> Member:
        """Make `account` belong to it, or change its role; None: as it is, and a member if it is new.

        Raises:
            NotFound: one of them is gone, or `account` is itself an organization.
            LastOwner: nobody else owns it.
            TooMany: the account belongs to as many as it may.
        """
        ...

    def remove_member(self, organization: Account, account: Account) -> None:
        """Raises NotFound for who does not belong to it; LastOwner."""
        ...

    # keys

    def create_key(
        self, account: Account, label: str, permissions: Permissions | None = None, text: str | None = None
    ) -> NewKey:
        """A key for `account`. Once per text, for a caller who chose the text (see `keys.new_key_text`).

        Raises TooMany; NotFound when the account is gone.
        """
        ...

    def keys_of(self, account: Account) -> tuple[Key, ...]: ...

    def revoke_key(self, account: Account, key_id: str) -> Key:
        """From now on nobody comes in with it. Again: the same answer. Raises NotFound."""
        ...

    def caller_of_key(self, key_text: str) -> Caller | None:
        """Who holds this key; None when nobody does, or it is revoked."""
        ...

    def account_of_key(self, key_text: str) -> Account | None: ...
