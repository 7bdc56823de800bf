"""Algorithms and lists of them, in SQL."""

import time
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway import versions as numbers
from serai_gateway.catalogue.base import MAX_PAGE_SIZE, PAGE_SIZE, check_name, may_manage
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import NotFound
from serai_gateway.catalogue.records import Account, Algorithm, Listing, Page, Visibility
from serai_gateway.catalogue.tables import accounts, algorithms, versions

#: Longest search that is looked at, in characters and words: each word costs a pass over the names.
_MAX_QUERY_CHARS = 200
_MAX_QUERY_WORDS = 8
#: A tagline is one line of a list.
MAX_TAGLINE_CHARS = 300

_select = sa.select(algorithms, accounts.c.name.label("owner")).join_from(algorithms, accounts)


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


def _find(
    connection: sa.Connection, this: sa.ColumnElement[bool], caller: Account | None
) -> tuple[Algorithm, Account] | None:
    columns = (accounts.c.kind, accounts.c.owner_id.label("manager_id"))
    row = connection.execute(_select.add_columns(*columns).where(this)).one_or_none()
    if row is None:
        return None
    owning = Account(row.owner_id, row.owner, row.kind, row.manager_id, 0.0)
    if row.visibility != "public" and not may_manage(caller, owning):
        return None
    return algorithm_of(row), owning


class Algorithms:
    """The part of the catalogue that knows what there is."""

    _database: Database

    def ensure_algorithm(
        self, owner: Account, name: str, visibility: Visibility = "private", tagline: str = ""
    ) -> Algorithm:
        check_name(name, "algorithm name")
        mine = (algorithms.c.owner_id == owner.id) & (algorithms.c.name_key == name.lower())
        with self._database.write() as connection:
            row = connection.execute(_select.where(mine)).one_or_none()
            if row is not None:
                return algorithm_of(row)
            algorithm = Algorithm(
                uuid.uuid4().hex, owner.id, owner.name, name, visibility, tagline[:MAX_TAGLINE_CHARS], time.time()
            )
            values = msgspec.structs.asdict(algorithm)
            del values["owner"]
            connection.execute(sa.insert(algorithms).values(**values, name_key=name.lower()))
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

    def set_algorithm(
        self, algorithm: Algorithm, *, visibility: Visibility | None = None, tagline: str | None = None
    ) -> Algorithm:
        wanted = {"visibility": visibility, "tagline": None if tagline is None else tagline[:MAX_TAGLINE_CHARS]}
        changes = {key: value for key, value in wanted.items() if value is not None}
        with self._database.write() as connection:
            mine = algorithms.c.id == algorithm.id
            row = connection.execute(_select.where(mine)).one_or_none()
            if row is None:
                raise no_algorithm(algorithm.owner, algorithm.name)
            if any(getattr(row, key) != value for key, value in changes.items()):
                connection.execute(sa.update(algorithms).where(mine).values(**changes))
                touch(connection)
                row = connection.execute(_select.where(mine)).one()
        return algorithm_of(row)

    def list_algorithms(
        self,
        caller: Account | None,
        *,
        owner: str | None = None,
        query: str = "",
        limit: int = PAGE_SIZE,
        marker: str | None = None,
    ) -> Page:
        limit = max(1, min(limit, MAX_PAGE_SIZE))
        wanted = _select.where(_visible_to(caller)).order_by(accounts.c.name_key, algorithms.c.name_key)
        if owner is not None:
            wanted = wanted.where(accounts.c.name_key == owner.lower())
        for word in query[:_MAX_QUERY_CHARS].lower().split()[:_MAX_QUERY_WORDS]:
            places = (accounts.c.name_key, algorithms.c.name_key, sa.func.lower(algorithms.c.tagline))
            wanted = wanted.where(sa.or_(*(place.contains(word, autoescape=True) for place in places)))
        if marker:
            # The marker is the last entry seen, so entries that come or go in between cost nobody a place.
            after = marker.lower().partition("/")[::2]
            wanted = wanted.where(sa.tuple_(accounts.c.name_key, algorithms.c.name_key) > sa.tuple_(*after))
        with self._database.read() as connection:
            found = [algorithm_of(row) for row in connection.execute(wanted.limit(limit + 1))]
            page = found[:limit]
            newest = _newest(connection, page)
        results = tuple(Listing(algorithm, *newest.get(algorithm.id, (None, None))) for algorithm in page)
        more = f"{page[-1].owner}/{page[-1].name}".lower() if len(found) > limit else None
        return Page(results, more)


def _visible_to(caller: Account | None) -> sa.ColumnElement[bool]:
    """`may_manage`, for a database."""
    public = algorithms.c.visibility == "public"
    if caller is None:
        return public
    if caller.kind == "operator":
        return sa.true()
    theirs = [caller.id, *(organization for organization, _ in caller.memberships)]
    return sa.or_(public, accounts.c.id.in_(theirs), accounts.c.owner_id == caller.id)


def _newest(connection: sa.Connection, page: list[Algorithm]) -> dict[str, tuple[str, str]]:
    """Algorithm id to number and hash of what a call without a version gets: a private version only where nothing is
    public, and then only the owner sees the algorithm at all."""
    columns = (versions.c.algorithm_id, versions.c.semver, versions.c.hash, versions.c.public)
    query = sa.select(*columns).where(
        versions.c.algorithm_id.in_([algorithm.id for algorithm in page]), versions.c.semver.is_not(None)
    )
    newest: dict[str, tuple[bool, numbers.Semver, str]] = {}
    for row in connection.execute(query):
        found = (row.public, numbers.parse_semver(row.semver), row.hash)
        newest[row.algorithm_id] = max(newest.get(row.algorithm_id, found), found)
    return {algorithm: (str(semver), hash) for algorithm, (_, semver, hash) in newest.items()}
