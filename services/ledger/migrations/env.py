"""Run by alembic: takes the connection and the open transaction that `ledger.schema` hands over."""

from alembic import context

# The caller's transaction holds every step, so that a crash leaves the old schema or the new one.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
