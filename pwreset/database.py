"""How connections are set up, how constraints are named, and whether the tables match this code.

Also decides how long a process waits for a database, how SQLite works with several threads, and that no error repeats
the values of a row. It must not read or write our tables.
"""

from typing import Any

import click
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Dialect, MetaData, event, exc, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.orm import DeclarativeBase

from config import ROOT

BUSY_MILLISECONDS = 5000  # how long a statement waits for a lock; then the page is a 503
# The database can't be reached, closed the connection, has no tables (a programming error on PostgreSQL, an operational
# one on SQLite), is read-only after a failover (an internal error), or there are more requests than connections.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.ProgrammingError, exc.TimeoutError)
# Each database's own INSERT, which supports ON CONFLICT.
INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
POSTGRESQL_CONNECTION = {
    "client_encoding": "utf8",  # otherwise a server without a locale sends bytes
    "connect_timeout": 5,  # seconds; the driver's default is 130
    # If the server's machine fails, the connection ends after this time. The kernel's default is a quarter of an hour.
    "keepalives_idle": 5,  # seconds
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,  # milliseconds
    # No prepared statements: a worker would reuse the plan for an empty outbox, and scan the table once it is full.
    "prepare_threshold": None,
}
# A process that freezes during a transaction, or whose machine fails, must not keep its locks.
POSTGRESQL_SESSION = f"SET lock_timeout = {BUSY_MILLISECONDS}; SET idle_in_transaction_session_timeout = 30000"

FIRST_TABLES = ("users", "outbox", "security_events")  # the first migration creates them


class SchemaError(click.ClickException):
    """The tables do not match this code; the message states what to do, and commands print it unchanged."""


class Base(DeclarativeBase):
    """Base of all models."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def prepare(engine: Engine) -> None:
    """Set up an application's engine. Listeners on the class Engine would stay after a reload."""
    event.listen(engine, "do_connect", _set_timeouts)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "handle_error", _keep_rows_out_of_errors)


def check_schema(engine: Engine) -> None:
    """Check that the database has our tables, and that they are not older than this code.

    A revision that this code does not have counts as a newer one: during an upgrade without downtime, the old code
    still serves requests.

    Raises:
        SchemaError: the tables are missing, older, or another application's.
        exc.SQLAlchemyError: the database does not answer; see `UNAVAILABLE`.
    """
    with engine.connect() as connection:
        present = check_version_table(connection)
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    known = {script.revision for script in scripts.walk_revisions()}
    if not present:
        raise SchemaError("The database has no tables yet. Run: flask db upgrade")
    if present <= known and present != set(scripts.get_heads()):
        raise SchemaError("The database is older than this code. Run: flask db upgrade")


def check_version_table(connection: Connection) -> set[str]:
    """Return the revisions that the database is at; none before the first migration.

    Raises:
        SchemaError: there is a revision but not our tables, so another application keeps its revisions here.
    """
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present and not all(inspect(connection).has_table(table) for table in FIRST_TABLES):
        raise SchemaError(
            "The table alembic_version in this database belongs to another application. Set DATABASE_URL to a database"
            " of its own for pwreset."
        )
    return present


def _set_timeouts(dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    """Set the options that DATABASE_URL does not set."""
    if dialect.name == "postgresql":
        for name, value in POSTGRESQL_CONNECTION.items():
            options.setdefault(name, value)


def _set_up(connection: Any, _record: Any) -> None:
    """On SQLite, allow reads during a write; on both databases, limit how long a statement waits for a lock."""
    cursor = connection.cursor()
    if type(connection).__module__.partition(".")[0] == "sqlite3":
        for pragma in ("foreign_keys=ON", f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL"):
            cursor.execute(f"PRAGMA {pragma}")
    else:
        cursor.execute(POSTGRESQL_SESSION)
        connection.commit()  # otherwise the first rollback would undo it
    cursor.close()


def _keep_rows_out_of_errors(context: ExceptionContext) -> None:
    """Keep only the first line of PostgreSQL's errors: the others contain values of a row, and would be logged."""
    original = context.original_exception
    ours = context.sqlalchemy_exception
    first_line = getattr(getattr(original, "diag", None), "message_primary", None)
    if first_line is None:
        return
    complete = str(original)
    original.args = (first_line,)
    if ours is not None:
        ours.args = (str(ours.args[0]).replace(complete, first_line), *ours.args[1:])
