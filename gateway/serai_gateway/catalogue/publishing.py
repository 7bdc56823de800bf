"""Versions, in SQL: what a build becomes, and how one of them is found."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway import versions as numbers
from serai_gateway.catalogue.algorithms import find_with_owner
from serai_gateway.catalogue.base import may_manage
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import AlreadyPublished, NotFound
from serai_gateway.catalogue.records import Account, Algorithm, Model, NewVersion, Version
from serai_gateway.catalogue.tables import accounts, algorithms, versions
from serai_gateway.versions import Increment

_select = (
    sa.select(versions, algorithms.c.name, algorithms.c.owner_id, accounts.c.name.label("owner"))
    .join_from(versions, algorithms)
    .join(accounts, algorithms.c.owner_id == accounts.c.id)
)
_facts = sa.select(versions.c.id, versions.c.hash, versions.c.semver, versions.c.public)


def _version_of(row: Any) -> Version:
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


class Versions:
    """The part of the catalogue that knows what a call runs."""

    _database: Database

    def find_version(self, owner: str, name: str, wanted: str | None, caller: Account | None) -> Version:
        with self._database.read() as connection:
            algorithm, owning = find_with_owner(connection, owner, name, caller)
            facts: Sequence[Any] = connection.execute(_facts.where(versions.c.algorithm_id == algorithm.id)).all()
            try:
                chosen = numbers.resolve(numbers.parse(wanted), facts, is_owner=may_manage(caller, owning))
            except numbers.NoSuchVersion as error:
                raise NotFound(f"{owner[:70]}/{name[:70]} has {error}") from None
            return _version_of(connection.execute(_select.where(versions.c.id == chosen.id)).one())

    def versions_of(self, algorithm: Algorithm, *, public_only: bool = False) -> tuple[Version, ...]:
        query = _select.where(versions.c.algorithm_id == algorithm.id)
        if public_only:
            query = query.where(versions.c.public)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(versions.c.created_at.desc(), versions.c.id))
            return tuple(_version_of(row) for row in rows)

    def kept_versions(self) -> tuple[Version, ...]:
        is_kept = versions.c.manifest["min_replicas"].as_integer() > 0
        with self._database.read() as connection:
            some = sa.select(versions.c.algorithm_id).where(is_kept, versions.c.semver.is_not(None))
            facts: dict[str, list[Any]] = {}
            for row in connection.execute(
                sa.select(versions.c.algorithm_id, *_facts.selected_columns).where(versions.c.algorithm_id.in_(some))
            ):
                facts.setdefault(row.algorithm_id, []).append(row)
            chosen = [numbers.resolve(numbers.parse(None), of_one, is_owner=True).id for of_one in facts.values()]
            rows = connection.execute(_select.where(versions.c.id.in_(chosen), is_kept).order_by(versions.c.id))
            return tuple(_version_of(row) for row in rows)

    def add_version(self, algorithm: Algorithm, new: NewVersion) -> Version:
        same = (versions.c.algorithm_id == algorithm.id) & (versions.c.hash == new.hash)
        with self._database.write() as connection:
            row = connection.execute(_select.where(same)).one_or_none()
            if row is None:
                connection.execute(
                    sa.insert(versions).values(
                        id=uuid.uuid4().hex,
                        algorithm_id=algorithm.id,
                        public=False,
                        created_at=time.time(),
                        **msgspec.to_builtins(new),
                    )
                )
                touch(connection)
                row = connection.execute(_select.where(same)).one()
        return _version_of(row)

    def publish_version(
        self,
        version: Version,
        number: Increment | str = "revision",
        *,
        public: bool = True,
        first: str | None = None,
        request_key: str | None = None,
    ) -> Version:
        this = versions.c.id == version.id
        with self._database.write() as connection:
            row = connection.execute(_select.where(this)).one_or_none()
            if row is None:
                raise NotFound(f"no version {version.key}")
            if row.semver is not None:
                if request_key is not None and row.request_key == request_key:
                    return _version_of(row)
                raise AlreadyPublished(f"{version.hash} is {row.semver} already, and versions never change")
            given = connection.execute(
                sa.select(versions.c.semver).where(
                    versions.c.algorithm_id == version.algorithm_id, versions.c.semver.is_not(None)
                )
            ).scalars()
            semver = _choose_number(number, set(given), first)
            connection.execute(
                sa.update(versions)
                .where(this)
                .values(semver=semver, public=public, published_at=time.time(), request_key=request_key)
            )
            if public:
                connection.execute(
                    sa.update(algorithms).where(algorithms.c.id == version.algorithm_id).values(visibility="public")
                )
            touch(connection)
            return _version_of(connection.execute(_select.where(this)).one())


def _choose_number(number: str, taken: set[str], first: str | None) -> str:
    match number:
        case "major" | "minor" | "revision" | "patch":
            if not taken and first:
                return str(numbers.parse_semver(first))
            return numbers.next_version(numbers.newest(taken), number)
        case _:
            semver = str(numbers.parse_semver(number))
            if semver in taken:
                raise AlreadyPublished(f"{semver} is published already, and versions never change; take another number")
            return semver
