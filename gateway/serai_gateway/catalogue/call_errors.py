"""Calls that failed, in SQL: of each algorithm the newest ones, for a week."""

import time
from collections.abc import Sequence

import sqlalchemy as sa

from serai_gateway.catalogue.database import Database
from serai_gateway.catalogue.records import CallError, ListedError
from serai_gateway.catalogue.tables import accounts, algorithms, call_errors

#: How many are kept of one algorithm, are listed at once, and for how long. Algorithmia's figures.
MAX_CALL_ERRORS = 200
KEPT_S = 7 * 86_400.0
#: Ids in one condition: databases have a limit.
_MANY = 500

_select = (
    sa.select(call_errors, algorithms.c.name, accounts.c.name.label("owner"))
    .join_from(call_errors, algorithms)
    .join(accounts, algorithms.c.owner_id == accounts.c.id)
)


class CallErrors:
    """The part of the catalogue that remembers what went wrong. Caches need not know of it."""

    _database: Database

    def add_call_errors(self, errors: Sequence[CallError]) -> None:
        with self._database.write() as connection:
            there = existing(connection, {error.algorithm_id for error in errors})
            rows = [_values(error) for error in errors if error.algorithm_id in there]
            if rows:
                connection.execute(sa.insert(call_errors), rows)
            for algorithm_id in there:
                prune(connection, call_errors, algorithm_id, MAX_CALL_ERRORS)
                _forget_old(connection, call_errors.c.algorithm_id == algorithm_id)

    def errors_of_algorithm(self, algorithm_id: str, caller: str | None = None) -> tuple[ListedError, ...]:
        wanted = call_errors.c.algorithm_id == algorithm_id
        return self._errors(wanted if caller is None else wanted & (call_errors.c.caller == caller))

    def errors_of_owner(self, owner_id: str) -> tuple[ListedError, ...]:
        return self._errors(algorithms.c.owner_id == owner_id)

    def forget_old_call_errors(self) -> None:
        with self._database.write() as connection:
            _forget_old(connection, sa.true())

    def _errors(self, wanted: sa.ColumnElement[bool]) -> tuple[ListedError, ...]:
        since = call_errors.c.created_at > time.time() - KEPT_S
        newest = (call_errors.c.created_at.desc(), call_errors.c.id)
        with self._database.read() as connection:
            rows = connection.execute(_select.where(wanted, since).order_by(*newest).limit(MAX_CALL_ERRORS)).all()
        names = CallError.__struct_fields__
        return tuple(
            ListedError(CallError(*(getattr(row, name) for name in names)), row.owner, row.name) for row in rows
        )


def existing(connection: sa.Connection, algorithm_ids: set[str]) -> set[str]:
    """Those of the algorithms that have not been deleted meanwhile."""
    ids, there = sorted(algorithm_ids), set[str]()
    for at in range(0, len(ids), _MANY):
        query = sa.select(algorithms.c.id).where(algorithms.c.id.in_(ids[at : at + _MANY]))
        there.update(connection.scalars(query))
    return there


def prune(connection: sa.Connection, table: sa.Table, algorithm_id: str, most: int) -> None:
    """Forget all but the newest of one algorithm."""
    mine = table.c.algorithm_id == algorithm_id
    first_too_many = (
        sa.select(table.c.created_at).where(mine).order_by(table.c.created_at.desc()).offset(most).limit(1)
    ).scalar_subquery()
    connection.execute(sa.delete(table).where(mine, table.c.created_at <= first_too_many))


def _forget_old(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.delete(call_errors).where(which, call_errors.c.created_at <= time.time() - KEPT_S))


def _values(error: CallError) -> dict[str, object]:
    return {name: getattr(error, name) for name in error.__struct_fields__}
