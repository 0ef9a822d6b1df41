"""Alembic environment: runs on the engine that the caller hands over."""

from __future__ import annotations

from alembic import context

from storage.sql.schema import metadata

engine = context.config.attributes["engine"]

with engine.begin() as connection:
    if connection.dialect.name == "postgresql":
        # Nodes that start at once take turns; the lock goes with the transaction. The number is arbitrary but fixed.
        # A migration may take long, and the nodes behind it wait as long as it takes.
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(778120011)")
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite"
    )
    with context.begin_transaction():
        context.run_migrations()
