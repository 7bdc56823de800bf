"""What a build becomes, in SQL: a version, which gets a number once, and may be deprecated."""

import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from serai_gateway import releases
from serai_gateway import versions as numbers
from serai_gateway.catalogue.algorithms import change_algorithm, existing
from serai_gateway.catalogue.database import Database, touch
from serai_gateway.catalogue.errors import AlreadyPublished, BreaksPromise, NotFound
from serai_gateway.catalogue.finding import no_version, select_version, version_of
from serai_gateway.catalogue.records import Algorithm, NewVersion, Version
from serai_gateway.catalogue.tables import algorithms, builds, versions
from serai_gateway.releases import Release
from serai_gateway.versions import Increment


class Publishing:
    """The part of the catalogue that takes versions in."""

    _database: Database

    def add_version(self, algorithm: Algorithm, new: NewVersion) -> Version:
        with self._database.write() as connection:
            return _add(connection, algorithm.id, new)

    def repeat_version(self, version: Version) -> Version:
        with self._database.write() as connection:
            return _repeat(connection, version)

    def publish_version(
        self,
        version: Version,
        number: Increment | str = "next",
        *,
        public: bool = True,
        first: str | None = None,
        request_key: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Version:
        with self._database.write() as connection:
            row = connection.execute(select_version.where(versions.c.id == version.id)).one_or_none()
            if row is None:
                raise no_version(version)
            if row.semver is not None:
                if request_key is not None and row.request_key == request_key:
                    return version_of(row)
                raise AlreadyPublished(f"{version.hash} is {row.semver} already, and versions never change")
            return _publish(connection, version_of(row), number, public, first, request_key, dict(details or {}))

    def publish_latest(
        self,
        algorithm: Algorithm,
        number: Increment | str,
        *,
        public: bool,
        details: Mapping[str, Any] | None = None,
        tagline: str | None = None,
        texts: Mapping[str, Any] | None = None,
    ) -> Version:
        succeeded = (builds.c.algorithm_id == algorithm.id) & (builds.c.status == "succeeded")
        with self._database.write() as connection:
            existing(connection, algorithm)
            build = connection.execute(
                sa.select(builds.c.id, builds.c.hash, builds.c.started_at)
                .where(succeeded)
                .order_by(builds.c.finished_at.desc(), builds.c.started_at.desc(), builds.c.id)
                .limit(1)
            ).one_or_none()
            if build is None:
                raise NotFound(f"{algorithm.owner}/{algorithm.name} has no build that succeeded; compile it first")
            made = (versions.c.hash == build.hash) | (versions.c.commit == build.hash)
            rows = connection.execute(select_version.where(versions.c.algorithm_id == algorithm.id, made))
            found = [version_of(row) for row in rows]
            published = next((version for version in found if _is_of(version, build)), None)
            if published is not None:
                raise AlreadyPublished(
                    f"{build.hash} is {published.semver} already, and nothing was built since; compile it again"
                )
            version = next(version for version in found if version.hash == build.hash)
            if version.semver is not None:
                version = _repeat(connection, version)
            details = {**(details or {}), "build": build.id}
            settings = details.get("settings", {})
            version = _publish(connection, version, number, public, None, None, details)
            change_algorithm(connection, algorithm, None, tagline, texts, settings)
            return version

    def deprecate_version(self, version: Version, message: str | None) -> Version:
        this = versions.c.id == version.id
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(versions).where(this, versions.c.semver.is_not(None)).values(deprecation=message)
            )
            if not changed.rowcount:
                raise no_version(version)
            touch(connection)
            return version_of(connection.execute(select_version.where(this)).one())


def _add(connection: sa.Connection, algorithm_id: str, new: NewVersion) -> Version:
    same = (versions.c.algorithm_id == algorithm_id) & (versions.c.hash == new.hash)
    row = connection.execute(select_version.where(same)).one_or_none()
    if row is None:
        connection.execute(
            sa.insert(versions).values(
                id=uuid.uuid4().hex,
                algorithm_id=algorithm_id,
                public=False,
                created_at=time.time(),
                min_replicas=int(new.manifest.get("min_replicas", 0)),
                **msgspec.to_builtins(new),
            )
        )
        touch(connection)
        row = connection.execute(select_version.where(same)).one()
    return version_of(row)


