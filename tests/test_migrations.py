"""Migrations: up, down and up again on both engines, and the same tables as the models say."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect, select, text

import config
from pwreset import accounts, create_app
from pwreset.extensions import db
from pwreset.models import User
from tests.support.databases import Database, on_sqlite

TABLES_WITH_IDS = {"users", "outbox", "security_events"}
TABLES = {*TABLES_WITH_IDS, "counters", "login_failures", "ended_sessions"}
# Everything there is to know of tables, indexes and constraints.
SCHEMA = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY name",
    "postgresql": """
        SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        ORDER BY 1
    """,
}


@pytest.fixture
def empty(empty_database: Database, tmp_path: Path) -> Iterator[Flask]:
    """Return an application whose database has no tables yet, inside its context."""
    app = create_app({"INSTANCE_PATH": tmp_path, **empty_database.settings})
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def tables() -> set[str]:
    """Return the names of the tables there are, but for what Alembic and SQLite keep for themselves."""
    return set(inspect(db.engine).get_table_names()) - {"alembic_version", "sqlite_sequence"}


def schema() -> list[str]:
    """Return what the engine has of every table and index."""
    with db.engine.connect() as connection:
        return [sorted_constraints(sql) for sql in connection.exec_driver_sql(SCHEMA[db.engine.dialect.name]).scalars()]


def sorted_constraints(sql: str) -> str:
    """Return a statement with its constraints by name: Alembic recreates a table with them in any order."""
    lines = (line.strip(" ,\t") for line in sql.splitlines())
    return "\n".join(sorted(lines, key=lambda line: line.partition("CONSTRAINT")[1:]))


def test_upgrading_makes_the_tables(empty: Flask) -> None:
    upgrade()
    assert tables() == db.metadata.tables.keys()
    assert tables() >= TABLES  # and those of a team


def test_downgrading_takes_them_away(empty: Flask) -> None:
    upgrade()
    downgrade(revision="base")
    assert tables() == set()


def test_up_down_and_up_is_the_same_as_up(empty: Flask) -> None:
    upgrade()
    first = schema()
    downgrade(revision="base")
    upgrade()
    assert schema() == first
    assert len(first) >= len(TABLES)


def test_upgrading_twice_changes_nothing(empty: Flask) -> None:
    upgrade()
    first = schema()
    accounts.create("alice@example.com")
    upgrade()
    assert schema() == first
    assert accounts.find("alice@example.com") is not None


def test_the_application_works_after_down_and_up(empty: Flask) -> None:
    upgrade()
    downgrade(revision="base")
    upgrade()
    assert accounts.create("alice@example.com") is not None


def test_the_models_say_what_the_migrations_made(empty: Flask) -> None:
    upgrade()
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, db.metadata) == []


def test_a_table_that_is_missing_would_be_noticed(empty: Flask) -> None:
    upgrade()
    with db.engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_outbox_run_after_id"))
        found = compare_metadata(MigrationContext.configure(connection), db.metadata)
    assert [difference[0] for difference in found] == ["add_index"]


@on_sqlite
@pytest.mark.parametrize("table", sorted(TABLES_WITH_IDS))
def test_an_id_is_never_used_twice(empty: Flask, table: str) -> None:
    upgrade()
    query = text("SELECT sql FROM sqlite_master WHERE name = :table")
    with db.engine.connect() as connection:
        assert "AUTOINCREMENT" in connection.scalars(query, {"table": table}).one()


def test_every_constraint_has_a_name(empty: Flask) -> None:
    upgrade()
    inspector = inspect(db.engine)
    named = [item["name"] for table in sorted(TABLES) for item in inspector.get_unique_constraints(table)]
    named += [item["name"] for table in sorted(TABLES) for item in inspector.get_foreign_keys(table)]
    assert None not in named
    assert {"uq_users_email_key", "fk_security_events_user_id"} <= set(named)


def test_there_is_one_newest_migration() -> None:
    assert len(ScriptDirectory(str(config.ROOT / "migrations")).get_heads()) == 1


def test_migrations_can_be_run_by_the_command(empty: Flask) -> None:
    result = empty.test_cli_runner().invoke(args=["db", "upgrade"])
    assert (result.exit_code, tables()) == (0, db.metadata.tables.keys())


# --- What a migration does with rows that are there

REGISTERED_AT = "2030-01-01 12:00:00.000000"
ACCOUNTS = {  # address: password hash, last login, and when a registration of it was noted
    "registered@example.com": ("!", None, "2030-01-01 12:00:31.000000"),
    "finished@example.com": ("$argon2id$", None, "2030-01-01 12:00:01.000000"),
    "logged-in@example.com": ("!", REGISTERED_AT, "2030-01-01 12:00:01.000000"),
    "moved-from-django@example.com": ("!moved", None, None),
    "moved-and-registered-by-a-stranger@example.com": ("!moved", None, "2030-03-01 12:00:00.000000"),
    "registered-before-it-was-moved@example.com": ("!moved", None, "2029-12-31 12:00:00.000000"),
}


def test_of_older_accounts_those_that_registration_just_created_may_be_purged(
    empty: Flask, empty_database: Database
) -> None:
    upgrade(revision="0003")
    for number, (address, (password, last_login, event_at)) in enumerate(ACCOUNTS.items(), start=1):
        empty_database.query(
            "INSERT INTO users (id, email, email_key, password_hash, stamp, is_active, created_at, last_login)"
            " VALUES (?, ?, ?, ?, 's', true, ?, ?)",
            *(number, address, address, password, REGISTERED_AT, last_login),
        )
        if event_at:
            empty_database.query(
                "INSERT INTO security_events (user_id, kind, created_at) VALUES (?, 'registered', ?)", number, event_at
            )
    upgrade()
    marked = {user.email: user.registered_at for user in db.session.scalars(select(User)) if user.registered_at}
    assert marked == {"registered@example.com": datetime(2030, 1, 1, 12, tzinfo=UTC)}


def test_code_of_before_the_newest_migration_can_still_add_accounts(empty: Flask, empty_database: Database) -> None:
    upgrade()
    empty_database.query(
        "INSERT INTO users (email, email_key, password_hash, stamp, is_active, created_at)"
        " VALUES ('a@example.com', 'a@example.com', '!', 's', true, ?)",
        REGISTERED_AT,
    )
    user = accounts.find("a@example.com")
    assert user is not None
    assert user.registered_at is None
