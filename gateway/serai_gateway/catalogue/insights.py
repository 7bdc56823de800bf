"""What algorithms report of their calls, in SQL."""

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from serai_gateway.catalogue.call_errors import prune
from serai_gateway.catalogue.database import Database
from serai_gateway.catalogue.records import Insight, InsightPage, Reported
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE, PAGE_SIZE
from serai_gateway.catalogue.tables import accounts, algorithms, insights, versions

#: How many reports are kept of one algorithm: the newest.
MAX_INSIGHTS = 10_000


class Insights:
    """The part of the catalogue that keeps reports. Caches need not know of it."""

    _database: Database

    def add_insights(self, reports: Sequence[Reported]) -> int:
        with self._database.write() as connection:
            found = {key: _reporter(connection, *key) for key in {(r.owner, r.name, r.hash) for r in reports}}
            rows = []
            for report in reports:
                version = found[report.owner, report.name, report.hash]
                if version is not None:
                    algorithm_id, name = version
                    rows.append({
                        "id": uuid.uuid4().hex, "algorithm_id": algorithm_id, "version": name,
                        "call_id": report.call_id, "metrics": report.metrics, "duration_s": report.duration_s,
                        "created_at": report.created_at,
                    })  # fmt: skip
            if rows:
                connection.execute(sa.insert(insights), rows)
            for algorithm_id in {row["algorithm_id"] for row in rows}:
                prune(connection, insights, algorithm_id, MAX_INSIGHTS)
        return len(rows)

    def insights_of(self, algorithm_id: str, *, limit: int = PAGE_SIZE, marker: str | None = None) -> InsightPage:
        limit = max(1, min(limit, MAX_PAGE_SIZE))
        newest = (insights.c.created_at.desc(), insights.c.id)
        query = sa.select(insights).where(insights.c.algorithm_id == algorithm_id).order_by(*newest)
        if marker:
            time, _, id = marker.partition("-")
            text, _, id = marker.partition("-")
            time, at = float(text), insights.c.created_at
            query = query.where((at < time) | ((at == time) & (insights.c.id > id)))
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit + 1)).all()
        page = tuple(Insight(**row._mapping) for row in rows[:limit])
        return InsightPage(page, f"{page[-1].created_at!r}-{page[-1].id}" if len(rows) > limit else None)


def _reporter(connection: sa.Connection, owner: str, name: str, hash: str) -> tuple[str, str] | None:
    """Id of the algorithm and name of the version, if that was published to have its reports kept."""
    query = (
        sa.select(versions.c.algorithm_id, versions.c.semver, versions.c.hash, versions.c.details)
        .join_from(versions, algorithms)
        .join(accounts, algorithms.c.owner_id == accounts.c.id)
        .where(accounts.c.name_key == owner.lower(), algorithms.c.name_key == name.lower(), versions.c.hash == hash)
    )
    row = connection.execute(query).one_or_none()
    if row is None or row.details.get("settings", {}).get("insights_enabled") is not True:
        return None
    return row.algorithm_id, row.semver or row.hash
