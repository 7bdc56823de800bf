"""Keys, and who comes in with them, in SQL."""

import time
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway.catalogue import keys
from serai_gateway.catalogue.accounts import Accounts, check_exists, memberships_of
from serai_gateway.catalogue.database import touch
from serai_gateway.catalogue.errors import CatalogueError, NotFound, Taken, TooMany
from serai_gateway.catalogue.records import Account, Caller, Key, NewKey, Permissions
from serai_gateway.catalogue.tables import accounts, api_keys

#: The name of the account that `serai up` makes.
OPERATOR = "operator"
#: Longest label of a key.
MAX_LABEL_CHARS = 200
#: Keys of an account that are not revoked; one for each machine and program of a large company's.
MAX_KEYS = 1000


def _key_of(row: Any) -> Key:
    permissions = msgspec.convert(row.permissions, Permissions)
    return Key(row.id, row.account_id, row.label, row.mask, permissions, row.created_at, row.revoked_at)


class Callers(Accounts):
    """The part of the catalogue that knows who somebody is."""

    def ensure_operator(self, key_text: str) -> Account:
        account = self.ensure_account(OPERATOR, "operator")
        if self.caller_of_key(key_text) is None:
            self.create_key(account, "operator", text=key_text)
        return account

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
            check_exists(connection, account)
            _check_room(connection, account)
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
                row.account_id,
                row.account_name,
                row.account_kind,
                row.account_owner_id,
                row.account_created_at,
                row.account_profile,
                memberships_of(connection, row.account_id),
            )
        return Caller(account, _key_of(row))

    def account_of_key(self, key_text: str) -> Account | None:
        caller = self.caller_of_key(key_text)
        return caller.account if caller else None


def _check_room(connection: sa.Connection, account: Account) -> None:
    """Raises TooMany."""
    live = sa.select(sa.func.count()).where(api_keys.c.account_id == account.id, api_keys.c.revoked_at.is_(None))
    if connection.execute(live).scalar_one() >= MAX_KEYS:
        raise TooMany(f"{account.name} has {MAX_KEYS} keys, the limit: revoke one that is not used")
