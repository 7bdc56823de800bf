"""Lists of algorithms and searches, in SQL.

`algorithms.search_text` is "owner name tagline label" in lower case. Its order is that of owner and name, because a
space comes before everything that a name may hold; so one index gives pages in order, finds where one begins, holds
what belongs to an owner side by side, and is all that a search reads of what it does not find.
"""

from typing import Any

import sqlalchemy as sa

from serai_gateway import versions as numbers
from serai_gateway.catalogue.algorithms import algorithm_of, select_algorithm
from serai_gateway.catalogue.database import Database
from serai_gateway.catalogue.records import Account, Algorithm, Listing, Page
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE
from serai_gateway.catalogue.tables import accounts, algorithms, versions
from serai_gateway.traffic import most

#: Longest search that is looked at, in characters and words: each word costs a pass over what there is.
_MAX_QUERY_CHARS = 200
_MAX_QUERY_WORDS = 8
#: Comes right after a space, and in no name: the end of everything that begins with a name and a space.
_AFTER_SPACE = "!"


class Lists:
    """The part of the catalogue that shows what there is."""

    _database: Database

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
        text = algorithms.c.search_text
        wanted = select_algorithm.where(_visible_to(caller)).order_by(text)
        if owner is not None:
            wanted = wanted.where(text >= f"{owner.lower()} ", text < f"{owner.lower()}{_AFTER_SPACE}")
        for word in query[:_MAX_QUERY_CHARS].lower().replace("/", " ").split()[:_MAX_QUERY_WORDS]:
            wanted = wanted.where(text.contains(word, autoescape=True))
        if marker:
            # The marker is the last entry seen, so entries that come or go in between cost nobody a place.
            wanted = wanted.where(text >= marker.lower().replace("/", " ", 1) + _AFTER_SPACE)
        with self._database.read() as connection:
            found = [algorithm_of(row) for row in connection.execute(wanted.limit(limit + 1)).all()]
            page = found[:limit]
            newest = _newest(connection, page)
            newest |= _built(connection, [algorithm for algorithm in page if algorithm.id not in newest])
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
    return sa.or_(public, algorithms.c.owner_id.in_(theirs), accounts.c.owner_id == caller.id)


def _built(connection: sa.Connection, unpublished: list[Algorithm]) -> dict[str, tuple[None, str]]:
    """Algorithm id to a hash, of those that were built: few pages have any, and then not many."""
    if not unpublished:
        return {}
    query = (
        sa.select(versions.c.algorithm_id, sa.func.max(versions.c.hash))
        .where(versions.c.algorithm_id.in_([algorithm.id for algorithm in unpublished]))
        .group_by(versions.c.algorithm_id)
    )
    return {algorithm_id: (None, hash) for algorithm_id, hash in connection.execute(query)}


def _newest(connection: sa.Connection, page: list[Algorithm]) -> dict[str, tuple[str | None, str]]:
    """Algorithm id to number and hash of what a call without a version gets: a private version only where nothing is
    public, and then only the owner sees the algorithm at all."""
    columns = (versions.c.algorithm_id, versions.c.semver, versions.c.hash, versions.c.public, versions.c.deprecation)
    query = sa.select(*columns).where(
        versions.c.algorithm_id.in_([algorithm.id for algorithm in page]), versions.c.semver.is_not(None)
    )
    routed = {algorithm.id: most(algorithm.routing) for algorithm in page if algorithm.routing}
    newest: dict[str, tuple[Any, str, str]] = {}
    for algorithm_id, semver, hash, public, deprecation in connection.execute(query).all():
        rank = (semver == routed.get(algorithm_id), public, deprecation is None, numbers.stored_semver(semver))
        if algorithm_id not in newest or rank > newest[algorithm_id][0]:
            newest[algorithm_id] = (rank, semver, hash)
    return {algorithm: (semver, hash) for algorithm, (_, semver, hash) in newest.items()}
