"""Alembic's entry: runs the migrations on the connection that ``pixyproxy/data/migrations.py`` hands over."""

from alembic import context

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=attributes["dialect"], literal_binds=True, output_buffer=attributes["output"])
else:
    context.configure(connection=attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
