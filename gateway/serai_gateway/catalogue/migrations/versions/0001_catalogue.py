"""accounts, keys, algorithms, versions, builds"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name="fk_accounts_owner_id_accounts"),
        sa.UniqueConstraint("name_key", name="uq_accounts_name_key"),
        sa.CheckConstraint("kind IN ('operator', 'user', 'organization')", name="kind"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("mask", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("permissions", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id_accounts"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_table(
        "algorithms",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", sa.Text, nullable=False),
        sa.Column("visibility", sa.Text, nullable=False),
        sa.Column("tagline", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name="fk_algorithms_owner_id_accounts"),
        sa.UniqueConstraint("owner_id", "name_key", name="uq_algorithms_owner_id_name_key"),
        sa.CheckConstraint("visibility IN ('public', 'private')", name="visibility"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("algorithm_id", sa.Text, nullable=False),
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
        sa.Column("request_key", sa.Text),
        sa.ForeignKeyConstraint(["algorithm_id"], ["algorithms.id"], name="fk_versions_algorithm_id_algorithms"),
        sa.UniqueConstraint("algorithm_id", "hash", name="uq_versions_algorithm_id_hash"),
        sa.UniqueConstraint("algorithm_id", "semver", name="uq_versions_algorithm_id_semver"),
        sa.CheckConstraint("semver IS NOT NULL OR NOT public", name="public_has_number"),
    )
    op.create_table(
        "builds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("algorithm_id", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("builder", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.ForeignKeyConstraint(["algorithm_id"], ["algorithms.id"], name="fk_builds_algorithm_id_algorithms"),
        sa.CheckConstraint("status IN ('running', 'succeeded', 'failed', 'interrupted')", name="status"),
    )
    op.create_index("ix_builds_algorithm_id_started_at", "builds", ["algorithm_id", "started_at"])
    op.create_index("ix_builds_status", "builds", ["status"])
    generation = op.create_table(
        "generation",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.execute(sa.insert(generation).values(id=1, value=1))
