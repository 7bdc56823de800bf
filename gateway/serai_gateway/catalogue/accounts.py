"""Accounts, in SQL: who there is, what they say of themselves, and what they belong to."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import InUse, LastOwner, NotFound, Taken
from serai_gateway.catalogue.records import Account, AccountKind, AccountPage, Role
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE, check_name
from serai_gateway.catalogue.tables import accounts, algorithms, api_keys, members, retired_names


def account_of(row: Any, memberships: tuple[tuple[str, Role], ...] = ()) -> Account:
    return Account(row.id, row.name, row.kind, row.owner_id, row.created_at, row.profile, memberships)


def memberships_of(connection: sa.Connection, account_id: str) -> tuple[tuple[str, Role], ...]:
    """What it belongs to, and what it manages, which makes it an owner."""
    of_it = sa.select(members.c.organization_id, members.c.role).where(members.c.account_id == account_id)
    managed = sa.select(accounts.c.id, sa.literal("owner")).where(accounts.c.owner_id == account_id)
    return tuple(sorted((id, role) for id, role in connection.execute(of_it.union_all(managed))))


def check_exists(connection: sa.Connection, account: Account) -> None:
    """Raises NotFound: it was deleted after somebody had read it."""
    if connection.scalar(sa.select(accounts.c.id).where(accounts.c.id == account.id)) is None:
        raise NotFound(f"no account {account.name}")


def insert_account(
    connection: sa.Connection, name: str, kind: AccountKind, owner_id: str | None, profile: Mapping[str, str]
) -> Account:
    """In the transaction of a writer. Raises Taken."""
    taken = sa.union_all(
        sa.select(accounts.c.name_key).where(accounts.c.name_key == name.lower()),
        sa.select(retired_names.c.name_key).where(retired_names.c.name_key == name.lower()),
    )
    if connection.execute(taken).first() is not None:
        raise Taken(f"the name {name} is taken; choose another name")
    account = Account(uuid.uuid4().hex, name, kind, owner_id, time.time(), dict(profile))
    values = msgspec.structs.asdict(account)
    del values["memberships"]
    connection.execute(sa.insert(accounts).values(**values, name_key=name.lower()))
    touch(connection)
    return account


class Accounts:
    """The part of the catalogue that knows who there is."""

    _database: Database

    def ensure_account(self, name: str, kind: AccountKind = "user", owner: Account | None = None) -> Account:
        check_name(name, "account name")
        owner_id = owner.id if owner else None
        found = self._find(name)
        if found is None:
            with self._database.write() as connection:
                row = connection.execute(_named(name)).one_or_none()
                if row is None:
                    return insert_account(connection, name, kind, owner_id, {})
                found = account_of(row, memberships_of(connection, row.id))
        if (found.kind, found.owner_id) != (kind, owner_id):
            raise Taken(f"the name {found.name} is taken by another account; choose another name")
        return found

    def create_account(self, name: str, profile: Mapping[str, str]) -> Account:
        check_name(name, "account name")
        with self._database.write() as connection:
            return insert_account(connection, name, "user", None, profile)

    def account_named(self, name: str) -> Account:
        found = self._find(name)
        if found is None:
            raise NotFound(f"no account {name[:70]}")
        return found

    def account_by_id(self, account_id: str) -> Account:
        with self._database.read() as connection:
            row = connection.execute(sa.select(accounts).where(accounts.c.id == account_id)).one_or_none()
            if row is None:
                raise NotFound(f"no account with the id {account_id[:70]}")
            return account_of(row, memberships_of(connection, row.id))

    def list_accounts(self, *kinds: AccountKind, limit: int = PAGE_SIZE, marker: str | None = None) -> AccountPage:
        limit = max(1, min(limit, MAX_PAGE_SIZE))
        query = sa.select(accounts).where(accounts.c.kind.in_(kinds)).order_by(accounts.c.name_key)
        if marker:
            query = query.where(accounts.c.name_key > marker.lower())
        with self._database.read() as connection:
            found = [account_of(row) for row in connection.execute(query.limit(limit + 1))]
        page = tuple(found[:limit])
        return AccountPage(page, page[-1].name.lower() if len(found) > limit else None)

    def set_profile(self, account: Account, changes: Mapping[str, str]) -> Account:
        this = accounts.c.id == account.id
        with self._database.write() as connection:
            row = connection.execute(sa.select(accounts).where(this)).one_or_none()
            if row is None:
                raise NotFound(f"no account {account.name}")
            profile = row.profile | dict(changes)
            if profile != row.profile:
                connection.execute(sa.update(accounts).where(this).values(profile=profile))
                touch(connection)
                row = connection.execute(sa.select(accounts).where(this)).one()
            return account_of(row, memberships_of(connection, row.id))

    def delete_account(self, account: Account) -> None:
        with self._database.write() as connection:
            row = connection.execute(sa.select(accounts).where(accounts.c.id == account.id)).one_or_none()
            if row is None:
                raise NotFound(f"no account {account.name}")
            _check_unused(connection, account_of(row))
            connection.execute(
                sa.delete(members).where((members.c.organization_id == row.id) | (members.c.account_id == row.id))
            )
            connection.execute(sa.delete(api_keys).where(api_keys.c.account_id == row.id))
            connection.execute(sa.delete(accounts).where(accounts.c.id == row.id))
            connection.execute(sa.insert(retired_names).values(name_key=row.name_key, retired_at=time.time()))
            touch(connection)

    def _find(self, name: str) -> Account | None:
        with self._database.read() as connection:
            row = connection.execute(_named(name)).one_or_none()
            return None if row is None else account_of(row, memberships_of(connection, row.id))


def _named(name: str) -> sa.Select[Any]:
    return sa.select(accounts).where(accounts.c.name_key == name.lower())


def _check_unused(connection: sa.Connection, account: Account) -> None:
    """Raises InUse or LastOwner."""
    if account.kind == "operator":
        raise InUse("the operator's account runs this Serai and cannot be deleted")
    owned = list(connection.scalars(sa.select(algorithms.c.name).where(algorithms.c.owner_id == account.id).limit(2)))
    if owned:
        more = " and more" if len(owned) > 1 else ""
        raise InUse(f"{account.name} owns {account.name}/{owned[0]}{more}; delete its algorithms first")
    managed = connection.scalar(sa.select(accounts.c.name).where(accounts.c.owner_id == account.id).limit(1))
    if managed is not None:
        raise InUse(f"{account.name} manages {managed}; delete it first")
    mine, others = members.alias(), members.alias()
    has_others = sa.exists().where(
        others.c.organization_id == mine.c.organization_id,
        others.c.account_id != account.id,
        others.c.role == "owner",
    )
    left_alone = (
        sa.select(accounts.c.name)
        .join_from(mine, accounts, accounts.c.id == mine.c.organization_id)
        .where(mine.c.account_id == account.id, mine.c.role == "owner", accounts.c.owner_id.is_(None), ~has_others)
    )
    alone = connection.scalar(left_alone.limit(1))
    if alone is not None:
        raise LastOwner(
            f"{account.name} is the last owner of {alone}; make somebody else its owner, or delete it first"
        )
