"""members, secrets, errors, insights; what the management API says of algorithms and versions"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("profile", sa.JSON, nullable=False, server_default="{}"))
    op.create_index("ix_accounts_owner_id", "accounts", ["owner_id"])
    op.create_table(
        "retired_names",
        sa.Column("name_key", sa.Text, primary_key=True),
        sa.Column("retired_at", sa.Double, nullable=False),
    )
    op.add_column("algorithms", sa.Column("search_text", sa.Text, nullable=False, server_default=""))
    _write_search_texts()
    op.create_index("ix_algorithms_search_text", "algorithms", ["search_text"])
    op.add_column("algorithms", sa.Column("details", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("algorithms", sa.Column("settings", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("algorithms", sa.Column("routing", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("algorithms", sa.Column("secrets_at", sa.Double))
    op.add_column("versions", sa.Column("commit", sa.Text))
    op.add_column("versions", sa.Column("details", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("versions", sa.Column("min_replicas", sa.Integer, nullable=False, server_default="0"))
    versions = sa.table("versions", sa.column("manifest", sa.JSON), sa.column("min_replicas", sa.Integer))
    asked = versions.c.manifest["min_replicas"].as_integer()
    op.execute(sa.update(versions).where(asked > 0).values(min_replicas=asked))
    op.create_index("ix_versions_min_replicas", "versions", ["min_replicas"])
    op.add_column("versions", sa.Column("deprecation", sa.Text))
    op.create_table(
        "members",
        sa.Column("organization_id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["accounts.id"], name="fk_members_organization_id_accounts"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_members_account_id_accounts"),
        sa.CheckConstraint("role IN ('owner', 'member')", name="role"),
    )
    op.create_index("ix_members_account_id", "members", ["account_id"])
    op.create_table(
        "secrets",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("algorithm_id", sa.Text, nullable=False),
        sa.Column("short_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("modified_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["algorithm_id"], ["algorithms.id"], name="fk_secrets_algorithm_id_algorithms"),
        sa.UniqueConstraint("algorithm_id", "key", name="uq_secrets_algorithm_id_key"),
        sa.UniqueConstraint("algorithm_id", "short_name", name="uq_secrets_algorithm_id_short_name"),
    )
    op.create_table(
        "call_errors",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("algorithm_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("stacktrace", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["algorithm_id"], ["algorithms.id"], name="fk_call_errors_algorithm_id_algorithms"),
    )
    op.create_index("ix_call_errors_algorithm_id_created_at", "call_errors", ["algorithm_id", "created_at"])
    op.create_table(
        "insights",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("algorithm_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["algorithm_id"], ["algorithms.id"], name="fk_insights_algorithm_id_algorithms"),
    )
    op.create_index("ix_insights_algorithm_id_created_at", "insights", ["algorithm_id", "created_at"])


def _write_search_texts() -> None:
    """As the catalogue does it. Not in SQL: SQLite's lower() knows ASCII alone."""
    connection = op.get_bind()
    accounts = sa.table("accounts", sa.column("id"), sa.column("name_key"))
    algorithms = sa.table("algorithms", *map(sa.column, ("id", "owner_id", "name_key", "tagline", "search_text")))
    of_all = sa.select(algorithms.c.id, accounts.c.name_key.label("owner"), algorithms.c.name_key, algorithms.c.tagline)
    rows = connection.execute(of_all.join_from(algorithms, accounts, accounts.c.id == algorithms.c.owner_id)).all()
    for id, owner, name, tagline in rows:
        text = f"{owner} {name} {tagline.lower()} "
        connection.execute(sa.update(algorithms).where(algorithms.c.id == id).values(search_text=text))
