"""Secrets of algorithms, in SQL. Values come sealed and go sealed: see `serai_gateway.vault`."""

import time
from typing import Any

import sqlalchemy as sa

from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import NotFound, Taken, TooMany
from serai_gateway.catalogue.records import Secret, SecretsOf
from serai_gateway.catalogue.tables import algorithms, secrets

#: Of one algorithm, and what all of them hold together: they travel in one message into each of its boxes.
MAX_SECRETS = 64
MAX_TOTAL_BYTES = 64 * 1024
#: Two changes are told apart by their times, whatever the clock does.
_TICK_S = 1e-6


class Secrets:
    """The part of the catalogue that keeps what algorithms are given in confidence."""

    _database: Database

    def secrets_of(self, algorithm_id: str) -> SecretsOf:
        of = sa.select(algorithms.c.secrets_at, algorithms.c.created_at).where(algorithms.c.id == algorithm_id)
        mine = sa.select(secrets).where(secrets.c.algorithm_id == algorithm_id)
        with self._database.read() as connection:
            algorithm = connection.execute(of).one_or_none()
            if algorithm is None:
                raise NotFound("the algorithm is gone")
            if algorithm.secrets_at is None:
                return SecretsOf(algorithm.created_at, ())
            rows = connection.execute(mine.order_by(secrets.c.created_at, secrets.c.id))
            return SecretsOf(algorithm.secrets_at, tuple(Secret(**row._mapping) for row in rows))

    def add_secret(self, secret: Secret) -> Secret:
        with self._database.write() as connection:
            found = connection.execute(sa.select(secrets).where(secrets.c.id == secret.id)).one_or_none()
            if found is not None:
                return Secret(**found._mapping)
            now = _change(connection, secret.algorithm_id)
            _check(connection, secret)
            values: dict[str, Any] = _values(secret) | {"created_at": now, "modified_at": now}
            connection.execute(sa.insert(secrets).values(**values))
            return Secret(**values)

    def change_secret(self, secret: Secret) -> Secret:
        with self._database.write() as connection:
            now = _change(connection, secret.algorithm_id)
            _check(connection, secret)
            values = _values(secret) | {"modified_at": now}
            del values["created_at"]
            changed = connection.execute(sa.update(secrets).where(_is(secret.algorithm_id, secret.id)).values(**values))
            if not changed.rowcount:
                raise _no_secret()
            row = connection.execute(sa.select(secrets).where(secrets.c.id == secret.id)).one()
            return Secret(**row._mapping)

    def remove_secret(self, algorithm_id: str, secret_id: str) -> None:
        with self._database.write() as connection:
            _change(connection, algorithm_id)
            if not connection.execute(sa.delete(secrets).where(_is(algorithm_id, secret_id))).rowcount:
                raise _no_secret()

    def all_secrets(self) -> tuple[Secret, ...]:
        with self._database.read() as connection:
            return tuple(Secret(**row._mapping) for row in connection.execute(sa.select(secrets)))

    def reseal_secret(self, secret: Secret, sealed: bytes) -> None:
        """The same value, sealed anew; unless it has been changed since."""
        this = _is(secret.algorithm_id, secret.id) & (secrets.c.sealed == secret.sealed)
        with self._database.write() as connection:
            connection.execute(sa.update(secrets).where(this).values(sealed=sealed))


def _values(secret: Secret) -> dict[str, Any]:
    return {name: getattr(secret, name) for name in secret.__struct_fields__}


def _is(algorithm_id: str, secret_id: str) -> sa.ColumnElement[bool]:
    return (secrets.c.algorithm_id == algorithm_id) & (secrets.c.id == secret_id)


def _no_secret() -> NotFound:
    return NotFound("no such secret")


def _change(connection: sa.Connection, algorithm_id: str) -> float:
    """Say that the algorithm's secrets change, in the transaction that changes them; when."""
    this = algorithms.c.id == algorithm_id
    row = connection.execute(sa.select(algorithms.c.secrets_at, algorithms.c.created_at).where(this)).one_or_none()
    if row is None:
        raise NotFound("the algorithm is gone")
    last = row.created_at if row.secrets_at is None else row.secrets_at
    now = max(time.time(), last + _TICK_S)
    connection.execute(sa.update(algorithms).where(this).values(secrets_at=now))
    touch(connection)
    return now


def _check(connection: sa.Connection, secret: Secret) -> None:
    """Whether there is room beside the others, and both names are free. Raises Taken, TooMany."""
    others = (secrets.c.algorithm_id == secret.algorithm_id) & (secrets.c.id != secret.id)
    for column, name in ((secrets.c.key, secret.key), (secrets.c.short_name, secret.short_name)):
        if connection.execute(sa.select(secrets.c.id).where(others, column == name)).first() is not None:
            raise Taken(f"this algorithm has a secret {name} already")
    size = sa.func.coalesce(sa.func.sum(sa.func.length(secrets.c.sealed)), 0)
    num, num_bytes = connection.execute(sa.select(sa.func.count(), size).where(others)).one()
    if num >= MAX_SECRETS:
        raise TooMany(f"an algorithm has at most {MAX_SECRETS} secrets; remove one")
    if num_bytes + len(secret.sealed) > MAX_TOTAL_BYTES:
        raise TooMany(
            f"the secrets of an algorithm have at most {MAX_TOTAL_BYTES >> 10} KiB together; larger things belong into "
            "a collection"
        )
