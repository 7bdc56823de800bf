"""Bring a database to the newest schema. When it is there already, nothing heavy is imported and nothing written."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from serai_gateway.catalogue import database
from serai_gateway.catalogue.errors import UnknownSchema

_FOLDER = Path(__file__).parent / "migrations"


def revisions() -> list[str]:
    """The ids of all migrations, oldest first. A migration's file is called `<id>_<what>.py`."""
    return sorted(path.name.split("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def migrate(url: str | sa.URL) -> bool:
    """Whether anything was to do. Safe to run in several processes at once, and to be killed.

    Raises UnknownSchema when a newer Serai has been here: going back would lose what it wrote.
    """
    engine = database.create_engine(url)
    try:
        with engine.connect() as connection:
            if _is_newest(connection):
                return False
        # One transaction that holds the write lock, so of several processes one migrates and the others find it done.
        with engine.execution_options(serai_write=True).begin() as connection:
            if _is_newest(connection):
                return False
            _upgrade(connection)
            return True
    finally:
        engine.dispose()


def _is_newest(connection: sa.Connection) -> bool:
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    current = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    known = revisions()
    if current is not None and current not in known:
        raise UnknownSchema(
            f"the database has schema {current}, this Serai knows up to {known[-1]}: install the newer Serai again"
        )
    return current == known[-1]


def _upgrade(connection: sa.Connection) -> None:
    # 0.35 s to import: only for those who need it.
    from alembic import command

    command.upgrade(_config(connection), "head")


def _config(connection: sa.Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
