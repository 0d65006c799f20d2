"""The databases of the tests: SQLite files and PostgreSQL databases, created, emptied, read and removed.

It decides how a test gets a migrated and empty database within milliseconds, on either engine. PostgreSQL is the
server that TEST_POSTGRESQL_URL names; the databases created there end with the test process, and nothing else on it
is touched.
"""

import os
import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from itertools import count
from pathlib import Path
from secrets import randbits
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

# A test with one of these runs on one engine only, because the other has no such behaviour; none is skipped.
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

SERVER = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
NO_SERVER = "No PostgreSQL answers on 127.0.0.1:5432, or where TEST_POSTGRESQL_URL says."
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname"
SHAPE = """
    SELECT attrelid::regclass::text, attname, atttypid FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace ORDER BY attrelid::regclass::text, attnum
"""
FIRST_IDS = "SELECT setval(oid, 1, false) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'"
OURS = """
    SELECT datname, split_part(datname, '_', 3)::int FROM pg_database WHERE datname ~ '^pwreset_test_[0-9]+_[0-9]+$'
"""
END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()
"""
Rows = list[tuple[Any, ...]]


class Database(ABC):
    """A database as a test sees it from outside, beside the application that uses it."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The settings with which an application uses this database."""

    @abstractmethod
    def query(self, sql: str, *values: object) -> Rows:
        """Run one statement, with `?` for each value, and commit."""

    @abstractmethod
    def tables(self) -> set[str]:
        """The names of all tables but the engine's own."""

    @abstractmethod
    def contents(self) -> dict[str, bytes]:
        """Everything that is stored, by where."""

    @abstractmethod
    def make_unreachable(self) -> None:
        """Make it unreachable, also over open connections."""

    @abstractmethod
    def make_reachable(self) -> None:
        """Make it reachable again; its rows may be gone."""


class SQLite(Database):
    """The file in an instance folder.

    Args:
        folder: the instance folder.
        original: a migrated file to copy, or None for a database without tables.
    """

    def __init__(self, folder: Path, original: Path | None = None) -> None:
        self.path, self._original = folder / "pwreset.db", original
        folder.mkdir(exist_ok=True)
        self._copy()

    @property
    def settings(self) -> dict[str, str]:
        """The folder: the file lies where the application looks by itself."""
        return {"INSTANCE_PATH": str(self.path.parent)}

    def query(self, sql: str, *values: object) -> Rows:
        """Run one statement and commit."""
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            return list(connection.execute(sql, values))

    def tables(self) -> set[str]:
        """The names of all tables but the engine's own."""
        found = self.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        return {name for (name,) in found}

    def contents(self) -> dict[str, bytes]:
        """The bytes of the file and of those beside it, which hold the last changes."""
        return {path.name: path.read_bytes() for path in self.path.parent.glob("pwreset.db*")}

    def make_unreachable(self) -> None:
        """Put a folder where the file was."""
        for path in self.path.parent.glob("pwreset.db*"):
            path.unlink()
        self.path.mkdir()

    def make_reachable(self) -> None:
        """Put a new file there."""
        self.path.rmdir()
        self._copy()

    def _copy(self) -> None:
        if self._original:
            shutil.copy(self._original, self.path)


