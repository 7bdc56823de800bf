"""Who belongs to an organization, in SQL.

Its owners decide for it, its members work on what it has. The account that manages it, where there is one, is an owner
without being listed in the table, and stays one.
"""

import time
from collections.abc import Mapping

import sqlalchemy as sa

from serai_gateway.catalogue.accounts import insert_account
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import LastOwner, NotFound, TooMany
from serai_gateway.catalogue.records import Account, Member, MemberPage, Role
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE, check_name
from serai_gateway.catalogue.tables import accounts, members

#: Organizations that an account may belong to: all of them are looked at whenever it calls.
MAX_MEMBERSHIPS = 200


class Organizations:
    """The part of the catalogue that knows who belongs together."""

    _database: Database

    def create_organization(self, name: str, owner: Account, profile: Mapping[str, str]) -> Account:
        check_name(name, "account name")
        with self._database.write() as connection:
            _check_person(connection, owner)
            _check_room(connection, owner)
            organization = insert_account(connection, name, "organization", None, profile)
            _insert(connection, organization, owner, "owner")
        return organization

    def members_of(self, organization: Account, *, limit: int = PAGE_SIZE, marker: str | None = None) -> MemberPage:
        limit = max(1, min(limit, MAX_PAGE_SIZE))
        listed = sa.select(accounts.c.id, accounts.c.name, accounts.c.name_key, members.c.role).join_from(
            members, accounts, accounts.c.id == members.c.account_id
        )
        manager = sa.select(accounts.c.id, accounts.c.name, accounts.c.name_key, sa.literal("owner").label("role"))
        found = sa.union_all(
            listed.where(members.c.organization_id == organization.id),
            manager.where(accounts.c.id == organization.owner_id),
        ).subquery()
        query = sa.select(found).order_by(found.c.name_key).limit(limit + 1)
        if marker:
            query = query.where(found.c.name_key > marker.lower())
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        page = tuple(Member(row.id, row.name, row.role) for row in rows[:limit])
        return MemberPage(page, page[-1].name.lower() if len(rows) > limit else None)

    def owners_of(self, organization: Account) -> tuple[str, ...]:
        query = sa.select(members.c.account_id).where(
            members.c.organization_id == organization.id, members.c.role == "owner"
        )
        manager = () if organization.owner_id is None else (organization.owner_id,)
        with self._database.read() as connection:
            return (*manager, *connection.scalars(query.order_by(members.c.created_at, members.c.account_id)))

    def set_member(self, organization: Account, account: Account, role: Role | None = None) -> Member:
        with self._database.write() as connection:
            _check_organization(connection, organization)
            _check_person(connection, account)
            now = _role_of(connection, organization, account)
            role = role or now or "member"
            if now == "owner" and role == "member":
                _check_not_last(connection, organization, account)
            if now is None:
                _check_room(connection, account)
                _insert(connection, organization, account, role)
            elif now != role:
                connection.execute(sa.update(members).where(_is(organization, account)).values(role=role))
                touch(connection)
        return Member(account.id, account.name, role)

    def remove_member(self, organization: Account, account: Account) -> None:
        with self._database.write() as connection:
            role = _role_of(connection, organization, account)
            if role is None:
                raise NotFound(f"{account.name} does not belong to {organization.name}")
            if role == "owner":
                _check_not_last(connection, organization, account)
            connection.execute(sa.delete(members).where(_is(organization, account)))
            touch(connection)


def _is(organization: Account, account: Account) -> sa.ColumnElement[bool]:
    return (members.c.organization_id == organization.id) & (members.c.account_id == account.id)


def _insert(connection: sa.Connection, organization: Account, account: Account, role: Role) -> None:
    connection.execute(
        sa.insert(members).values(
            organization_id=organization.id, account_id=account.id, role=role, created_at=time.time()
        )
    )
    touch(connection)


def _role_of(connection: sa.Connection, organization: Account, account: Account) -> Role | None:
    if account.id == organization.owner_id:
        return "owner"
    return connection.scalar(sa.select(members.c.role).where(_is(organization, account)))


def _check_organization(connection: sa.Connection, organization: Account) -> None:
    """Raises NotFound: somebody else was faster and has deleted it."""
    this = (accounts.c.id == organization.id) & (accounts.c.kind == "organization")
    if connection.scalar(sa.select(accounts.c.id).where(this)) is None:
        raise NotFound(f"no organization {organization.name}")


def _check_person(connection: sa.Connection, account: Account) -> None:
    """Raises NotFound: an organization belongs to nothing."""
    this = (accounts.c.id == account.id) & (accounts.c.kind != "organization")
    if connection.scalar(sa.select(accounts.c.id).where(this)) is None:
        raise NotFound(f"no user {account.name}")


def _check_room(connection: sa.Connection, account: Account) -> None:
    """Raises TooMany."""
    count = sa.select(sa.func.count()).where(members.c.account_id == account.id)
    if connection.execute(count).scalar_one() >= MAX_MEMBERSHIPS:
        raise TooMany(f"{account.name} belongs to {MAX_MEMBERSHIPS} organizations, the limit: leave one first")


def _check_not_last(connection: sa.Connection, organization: Account, account: Account) -> None:
    """Raises LastOwner."""
    if account.id == organization.owner_id:
        raise LastOwner(f"{account.name} manages {organization.name} and stays its owner")
    others = sa.select(members.c.account_id).where(
        members.c.organization_id == organization.id, members.c.role == "owner", members.c.account_id != account.id
    )
    if organization.owner_id is None and connection.scalar(others.limit(1)) is None:
        raise LastOwner(f"{account.name} is the last owner of {organization.name}; make somebody else its owner first")
