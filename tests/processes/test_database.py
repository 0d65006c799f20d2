"""The commands before, during and after migrations."""

from collections.abc import Iterator
from secrets import token_hex

import pytest

from tests.support.databases import Server, on_postgresql
from tests.support.instance import Instance
from tests.support.servers import Gunicorn, copy_of_the_project

RUN = ("-m", "flask", "run", "--port", "0")
CREATE = ("-m", "flask", "users", "create", "alice@example.com", "--password-stdin")
NEEDS_TABLES = [
    RUN,
    ("-m", "flask", "--debug", "run", "--port", "0"),
    CREATE,
    ("-m", "flask", "outbox", "run"),
]
UPGRADE = ("-m", "flask", "db", "upgrade")
GUNICORN = ("-m", "gunicorn", "--workers", "1", "--bind", "127.0.0.1:0")
SERVED = {
    "PUBLIC_URL": "http://127.0.0.1:1",
    "SECRET_KEY": Gunicorn.secret_key,
    "EMAIL_HOST": "localhost",
    "EMAIL_FROM": "accounts@example.com",
}
FOREIGN = (
    "The table alembic_version in this database belongs to another application. Set DATABASE_URL to a database of its"
    " own for pwreset.\n"
)
PASSWORD = "seven green lanterns drift\n"


def names(arguments):
    return " ".join(arguments[1:])


@pytest.mark.parametrize("arguments", NEEDS_TABLES, ids=names)
def test_without_tables_one_line_names_the_command_that_makes_them(empty_instance: Instance, arguments):
    done = empty_instance.run(*arguments, stdin=PASSWORD)
    assert done.returncode == 1
    assert done.stderr == "Error: The database has no tables yet. Run: flask db upgrade\n"
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [RUN, CREATE], ids=names)
def test_an_older_database_is_reported_in_one_line_with_the_command_that_upgrades_it(
    instance: Instance, tmp_path, arguments
):
    project = copy_of_the_project(tmp_path / "project")  # with one migration more than the database has seen
    newer = 'revision, down_revision = "9999", "0001"\ndef upgrade(): pass\ndef downgrade(): pass\n'
    (project / "migrations/versions/9999_newer.py").write_text(newer, encoding="utf-8")
    done = instance.run(*arguments, stdin=PASSWORD, root=project)
    assert done.returncode == 1
    assert done.stderr == "Error: The database is older than this code. Run: flask db upgrade\n"


def test_a_newer_database_is_served_since_an_upgrade_may_be_under_way(instance: Instance):
    instance.query("UPDATE alembic_version SET version_num = 'of tomorrow'")
    done = instance.run(*CREATE, stdin=PASSWORD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Created alice@example.com.\n", "")


def test_older_code_does_not_migrate_a_newer_database(instance: Instance):
    instance.query("UPDATE alembic_version SET version_num = '9999'")
    done = instance.run("-m", "flask", "db", "upgrade")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: The database is newer than this code: it is at revision 9999.\n"


@pytest.mark.parametrize("revision", ["a1b2c3d4e5f6", "0001"])
@pytest.mark.parametrize("arguments", [RUN, CREATE, UPGRADE, GUNICORN], ids=names)
def test_a_database_in_which_another_application_keeps_its_revisions_is_named_in_one_line(
    empty_instance: Instance, arguments, revision: str
):
    empty_instance.query("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
    empty_instance.query("INSERT INTO alembic_version VALUES (?)", revision)
    empty_instance.query("CREATE TABLE users (id integer)")
    done = empty_instance.run(*arguments, stdin=PASSWORD, **(SERVED if arguments == GUNICORN else {}))
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count(FOREIGN) == 1
    assert arguments == GUNICORN or done.stderr == f"Error: {FOREIGN}"
    assert empty_instance.database.tables() == {"alembic_version", "users"}


@pytest.mark.parametrize("arguments", [RUN, CREATE], ids=names)
def test_a_database_out_of_reach_is_named_in_one_line(empty_instance: Instance, nowhere: str, arguments):
    done = empty_instance.run(*arguments, stdin=PASSWORD, DATABASE_URL=nowhere)
    assert done.returncode == 1
    assert done.stderr == "Error: The database does not answer (OperationalError). Check DATABASE_URL.\n"


@pytest.fixture
def without_rights(postgresql_server: Server, empty_instance: Instance) -> Iterator[dict[str, str]]:
    """Return the settings of a role that may connect to the database without tables, and do nothing in it."""
    role = f"pwreset_test_{token_hex(6)}"
    postgresql_server.run("CREATE ROLE {}", role)
    yield {"DATABASE_URL": f"{empty_instance.database.settings['DATABASE_URL']}?options=-c%20role%3D{role}"}
    postgresql_server.run("DROP ROLE {}", role)


@on_postgresql
@pytest.mark.parametrize(
    ("granted", "why"),
    [("USAGE", "permission denied for schema public"), ("CREATE", "no schema has been selected to create in")],
)
def test_a_role_that_may_not_create_tables_is_reported_in_one_line(
    empty_instance: Instance, without_rights, granted: str, why: str
):
    empty_instance.query(f"GRANT {granted} ON SCHEMA public TO public")
    done = empty_instance.run("-m", "flask", "db", "upgrade", **without_rights)
    assert done.returncode == 1
    assert done.stderr == f"Error: The database can't be used: {why}. Check DATABASE_URL.\n"


@on_postgresql
@pytest.mark.parametrize("arguments", [RUN, CREATE, ("-m", "flask", "db", "upgrade")], ids=names)
def test_a_role_that_may_not_read_the_tables_is_reported_in_one_line(
    empty_instance: Instance, without_rights, arguments
):
    empty_instance.query("CREATE TABLE alembic_version (version_num text)")
    empty_instance.query("GRANT USAGE ON SCHEMA public TO public")
    done = empty_instance.run(*arguments, stdin=PASSWORD, **without_rights)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: The database ")


def test_the_migrations_go_up_and_down_and_up_again_and_match_the_models(empty_instance: Instance):
    def migrate(*arguments):
        done = empty_instance.run("-m", "flask", "db", *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    migrate("upgrade")
    assert {"users", "outbox", "security_events", "counters"} <= empty_instance.database.tables()
    assert "No new upgrade operations detected." in migrate("check")
    migrate("downgrade", "base")
    assert empty_instance.database.tables() == {"alembic_version"}
    migrate("upgrade")
    assert "No new upgrade operations detected." in migrate("check")
    done = empty_instance.run(*CREATE, stdin=PASSWORD)
    assert done.stdout == "Created alice@example.com.\n"


def test_upgrading_twice_changes_nothing(instance: Instance):
    instance.query(
        "INSERT INTO outbox (message_id, kind, address, email_key, options, created_at, leased, attempts)"
        " VALUES ('1', 'register', 'a@example.com', 'a@example.com', '{}', '2026-01-01 00:00:00', false, 0)"
    )
    done = instance.run("-m", "flask", "db", "upgrade")
    assert (done.returncode, instance.waiting()) == (0, 1)
