"""Run migrations in the transaction of the connection that `database` hands over."""

from __future__ import annotations

from alembic import context

from receiver.catalogue.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
