"""How rows are mapped, how connections are set up, and whether the tables are those of this code.

Responsible for the constraint names (so that migrations can name them), for storing and reading every moment as UTC,
for how long anybody waits for a database, for SQLite under several threads, and for errors that repeat no row. It must
not read or write our tables.
"""

from datetime import UTC, datetime
from typing import Any

import click
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, DateTime, Dialect, MetaData, event, exc, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from config import ROOT

BUSY_MILLISECONDS = 5000  # for a lock that somebody else holds; then it is a 503, on either engine
# Out of reach, gone in between, without our tables (PostgreSQL calls that a programming error, SQLite an operational
# one), read-only after a failover (an internal one), or more requests than connections.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.ProgrammingError, exc.TimeoutError)
# Either engine's own, which can update the row that is there already.
INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
POSTGRESQL_CONNECTION = {
    "client_encoding": "utf8",  # a server set up without a locale would send bytes
    "connect_timeout": 5,  # seconds; the driver's own is 130
    # A machine that is gone answers nothing: given up after this long, and not after the kernel's quarter of an hour.
    "keepalives_idle": 5,  # seconds
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,  # milliseconds
    # No prepared statements: a worker that polls keeps the plan made for an empty outbox, and reads all of a full one.
    "prepare_threshold": None,
}
# A process that froze in a transaction, or lost its machine, must not keep its locks from all others.
POSTGRESQL_SESSION = f"SET lock_timeout = {BUSY_MILLISECONDS}; SET idle_in_transaction_session_timeout = 30000"

FIRST_TABLES = ("users", "outbox", "security_events")  # the first migration creates them


class SchemaError(click.ClickException):
    """The tables are not those of this code; the message states what to do, and a command prints it as it is."""


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


class UTCDateTime(TypeDecorator[datetime]):
    """A moment: aware in Python, UTC in the database (SQLite keeps no zone, so it is put back when read)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into UTC.

        Raises:
            ValueError: for a moment without a zone, which would be off by some hours.
        """
        if value is not None and value.tzinfo is None:
            msg = "a moment needs a time zone"
            raise ValueError(msg)
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what was stored, aware and in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def prepare(engine: Engine) -> None:
    """Bind all this to an engine: one of an application, since listeners of all engines would outlive a reload."""
    event.listen(engine, "do_connect", _bound_the_wait)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "handle_error", _keep_rows_out_of_errors)


def check_schema(engine: Engine) -> None:
    """Refuse a database without our tables, or with older ones.

    A revision that this code does not have is a newer one where our tables are there: an upgrade without downtime is
    under way, and the old code still serves.

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
        msg = (
            "The table alembic_version in this database belongs to another application. Set DATABASE_URL to a database"
            " of its own for pwreset."
        )
        raise SchemaError(msg)
    return present


def _bound_the_wait(dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    """Give what DATABASE_URL itself leaves open."""
    if dialect.name == "postgresql":
        for name, value in POSTGRESQL_CONNECTION.items():
            options.setdefault(name, value)


def _set_up(connection: Any, _record: Any) -> None:
    """Let readers and the one writer of SQLite work side by side; wait for locks, and for nobody without end."""
    cursor = connection.cursor()
    if type(connection).__module__.partition(".")[0] == "sqlite3":
        for pragma in ("foreign_keys=ON", f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL"):
            cursor.execute(f"PRAGMA {pragma}")
    else:
        cursor.execute(POSTGRESQL_SESSION)
        connection.commit()  # or the first rollback would take it back
    cursor.close()


def _keep_rows_out_of_errors(context: ExceptionContext) -> None:
    """Leave PostgreSQL's first line: those below it repeat the values of a row, and end up in logs and terminals."""
    original, ours = context.original_exception, context.sqlalchemy_exception
    first_line = getattr(getattr(original, "diag", None), "message_primary", None)
    if first_line is None:
        return
    whole, original.args = str(original), (first_line,)
    if ours is not None:
        ours.args = (str(ours.args[0]).replace(whole, first_line), *ours.args[1:])
