"""The tables, for SQLAlchemy Core. `migrations/` brings a database to this shape; a test holds the two together.

Names are kept as written beside a lower-case `_key` column that carries the uniqueness: the same on every database.
Times are seconds since 1970, UTC.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False, unique=True),
    sa.Column(
        "kind", sa.Text, sa.CheckConstraint("kind IN ('operator', 'user', 'organization')", name="kind"), nullable=False
    ),
    sa.Column("owner_id", sa.Text, sa.ForeignKey("accounts.id"), index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("profile", sa.JSON, nullable=False, server_default="{}"),  # what people say of themselves
)

#: Names of deleted accounts, which nobody gets: calls and repositories that still say them would reach somebody else.
retired_names = sa.Table(
    "retired_names",
    metadata,
    sa.Column("name_key", sa.Text, primary_key=True),
    sa.Column("retired_at", sa.Double, nullable=False),
)

#: Who belongs to an organization, beside the account that manages it.
members = sa.Table(
    "members",
    metadata,
    sa.Column("organization_id", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True, index=True),
    sa.Column("role", sa.Text, sa.CheckConstraint("role IN ('owner', 'member')", name="role"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),  # SHA-256 of the text, which is kept nowhere
    sa.Column("mask", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("permissions", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("revoked_at", sa.Double),
)

algorithms = sa.Table(
    "algorithms",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False),
    sa.Column(
        "visibility",
        sa.Text,
        sa.CheckConstraint("visibility IN ('public', 'private')", name="visibility"),
        nullable=False,
    ),
    sa.Column("tagline", sa.Text, nullable=False),
    sa.Column("search_text", sa.Text, nullable=False, server_default="", index=True),  # see listing.py
    sa.Column("details", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("settings", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("routing", sa.JSON, nullable=False, server_default="[]"),  # [[semver, percent], …]; empty: the newest
    sa.Column("secrets_at", sa.Double),  # when its secrets last changed; NULL: it never had any
    sa.Column("created_at", sa.Double, nullable=False),
    sa.UniqueConstraint("owner_id", "name_key"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("algorithm_id", sa.Text, sa.ForeignKey("algorithms.id"), nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("semver", sa.Text),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("code_sha", sa.Text, nullable=False),
    sa.Column("environment", sa.Text),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("published_at", sa.Double),
    sa.Column("request_key", sa.Text),  # of the request that published it
    sa.Column("commit", sa.Text),  # the commit that it was built from; the hash itself but for what was published again
    sa.Column("details", sa.JSON, nullable=False, server_default="{}"),  # settings, notes and samples, as published
    # Of the manifest: what stays warm is asked after every change, and must not read all manifests for it.
    sa.Column("min_replicas", sa.Integer, nullable=False, server_default="0", index=True),
    sa.Column("deprecation", sa.Text),  # what callers are told; NULL: it is not deprecated
    sa.UniqueConstraint("algorithm_id", "hash"),
    sa.UniqueConstraint("algorithm_id", "semver"),
    sa.CheckConstraint("semver IS NOT NULL OR NOT public", name="public_has_number"),
)

builds = sa.Table(
    "builds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("algorithm_id", sa.Text, sa.ForeignKey("algorithms.id"), nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column(
        "status",
        sa.Text,
        sa.CheckConstraint("status IN ('running', 'succeeded', 'failed', 'interrupted')", name="status"),
        nullable=False,
    ),
    sa.Column("log", sa.Text, nullable=False),
    sa.Column("builder", sa.Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Index("ix_builds_algorithm_id_started_at", "algorithm_id", "started_at"),
    sa.Index("ix_builds_status", "status"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("algorithm_id", sa.Text, sa.ForeignKey("algorithms.id"), nullable=False),
    sa.Column("short_name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),  # the variable that the algorithm sees
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # the value, encrypted
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("modified_at", sa.Double, nullable=False),
    sa.UniqueConstraint("algorithm_id", "key"),
    sa.UniqueConstraint("algorithm_id", "short_name"),
)

call_errors = sa.Table(
    "call_errors",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("algorithm_id", sa.Text, sa.ForeignKey("algorithms.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),  # number or hash, as it was called
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("error_type", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("stacktrace", sa.Text, nullable=False),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("ix_call_errors_algorithm_id_created_at", "algorithm_id", "created_at"),
)

insights = sa.Table(
    "insights",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("algorithm_id", sa.Text, sa.ForeignKey("algorithms.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("duration_s", sa.Double, nullable=False),  # for how long the call had run
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("ix_insights_algorithm_id_created_at", "algorithm_id", "created_at"),
)

#: One row: counts the changes that a cache of accounts, keys, algorithms or versions must see.
generation = sa.Table(
    "generation",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
