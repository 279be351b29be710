"""Run by Alembic for each change of the tables: over the connection that `database.migrate` hands on."""

from alembic import context

from anomalens.serving.schema import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    # SQLite cannot change a column in place: the table is copied.
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
