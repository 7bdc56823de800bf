"""Versions in SQL: what a call runs, and what there is."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway import versions as numbers
from serai_gateway.catalogue.algorithms import find_with_owner
from serai_gateway.catalogue.database import Database
from serai_gateway.catalogue.errors import NotFound
from serai_gateway.catalogue.records import Account, Algorithm, ContentInUse, Model, Version, VersionPage
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE, may_manage
from serai_gateway.catalogue.tables import accounts, algorithms, versions
from serai_gateway.traffic import Routing, most

select_version = (
    sa.select(versions, algorithms.c.name, algorithms.c.owner_id, accounts.c.name.label("owner"))
    .join_from(versions, algorithms)
    .join(accounts, algorithms.c.owner_id == accounts.c.id)
)
_facts = sa.select(
    versions.c.id,
    versions.c.hash,
    versions.c.semver,
    versions.c.public,
    versions.c.created_at,
    versions.c.deprecation,
)


def version_of(row: Any) -> Version:
    return Version(
        id=row.id,
        algorithm_id=row.algorithm_id,
        owner_id=row.owner_id,
        owner=row.owner,
        name=row.name,
        hash=row.hash,
        semver=row.semver,
        public=row.public,
        kind=row.kind,
        manifest=row.manifest,
        code_sha=row.code_sha,
        environment=row.environment,
        models=msgspec.convert(row.models, tuple[Model, ...]),
        created_at=row.created_at,
        published_at=row.published_at,
        commit=row.commit,
        details=row.details,
        deprecation=row.deprecation,
    )


def no_version(version: Version) -> NotFound:
    return NotFound(f"no version {version.key}")


class Finding:
    """The part of the catalogue that knows what a call runs."""

    _database: Database

    def find_version(self, owner: str, name: str, wanted: str | None, caller: Account | None) -> Version:
        return most(self.find_versions(owner, name, wanted, caller))

    def find_versions(
        self, owner: str, name: str, wanted: str | None, caller: Account | None
    ) -> tuple[tuple[Version, int], ...]:
        with self._database.read() as connection:
            algorithm, owning = find_with_owner(connection, owner, name, caller)
            facts: Sequence[Any] = connection.execute(_facts.where(versions.c.algorithm_id == algorithm.id)).all()
            try:
                parts = _divide(numbers.parse(wanted), facts, algorithm.routing, is_owner=may_manage(caller, owning))
            except numbers.NoSuchVersion as error:
                raise NotFound(f"{owner[:70]}/{name[:70]} has {error}") from None
            rows = connection.execute(select_version.where(versions.c.id.in_(parts)))
            found = {row.id: version_of(row) for row in rows}
        return tuple((found[id], percent) for id, percent in parts.items())

    def find_build_version(self, algorithm: Algorithm, hash: str) -> Version:
        named = (versions.c.hash == hash) | (versions.c.commit == hash)
        query = select_version.where(versions.c.algorithm_id == algorithm.id, named)
        newest = (versions.c.public.desc(), versions.c.published_at.desc().nulls_last(), versions.c.created_at.desc())
        with self._database.read() as connection:
            row = connection.execute(query.order_by(*newest).limit(1)).one_or_none()
        if row is None:
            raise NotFound(f"{algorithm.owner}/{algorithm.name} has no build {hash[:70]}")
        return version_of(row)

    def versions_of(self, algorithm: Algorithm, *, public_only: bool = False) -> tuple[Version, ...]:
        query = select_version.where(versions.c.algorithm_id == algorithm.id)
        if public_only:
            query = query.where(versions.c.public)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(versions.c.created_at.desc(), versions.c.id))
            return tuple(version_of(row) for row in rows)

    def list_versions(
        self,
        algorithm: Algorithm,
        *,
        public_only: bool = False,
        published: bool | None = None,
        limit: int = PAGE_SIZE,
        marker: str | None = None,
    ) -> VersionPage:
        limit = max(1, min(limit, MAX_PAGE_SIZE))
        query = select_version.where(versions.c.algorithm_id == algorithm.id)
        if public_only:
            query = query.where(versions.c.public)
        if published is not None:
            query = query.where(versions.c.semver.is_not(None) if published else versions.c.semver.is_(None))
        with self._database.read() as connection:
            if marker:
                listed = _facts.where(versions.c.id == marker, versions.c.algorithm_id == algorithm.id)
                seen = connection.execute(listed).one_or_none()
                if seen is None or (public_only and not seen.public):
                    raise NotFound("the marker is none of this list's")
                after = sa.tuple_(versions.c.created_at, versions.c.id)
                query = query.where(after < sa.tuple_(seen.created_at, seen.id))
            order = (versions.c.created_at.desc(), versions.c.id.desc())
            found = [version_of(row) for row in connection.execute(query.order_by(*order).limit(limit + 1))]
        return VersionPage(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

    def content_in_use(self) -> ContentInUse:
        columns = (versions.c.code_sha, versions.c.environment, versions.c.models)
        code, environments, files = set[str](), set[str](), set[str]()
        with self._database.read() as connection:
            for row in connection.execute(sa.select(*columns)):
                code.add(row.code_sha)
                environments.add(row.environment or "")
                files.update(model["sha256"] for model in row.models)
        return ContentInUse(frozenset(code), frozenset(environments), frozenset(files))

    def kept_versions(self) -> tuple[Version, ...]:
        is_kept = versions.c.min_replicas > 0
        with self._database.read() as connection:
            some = sa.select(versions.c.algorithm_id).where(is_kept, versions.c.semver.is_not(None))
            routings: dict[str, Routing] = {}
            facts: dict[str, list[Any]] = {}
            for row in connection.execute(
                sa.select(versions.c.algorithm_id, algorithms.c.routing, *_facts.selected_columns)
                .join_from(versions, algorithms)
                .where(versions.c.algorithm_id.in_(some))
            ):
                facts.setdefault(row.algorithm_id, []).append(row)
                routings[row.algorithm_id] = tuple((semver, percent) for semver, percent in row.routing)
            chosen: list[str] = []
            for algorithm_id, of_one in facts.items():
                chosen += _divide(numbers.Unspecified(), of_one, routings[algorithm_id], is_owner=True)
            rows = connection.execute(select_version.where(versions.c.id.in_(chosen), is_kept).order_by(versions.c.id))
            return tuple(version_of(row) for row in rows)


def _divide(wanted: numbers.Wanted, facts: Sequence[Any], routing: Routing, *, is_owner: bool) -> dict[str, int]:
    """Ids of the versions that calls get, with the part of each in percent. Raises versions.NoSuchVersion."""
    if routing and numbers.follows_routing(wanted):
        ids = {fact.semver: fact.id for fact in facts if fact.public}
        return {ids[semver]: percent for semver, percent in routing}
    return {numbers.resolve(wanted, facts, is_owner=is_owner).id: 100}
