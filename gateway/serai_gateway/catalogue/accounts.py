"""Accounts and keys, in SQL."""

import time
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway.catalogue import keys
from serai_gateway.catalogue.base import check_name
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import CatalogueError, NotFound, Taken
from serai_gateway.catalogue.records import Account, AccountKind, Caller, Key, NewKey, Permissions
from serai_gateway.catalogue.tables import accounts, api_keys

#: The name of the account that `serai up` makes.
OPERATOR = "operator"
#: Longest label of a key.
MAX_LABEL_CHARS = 200


def account_of(row: Any) -> Account:
    return Account(row.id, row.name, row.kind, row.owner_id, row.created_at)


def _key_of(row: Any) -> Key:
    permissions = msgspec.convert(row.permissions, Permissions)
    return Key(row.id, row.account_id, row.label, row.mask, permissions, row.created_at, row.revoked_at)


class Accounts:
    """The part of the catalogue that knows who somebody is."""

    _database: Database

    def ensure_operator(self, key_text: str) -> Account:
        account = self.ensure_account(OPERATOR, "operator")
        if self.caller_of_key(key_text) is None:
            self.create_key(account, "operator", text=key_text)
        return account

    def ensure_account(self, name: str, kind: AccountKind = "user", owner: Account | None = None) -> Account:
        check_name(name, "account name")
        owner_id = owner.id if owner else None
        with self._database.read() as connection:
            found = connection.execute(_named(name)).one_or_none()
        if found is None:
            with self._database.write() as connection:
                found = connection.execute(_named(name)).one_or_none()
                if found is None:
                    account = Account(uuid.uuid4().hex, name, kind, owner_id, time.time())
                    connection.execute(
                        sa.insert(accounts).values(**msgspec.structs.asdict(account), name_key=name.lower())
                    )
                    touch(connection)
                    return account
        if (found.kind, found.owner_id) != (kind, owner_id):
            raise Taken(f"the name {found.name} is taken by another account; choose another name")
        return account_of(found)

    def account_named(self, name: str) -> Account:
        with self._database.read() as connection:
            row = connection.execute(_named(name)).one_or_none()
        if row is None:
            raise NotFound(f"no account {name[:70]}")
        return account_of(row)

    def create_key(
        self, account: Account, label: str, permissions: Permissions | None = None, text: str | None = None
    ) -> NewKey:
        text = keys.new_key_text() if text is None else text
        if not keys.is_key_text(text):
            raise CatalogueError("a key is 'sim' and 25 letters and digits; let the server make one")
        if len(label) > MAX_LABEL_CHARS:
            raise CatalogueError(f"a key's label has at most {MAX_LABEL_CHARS} characters, this one {len(label)}")
        permissions = permissions or Permissions()
        key = Key(uuid.uuid4().hex, account.id, label, keys.mask_of(text), permissions, time.time(), None)
        with self._database.write() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.hash == keys.hash_of(text))).one_or_none()
            if row is not None:
                if (row.account_id, row.revoked_at) != (account.id, None):
                    raise Taken("this key is revoked or somebody else's; let the server make one")
                return NewKey(_key_of(row), text)
            values = msgspec.structs.asdict(key) | {"permissions": msgspec.to_builtins(permissions)}
            connection.execute(sa.insert(api_keys).values(**values, hash=keys.hash_of(text)))
            touch(connection)
        return NewKey(key, text)

    def keys_of(self, account: Account) -> tuple[Key, ...]:
        query = sa.select(api_keys).where(api_keys.c.account_id == account.id).order_by(api_keys.c.created_at)
        with self._database.read() as connection:
            return tuple(_key_of(row) for row in connection.execute(query))

    def revoke_key(self, account: Account, key_id: str) -> Key:
        mine = (api_keys.c.id == key_id) & (api_keys.c.account_id == account.id)
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=time.time())
            )
            if changed.rowcount:
                touch(connection)
            row = connection.execute(sa.select(api_keys).where(mine)).one_or_none()
        if row is None:
            raise NotFound(f"no key {key_id[:70]}")
        return _key_of(row)

    def caller_of_key(self, key_text: str) -> Caller | None:
        query = (
            sa.select(
                *(column.label(f"account_{column.name}") for column in accounts.c),
                *(column for column in api_keys.c if column.name != "account_id"),
            )
            .join_from(api_keys, accounts)
            .where(api_keys.c.hash == keys.hash_of(key_text), api_keys.c.revoked_at.is_(None))
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        account = Account(
            row.account_id, row.account_name, row.account_kind, row.account_owner_id, row.account_created_at
        )
        return Caller(account, _key_of(row))

    def account_of_key(self, key_text: str) -> Account | None:
        caller = self.caller_of_key(key_text)
        return caller.account if caller else None


def _named(name: str) -> sa.Select[Any]:
    return sa.select(accounts).where(accounts.c.name_key == name.lower())
