"""Builds and their logs, in SQL."""

import time
import uuid
from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway.catalogue.database import Database
from serai_gateway.catalogue.errors import NotFound
from serai_gateway.catalogue.records import Algorithm, Build, BuildStatus
from serai_gateway.catalogue.rules import MAX_LOG_CHARS, MAX_PAGE_SIZE, PAGE_SIZE
from serai_gateway.catalogue.tables import builds


def _build_of(row: Any, log: str | None = None) -> Build:
    return Build(
        row.id,
        row.algorithm_id,
        row.hash,
        row.status,
        row.log if log is None else log,
        row.builder,
        row.started_at,
        row.finished_at,
    )


class Builds:
    """The part of the catalogue that remembers attempts. Caches keep no builds, so none of this wakes them."""

    _database: Database

    def start_build(self, algorithm: Algorithm, hash: str, builder: str, build_id: str | None = None) -> Build:
        build = Build(build_id or uuid.uuid4().hex, algorithm.id, hash, "running", "", builder, time.time(), None)
        with self._database.write() as connection:
            row = connection.execute(sa.select(builds).where(builds.c.id == build.id)).one_or_none()
            if row is not None:
                return _build_of(row)
            connection.execute(sa.insert(builds).values(**msgspec.structs.asdict(build)))
        return build

    def finish_build(self, build_id: str, status: BuildStatus, log: str) -> Build:
        with self._database.write() as connection:
            connection.execute(
                sa.update(builds)
                .where(builds.c.id == build_id, builds.c.status == "running")
                .values(status=status, log=log[:MAX_LOG_CHARS], finished_at=time.time())
            )
            return _found(connection, build_id)

    def find_build(self, build_id: str) -> Build:
        with self._database.read() as connection:
            return _found(connection, build_id)

    def builds_of(self, algorithm: Algorithm, limit: int = PAGE_SIZE, marker: str | None = None) -> tuple[Build, ...]:
        columns = [column for column in builds.c if column.name != "log"]
        query = sa.select(*columns).where(builds.c.algorithm_id == algorithm.id)
        with self._database.read() as connection:
            if marker is not None:
                last = _found(connection, marker)
                if last.algorithm_id != algorithm.id:
                    raise NotFound("the marker is none of this list's")
                same = sa.and_(builds.c.started_at == last.started_at, builds.c.id > last.id)
                query = query.where(sa.or_(builds.c.started_at < last.started_at, same))
            query = query.order_by(builds.c.started_at.desc(), builds.c.id).limit(max(1, min(limit, MAX_PAGE_SIZE)))
            return tuple(_build_of(row, log="") for row in connection.execute(query))

    def builds_of_commits(
        self, algorithm: Algorithm, commits: Collection[str], *, with_logs: bool = False
    ) -> dict[str, Build]:
        columns = [column for column in builds.c if with_logs or column.name != "log"]
        query = sa.select(*columns).where(builds.c.algorithm_id == algorithm.id, builds.c.hash.in_(commits))
        order = (builds.c.status == "succeeded", builds.c.started_at)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(*order))
            return {row.hash: _build_of(row, log=None if with_logs else "") for row in rows}

    def running_builds(self) -> tuple[Build, ...]:
        with self._database.read() as connection:
            return tuple(
                _build_of(row) for row in connection.execute(sa.select(builds).where(builds.c.status == "running"))
            )


def _found(connection: sa.Connection, build_id: str) -> Build:
    row = connection.execute(sa.select(builds).where(builds.c.id == build_id)).one_or_none()
    if row is None:
        raise NotFound(f"no build {build_id[:70]}")
    return _build_of(row)
