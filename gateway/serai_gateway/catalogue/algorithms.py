"""Algorithms in SQL: made, found, changed and deleted."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway.catalogue.accounts import check_exists
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import InUse, NotFound, Taken
from serai_gateway.catalogue.records import Account, Algorithm, Visibility
from serai_gateway.catalogue.rules import check_name, may_manage
from serai_gateway.catalogue.tables import accounts, algorithms, builds, call_errors, insights, secrets, versions
from serai_gateway.traffic import check_routing

#: A tagline is one line of a list.
MAX_TAGLINE_CHARS = 300
#: Most of a search text that is kept, in characters: more than owner, name, tagline and label have. With four bytes for
#: each it still fits into an index entry of every database.
_MAX_SEARCH_CHARS = 650
#: What goes with an algorithm.
_BELONGING = (insights, call_errors, secrets, builds, versions)

select_algorithm = sa.select(algorithms, accounts.c.name.label("owner")).join_from(algorithms, accounts)


def algorithm_of(row: Any) -> Algorithm:
    return Algorithm(
        row.id,
        row.owner_id,
        row.owner,
        row.name,
        row.visibility,
        row.tagline,
        row.created_at,
        row.details,
        row.settings,
        tuple((semver, percent) for semver, percent in row.routing),
    )


def no_algorithm(owner: str, name: str) -> NotFound:
    return NotFound(f"no algorithm {owner[:70]}/{name[:70]}")


def find_with_owner(
    connection: sa.Connection, owner: str, name: str, caller: Account | None
) -> tuple[Algorithm, Account]:
    """Raises NotFound, alike for one that is private and one that does not exist."""
    named = (accounts.c.name_key == owner.lower()) & (algorithms.c.name_key == name.lower())
    found = _find(connection, named, caller)
    if found is None:
        raise no_algorithm(owner, name)
    return found


def existing(connection: sa.Connection, algorithm: Algorithm) -> Algorithm:
    """The algorithm as it is now. Raises NotFound when it has been deleted."""
    row = connection.execute(select_algorithm.where(algorithms.c.id == algorithm.id)).one_or_none()
    if row is None:
        raise no_algorithm(algorithm.owner, algorithm.name)
    return algorithm_of(row)


def _find(
    connection: sa.Connection, this: sa.ColumnElement[bool], caller: Account | None
) -> tuple[Algorithm, Account] | None:
    columns = (accounts.c.kind, accounts.c.owner_id.label("manager_id"))
    row = connection.execute(select_algorithm.add_columns(*columns).where(this)).one_or_none()
    if row is None:
        return None
    owning = Account(row.owner_id, row.owner, row.kind, row.manager_id, 0.0)
    if row.visibility != "public" and not may_manage(caller, owning):
        return None
    return algorithm_of(row), owning


class Algorithms:
    """The part of the catalogue that knows each algorithm."""

    _database: Database

    def ensure_algorithm(
        self, owner: Account, name: str, visibility: Visibility = "private", tagline: str = ""
    ) -> Algorithm:
        return self._make(owner, name, is_new=False, visibility=visibility, tagline=tagline)

    def create_algorithm(
        self,
        owner: Account,
        name: str,
        *,
        tagline: str = "",
        details: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        algorithm_id: str | None = None,
    ) -> Algorithm:
        said = {"details": dict(details or {}), "settings": dict(settings or {}), "tagline": tagline}
        return self._make(owner, name, is_new=True, algorithm_id=algorithm_id, **said)

    def _make(
        self,
        owner: Account,
        name: str,
        *,
        is_new: bool,
        visibility: Visibility = "private",
        tagline: str = "",
        details: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        algorithm_id: str | None = None,
    ) -> Algorithm:
        check_name(name, "algorithm name")
        mine = (algorithms.c.owner_id == owner.id) & (algorithms.c.name_key == name.lower())
        with self._database.write() as connection:
            row = connection.execute(select_algorithm.where(mine)).one_or_none()
            if row is not None:
                if is_new:
                    raise Taken(f"there is an algorithm {row.owner}/{row.name} already; choose another name")
                return algorithm_of(row)
            check_exists(connection, owner)
            algorithm = Algorithm(
                algorithm_id or uuid.uuid4().hex,
                owner.id,
                owner.name,
                name,
                visibility,
                tagline[:MAX_TAGLINE_CHARS],
                time.time(),
                details or {},
                settings or {},
            )
            values = msgspec.structs.asdict(algorithm)
            del values["owner"]
            values |= {"name_key": name.lower(), "search_text": _search_text(algorithm)}
            connection.execute(sa.insert(algorithms).values(**values))
            touch(connection)
        return algorithm

    def find_algorithm(self, owner: str, name: str, caller: Account | None) -> Algorithm:
        with self._database.read() as connection:
            return find_with_owner(connection, owner, name, caller)[0]

    def algorithm_by_id(self, algorithm_id: str, caller: Account | None) -> Algorithm:
        with self._database.read() as connection:
            found = _find(connection, algorithms.c.id == algorithm_id, caller)
        if found is None:
            raise NotFound(f"no algorithm with the id {algorithm_id[:70]}")
        return found[0]

    def name_of_algorithm(self, algorithm_id: str) -> tuple[str, str] | None:
        query = sa.select(accounts.c.name.label("owner"), algorithms.c.name).join_from(algorithms, accounts)
        with self._database.read() as connection:
            row = connection.execute(query.where(algorithms.c.id == algorithm_id)).one_or_none()
        return (row.owner, row.name) if row is not None else None

    def set_algorithm(
        self,
        algorithm: Algorithm,
        *,
        visibility: Visibility | None = None,
        tagline: str | None = None,
        details: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Algorithm:
        with self._database.write() as connection:
            return change_algorithm(connection, algorithm, visibility, tagline, details, settings)

    def set_routing(self, algorithm: Algorithm, routing: tuple[tuple[str, int], ...]) -> Algorithm:
        public = sa.select(versions.c.semver).where(versions.c.algorithm_id == algorithm.id, versions.c.public)
        with self._database.write() as connection:
            before = existing(connection, algorithm)
            if routing:
                routing = check_routing(routing, set(connection.execute(public).scalars()))
            after = msgspec.structs.replace(before, routing=routing)
            _store(connection, before, after)
        return after

    def delete_algorithm(self, algorithm: Algorithm, *, even_if_public: bool = False) -> None:
        public = sa.select(versions.c.id).where(versions.c.algorithm_id == algorithm.id, versions.c.public).limit(1)
        with self._database.write() as connection:
            existing(connection, algorithm)
            if not even_if_public and connection.execute(public).first() is not None:
                raise InUse(
                    f"{algorithm.owner}/{algorithm.name} has public versions, which others may call; deprecate them, "
                    "or ask the operator, who can delete it"
                )
            for table in _BELONGING:
                connection.execute(sa.delete(table).where(table.c.algorithm_id == algorithm.id))
            connection.execute(sa.delete(algorithms).where(algorithms.c.id == algorithm.id))
            touch(connection)


def change_algorithm(
    connection: sa.Connection,
    algorithm: Algorithm,
    visibility: Visibility | None,
    tagline: str | None,
    details: Mapping[str, Any] | None,
    settings: Mapping[str, Any] | None,
) -> Algorithm:
    """`set_algorithm`, in the transaction of a writer. Raises NotFound."""
    before = existing(connection, algorithm)
    after = msgspec.structs.replace(
        before,
        visibility=visibility or before.visibility,
        tagline=before.tagline if tagline is None else tagline[:MAX_TAGLINE_CHARS],
        details=before.details | dict(details or {}),
        settings=before.settings | dict(settings or {}),
    )
    _store(connection, before, after)
    return after


def _store(connection: sa.Connection, before: Algorithm, after: Algorithm) -> None:
    if after == before:
        return
    said, were = msgspec.structs.asdict(after), msgspec.structs.asdict(before)
    changes = {key: value for key, value in said.items() if value != were[key]}
    changes["search_text"] = _search_text(after)
    connection.execute(sa.update(algorithms).where(algorithms.c.id == after.id).values(**changes))
    touch(connection)


def _search_text(algorithm: Algorithm) -> str:
    words = (algorithm.owner, algorithm.name, algorithm.tagline, algorithm.details.get("label", ""))
    return " ".join(words).lower()[:_MAX_SEARCH_CHARS]
