"""Runs the migrations on the application's own engine, each in a transaction where tables can be in one."""

import click
from alembic import context
from flask import current_app
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

REFUSED = {"42501", "3F000"}  # PostgreSQL: the role may not make or read tables; there is no schema it may use
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
except (OperationalError, ProgrammingError) as error:
    if isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) not in REFUSED:
        raise  # a mistake in a migration, whose author wants to see all of it
    why = str(error.orig).partition("\n")[0]
    msg = f"The database can't be used: {why}. Check DATABASE_URL."
    raise click.ClickException(msg) from None
