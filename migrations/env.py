"""Runs and writes migrations on the application's own engine, one process at a time.

On SQLite all migrations of a command run in one transaction, with foreign keys off: batch mode recreates a table, and
with foreign keys on its DROP TABLE would delete the rows that refer to it. On PostgreSQL each migration has its own
transaction, so that a migration can use `autocommit_block`.
"""

import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from alembic import context
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations import MigrationScript
from alembic.runtime.migration import MigrationInfo
from alembic.script import ScriptDirectory, write_hooks
from flask import current_app
from sqlalchemy import Connection, Engine, Inspector, Table, TypeDecorator, inspect
from sqlalchemy.exc import DBAPIError

from pwreset.database import check_version_table

LOCK_NUMBER = int.from_bytes(b"pwreset")  # PostgreSQL keeps advisory locks for each database
SQLITE_WAIT = 600_000  # milliseconds until another upgrade must have ended
GENERATED_ID = re.compile("[0-9a-f]{12}")  # Alembic's default if there is no --rev-id
migrate = current_app.extensions["migrate"]
scripts = ScriptDirectory.from_config(context.config)


def run(connection: Connection, report: Callable[[str], None]) -> None:
    """Run or write the migrations of the current command.

    Args:
        connection: already in a transaction on SQLite, but not on PostgreSQL.
        report: receives a line for each migration that ran.
    """

    def applied(step: MigrationInfo, **_: Any) -> None:
        if not (context.is_offline_mode() or step.is_stamp):
            direction = "Upgraded to" if step.is_upgrade else "Downgraded from"
            report(f"{direction} {step.up_revision_id}: {step.up_revision.doc}")

    context.configure(
        connection=connection,
        target_metadata=migrate.db.metadata,
        transaction_per_migration=True,
        on_version_apply=applied,
        process_revision_directives=name_the_revision,
        render_item=render_item,
        **migrate.configure_args,
    )
    if not context.get_context().purge:  # `flask db stamp --purge` is how an operator repairs the version
        check_revisions(connection)
    with context.begin_transaction():
        context.run_migrations()


def check_revisions(connection: Connection) -> None:
    """Reject a database at a revision that is not in this folder.

    Raises:
        click.ClickException: the revision belongs to another application or to newer code.
    """
    unknown = check_version_table(connection) - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        msg = f"The database is newer than this code: it is at revision {', '.join(sorted(unknown))}."
        raise click.ClickException(msg)


def run_on_postgresql(engine: Engine) -> None:
    """Run under an advisory lock; a second process waits for it without a time limit.

    The lock belongs to a transaction on its own connection: behind pgbouncer, a session's lock could outlive a process.
    """
    with engine.connect() as lock, engine.connect() as connection:
        lock.exec_driver_sql("SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        lock.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})")
        run(connection, click.echo)


def run_on_sqlite(engine: Engine) -> None:
    """Run in one transaction that acquires the write lock first; a second process waits for it."""
    lines: list[str] = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # closed at the end, so that it is not reused without foreign keys
        for statement in (f"busy_timeout = {SQLITE_WAIT}", "foreign_keys = OFF"):
            connection.exec_driver_sql(f"PRAGMA {statement}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with keeping_foreign_keys(connection), keeping_used_ids(connection):
            run(connection, lines.append)
        connection.exec_driver_sql("COMMIT")  # after an error, closing the connection rolls back
    for line in lines:
        click.echo(line)


@contextmanager
def keeping_foreign_keys(connection: Connection) -> Iterator[None]:
    """Check foreign keys after the migrations, because SQLite does not check them during the migrations.

    Raises:
        click.ClickException: rows refer to rows that do not exist, and did not before.
    """
    before = broken_references(connection)
    yield
    new = broken_references(connection) - before
    if new:
        table, _, parent = min(new)
        msg = f"The migrations would leave rows in {table} that refer to missing rows of {parent}. Nothing was changed."
        raise click.ClickException(msg)


def broken_references(connection: Connection) -> set[tuple[str, int, str]]:
    """Return table, row and the table referred to, for each reference to a row that does not exist."""
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return {(table, row or 0, parent) for table, row, parent, _ in rows}


@contextmanager
def keeping_used_ids(connection: Connection) -> Iterator[None]:
    """Keep the highest id ever used in each table: a recreated table only has the ids of its present rows."""
    before = used_ids(connection)
    yield
    after = used_ids(connection)
    for table in before.keys() & set(inspect(connection).get_table_names()):
        if before[table] > after.get(table, -1):
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.exec_driver_sql("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, before[table]))


def used_ids(connection: Connection) -> dict[str, int]:
    """Return the highest id ever used, by table with AUTOINCREMENT."""
    if not connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'sqlite_sequence'").first():
        return {}
    return dict(connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence").all())


class KeepingAutoincrement(SQLiteImpl):
    """Alembic's SQLite implementation, which also keeps AUTOINCREMENT when batch mode recreates a table."""

    __dialect__ = "sqlite"

    def autogen_column_reflect(self, inspector: Inspector, table: Table, column_info: dict[str, Any]) -> None:
        """Read AUTOINCREMENT from the database, because SQLAlchemy's reflection leaves it out."""
        super().autogen_column_reflect(inspector, table, column_info)
        query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        created = self.connection.exec_driver_sql(query, (table.name,)).scalar() or ""
        if re.search(r"\bAUTOINCREMENT\b", created, re.IGNORECASE):
            table.kwargs["sqlite_autoincrement"] = True


def name_the_revision(_context: Any, _revision: Any, directives: list[MigrationScript]) -> None:
    """Give a new migration the next number, and turn its message into a sentence for its docstring."""
    if not directives:
        return
    script = directives[0]
    if getattr(context.config.cmd_opts, "autogenerate", False) and script.upgrade_ops.is_empty():
        directives.clear()
        click.echo("No changes to the tables.")
        return
    words = " ".join((script.message or "change the tables").split()).replace("\\", "").replace('"', "'").rstrip(".")
    script.message = words[:1].upper() + words[1:]
    if GENERATED_ID.fullmatch(script.rev_id):
        numbers = [int(known.revision) for known in scripts.walk_revisions() if known.revision.isdecimal()]
        script.rev_id = f"{max(numbers, default=0) + 1:04}"


def render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """Write our own column types as the database's types, because a migration must not import the application."""
    if kind == "type" and isinstance(item, TypeDecorator) and type(item.impl).__module__.startswith("sqlalchemy.sql."):
        return f"sa.{item.impl!r}"
    return False


@write_hooks.register("ruff_if_installed")
def format_file(path: str, _options: dict[str, str]) -> None:
    """Format a new migration as `make check` requires."""
    if find_spec("ruff") is None:
        click.echo("ruff is not installed, so the file is not formatted. `make check` installs it.")
        return
    for command in (("check", "--fix"), ("format",)):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", path], check=False)  # noqa: S603


def failed_at(error: Exception) -> str | None:
    """Return file and line of the migration that an error comes from, or None."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.parent.name == "versions":
            return f"{path.name} failed at line {frame.lineno}"
    return None


engine = migrate.db.engine
try:
    (run_on_sqlite if engine.dialect.name == "sqlite" else run_on_postgresql)(engine)
except DBAPIError as error:
    why = str(error.orig).partition("\n")[0]
    place = failed_at(error)
    msg = f"{place} and was rolled back: {why}." if place else f"The database can't be used: {why}. Check DATABASE_URL."
    raise click.ClickException(msg) from None
