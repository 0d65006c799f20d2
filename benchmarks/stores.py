"""The databases of the benchmarks: created, migrated, filled and dropped.

PostgreSQL is the server that TEST_POSTGRESQL_URL names, as for the tests, but every commit waits for the disk, as in
production.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psycopg
from flask import Flask
from flask_migrate import upgrade
from psycopg.sql import SQL, Identifier
from sqlalchemy import Table, insert, make_url

from pwreset import create_app
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User

SERVER = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
ROWS_AT_ONCE = 1000


class Store(Protocol):
    """Creates a database in a folder or on a server, and returns the settings that name it."""

    def __call__(self, folder: Path) -> AbstractContextManager[dict[str, str]]:
        """Create it; it is dropped when the `with` statement ends."""


@contextmanager
def sqlite(folder: Path) -> Iterator[dict[str, str]]:
    """Name a file in the folder, which is deleted with it."""
    yield {"DATABASE_URL": f"sqlite:///{folder}/{token_hex(4)}.db"}


@contextmanager
def postgresql(_folder: Path) -> Iterator[dict[str, str]]:
    """Create a database with a random name."""
    name = f"pwreset_bench_{token_hex(6)}"
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(Identifier(name)))
        try:
            yield {"DATABASE_URL": make_url(SERVER).set(database=name).render_as_string(hide_password=False)}
        finally:
            server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


STORES: dict[str, Store] = {"SQLite": sqlite, "PostgreSQL": postgresql}


@contextmanager
def application(folder: Path, settings: dict[str, str]) -> Iterator[Flask]:
    """Create an application in this process, on a migrated database."""
    app = create_app({"INSTANCE_PATH": folder, **settings})
    with app.app_context():
        upgrade()
    try:
        yield app
    finally:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder that is deleted when the `with` statement ends."""
    with TemporaryDirectory(prefix="pwreset-bench-") as folder:
        yield Path(folder)


def add_users(addresses: Iterable[str], password_hash: str) -> None:
    """Insert accounts, all with the same password, and commit."""
    fixed = {"password_hash": password_hash, "stamp": token_hex(16)}
    _add(User.__table__, ({"email": address, "email_key": address, **fixed} for address in addresses))


def add_requests(addresses: Iterable[str], due: datetime | None = None) -> None:
    """Insert the rows of reset requests as the view does, but many at once, and commit."""
    fixed = {"kind": "password_reset", "client_address": "192.0.2.1", "user_agent": "Firefox/140 (Windows)"}
    fixed |= {"run_after": due or utcnow()}
    _add(OutboxMessage.__table__, ({"address": address, "email_key": address, **fixed} for address in addresses))


def _add(table: Table, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    for start in range(0, len(listed), ROWS_AT_ONCE):
        db.session.connection().execute(insert(table), listed[start : start + ROWS_AT_ONCE])
    db.session.commit()
