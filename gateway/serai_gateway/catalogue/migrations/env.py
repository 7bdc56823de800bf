"""Alembic's entry: runs migrations on the connection that `serai_gateway.catalogue.migrate` hands over."""

from alembic import context

from serai_gateway.catalogue.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite can, and a half-done migration is then undone
    render_as_batch=True,  # SQLite alters tables by copying them
)
context.run_migrations()