class PostgreSQL(Database):
    """A database of a server.

    Args:
        server: whose.
        name: of the database.
    """

    def __init__(self, server: "Server", name: str) -> None:
        self.server, self.name = server, name
        self.url = make_url(SERVER).set(database=name).render_as_string(hide_password=False)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._is_away = False

    @property
    def settings(self) -> dict[str, str]:
        """Its URL."""
        return {"DATABASE_URL": self.url}

    def query(self, sql: str, *values: object) -> Rows:
        """Run one statement and commit."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.url, autocommit=True)
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def tables(self) -> set[str]:
        """The names of all tables."""
        return {name for (name,) in self.query(TABLES)}

    def contents(self) -> dict[str, bytes]:
        """Every row of every table, as text."""
        return {name: str(self.query(f'SELECT x::text FROM "{name}" x')).encode() for name in self.tables()}  # noqa: S608

    def make_unreachable(self) -> None:
        """Reject new connections, and end the open ones."""
        self.server.run("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)
        self.end_connections()
        self._is_away = True

    def make_reachable(self) -> None:
        """Accept connections again."""
        self.server.run("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name)
        self._is_away = False

    def end_connections(self) -> None:
        """End whatever a test left open: a transaction would hold locks, or write later."""
        self.close()
        self.server.end_connections_to(self.name)
        if self._is_away:
            self.make_reachable()

    def shape(self) -> Rows:
        """Return the columns and the version, which a test may have changed."""
        version = self.query("SELECT version_num FROM alembic_version") if "alembic_version" in self.tables() else []
        return self.query(SHAPE) + version

    def empty(self) -> None:
        """Delete every row of the application's, and let ids begin with 1 again."""
        # Less than a millisecond; TRUNCATE makes new files and took 12, CREATE DATABASE ... TEMPLATE 130. In one
        # statement, so that foreign keys are looked at only after it.
        parts = [f'"d{name}" AS (DELETE FROM "{name}")' for name in self.tables() - {"alembic_version"}]  # noqa: S608
        self.query(f"WITH {', '.join(parts)} {FIRST_IDS}")

    def drop_tables(self) -> None:
        """Drop every table."""
        self.query("DROP SCHEMA public CASCADE")
        self.query("CREATE SCHEMA public")

    def close(self) -> None:
        """End the connection that `query` keeps."""
        if self._connection:
            self._connection.close()


class Server:
    """The PostgreSQL server on which tests make databases.

    Raises:
        psycopg.OperationalError: where none answers.
    """

    def __init__(self) -> None:
        self._connection = psycopg.connect(make_conninfo(SERVER, connect_timeout=5), autocommit=True)
        self._made: list[PostgreSQL] = []
        # The names of this process's databases begin with its number; its lock lasts as long as the process.
        self._number, self._names = randbits(31), count()
        self._connection.execute("SELECT pg_advisory_lock(%s)", [self._number])
        self._drop_leftovers()

    def run(self, statement: str, *names: str) -> None:
        """Run a statement with names of databases in it, outside of them."""
        self._connection.execute(SQL(statement).format(*map(Identifier, names)))  # type: ignore[arg-type]

    def end_connections_to(self, name: str) -> None:
        """End every connection to a database, also in the middle of a transaction."""
        self._connection.execute(END_OTHERS, [name])

    def create(self, *, copy_of: PostgreSQL | None = None, encoding: str = "UTF8") -> PostgreSQL:
        """Make a database; it lasts until it is dropped, or all are."""
        database = PostgreSQL(self, f"pwreset_test_{self._number}_{next(self._names)}")
        if copy_of:
            self.run("CREATE DATABASE {} TEMPLATE {}", database.name, copy_of.name)
        else:
            self.run(f"CREATE DATABASE {{}} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'", database.name)
        self._made.append(database)
        # What a power failure would take is no loss, and every commit is ten times as fast.
        self.run("ALTER DATABASE {} SET synchronous_commit = off", database.name)
        return database

    def drop(self, database: PostgreSQL) -> None:
        """Drop a database, also while others are connected to it."""
        database.close()
        self.run("DROP DATABASE {} WITH (FORCE)", database.name)
        self._made.remove(database)

    def close(self) -> None:
        """Drop every database made here."""
        for database in list(self._made):
            self.drop(database)
        self._connection.close()

    def _drop_leftovers(self) -> None:
        """Drop the databases of processes that were killed: those whose lock is free."""
        for name, number in self._connection.execute(OURS).fetchall():
            if self._connection.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone() == (True,):
                self.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
                self._connection.execute("SELECT pg_advisory_unlock(%s)", [number])


class Reused:
    """The one PostgreSQL database that all tests of a process use, one after the other.

    Args:
        server: where it is.
        original: a migrated and empty database, to which nobody connects.
    """

    def __init__(self, server: Server, original: PostgreSQL) -> None:
        self._server, self._original = server, original
        self._shape = original.shape()
        original.close()
        self._database = server.create(copy_of=original)

    def fresh(self) -> PostgreSQL:
        """Return it as it was made, whatever the test before did to it or left open."""
        self._database.end_connections()
        if self._database.shape() != self._shape:
            self._server.drop(self._database)
            self._database = self._server.create(copy_of=self._original)
        self._database.empty()
        return self._database