def _repeat(connection: sa.Connection, version: Version) -> Version:
    """The same code once more, to be published after what is newest now: versions never change, so going back, or from
    private to public, makes a new one. Its hash says where it comes from, as a commit's does."""
    published = _published(connection, version.algorithm_id)
    after = published[max(published)] if published else version.hash
    return _add(
        connection,
        version.algorithm_id,
        NewVersion(
            hash=hashlib.sha256(f"{version.hash} after {after}".encode()).hexdigest()[:40],
            kind=version.kind,
            manifest=version.manifest,
            code_sha=version.code_sha,
            environment=version.environment,
            models=version.models,
            commit=version.git_hash,
        ),
    )


def _publish(
    connection: sa.Connection,
    version: Version,
    number: str,
    public: bool,
    first: str | None,
    request_key: str | None,
    details: dict[str, Any],
) -> Version:
    of_this = algorithms.c.id == version.algorithm_id
    settings = connection.execute(sa.select(algorithms.c.settings).where(of_this)).scalar_one()
    _check_permissions(version, details.get("settings", {}))
    details["settings"] = settings | details.get("settings", {})
    semver = _number_of(connection, version, number, public, first, details)
    this = versions.c.id == version.id
    connection.execute(
        sa.update(versions)
        .where(this)
        .values(semver=str(semver), public=public, published_at=time.time(), request_key=request_key, details=details)
    )
    if public:
        connection.execute(sa.update(algorithms).where(of_this).values(visibility="public"))
    touch(connection)
    return version_of(connection.execute(select_version.where(this)).one())


def _number_of(
    connection: sa.Connection,
    version: Version,
    number: str,
    public: bool,
    first: str | None,
    details: dict[str, Any],
) -> numbers.Semver:
    """Raises AlreadyPublished, BreaksPromise, versions.InvalidVersion."""
    published = _published(connection, version.algorithm_id)
    now = _release(public, version.manifest, details)
    if number in ("next", "patch", *releases.INCREMENTS):
        if not published and first:
            return numbers.parse_semver(first)
        newest = max(published, default=None)
        if number == "next":
            number = releases.smallest_step(_released(connection, version, newest), now) if newest else "revision"
        semver = numbers.parse_semver(numbers.next_version(str(newest) if newest else None, number))  # pyright: ignore[reportArgumentType]
    else:
        semver = numbers.parse_semver(number)
        if semver in published:
            raise AlreadyPublished(f"{semver} is published already, and versions never change; take another number")
    before = max((one for one in published if one < semver), default=None)
    if before is not None:
        try:
            releases.check_step(releases.step_between(before, semver), _released(connection, version, before), now)
        except releases.NotInThisStep as error:
            raise BreaksPromise(f"after {before}, {error}") from None
    return semver


def _published(connection: sa.Connection, algorithm_id: str) -> dict[numbers.Semver, str]:
    """Number to hash."""
    query = sa.select(versions.c.semver, versions.c.hash).where(
        versions.c.algorithm_id == algorithm_id, versions.c.semver.is_not(None)
    )
    return {numbers.stored_semver(semver): hash for semver, hash in connection.execute(query)}


def _released(connection: sa.Connection, beside: Version, semver: numbers.Semver) -> Release:
    columns = (versions.c.public, versions.c.manifest, versions.c.details)
    query = sa.select(*columns).where(versions.c.algorithm_id == beside.algorithm_id, versions.c.semver == str(semver))
    return _release(*connection.execute(query).one())


def _release(public: bool, manifest: dict[str, Any], details: dict[str, Any]) -> Release:
    permissions = manifest.get("permissions") or {}
    settings = details.get("settings", {})
    return Release(
        public,
        frozenset(name for name in ("network", "calls") if permissions.get(name)),
        settings.get("source_visibility", "closed"),
        settings.get("royalty_microcredits", 0),
    )


def _check_permissions(version: Version, asked: dict[str, Any]) -> None:
    """What it may do was fixed when it was built. Raises BreaksPromise when less is asked for now."""
    permissions = version.manifest.get("permissions")
    if permissions is None:
        return
    built = {
        "network_access": "full" if permissions.get("network") else "isolated",
        "pipeline_enabled": bool(permissions.get("calls")),
    }
    for key, value in built.items():
        # More than it was built with may be asked for, and is not given; to ask for less must not pass unnoticed.
        if value in ("full", True) and asked.get(key, value) != value:
            raise BreaksPromise(
                f"{key} was {msgspec.json.encode(value).decode()} when this was built; change it in the settings, or "
                "in the [permissions] of algorithm.toml, push another commit, and publish that"
            )


def _is_of(version: Version, build: Any) -> bool:
    """Whether this is what was published of the build. One that was published while it was built does not say so."""
    if version.semver is None:
        return False
    if "build" in version.details:
        return version.details["build"] == build.id
    return version.published_at is not None and version.published_at >= build.started_at
