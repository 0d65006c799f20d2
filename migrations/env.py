"""Runs the migrations on the application's own engine, each in a transaction where tables can be in one."""

import click
from alembic import context
from flask import current_app
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

migrate = current_app.extensions["migrate"]


def migrate_on(connection: Connection) -> None:
    """Run what the command asks for."""
    context.configure(
        connection=connection,
        target_metadata=migrate.db.metadata,
        transaction_per_migration=True,
        **migrate.configure_args,
    )
    with context.begin_transaction():
        context.run_migrations()


try:
    with migrate.db.engine.connect() as connection:
        migrate_on(connection)
except OperationalError as error:
    msg = f"The database does not answer: {error.orig}. Check DATABASE_URL."
    raise click.ClickException(msg) from None
