"""What every test starts from: an application on a database of its own, and people who use it.

Every test that asks for a database runs on SQLite and on PostgreSQL, as its id says. The database is migrated once and
empty for each test; the forms, cookies, tokens and emails are the real ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import time_machine
from flask import Flask

os.environ["FLASK_SKIP_DOTENV"] = "1"  # the developer's own settings must not reach a test

from pwreset import create_app
from pwreset.extensions import db
from tests.support.app import Inbox, MakeApp, Visitor, add_user, migrate
from tests.support.certificates import Authority
from tests.support.clock import NOON, avoid_the_end_of_a_minute
from tests.support.databases import NO_SERVER, Database, PostgreSQL, Reused, Server, SQLite
from tests.support.passwords import PASSWORD


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return what the test's database is.

    Not of the session, though the servers are: the tests come in a random order, and pytest would end whatever stands
    on one engine each time that the next test is for the other.
    """
    return str(request.param)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated and empty SQLite file, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    migrate(folder)
    return folder / "pwreset.db"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """Return the PostgreSQL server; what a test process makes there ends with it."""
    try:
        server = Server()
    except psycopg.OperationalError:
        pytest.skip(NO_SERVER)
    yield server
    server.close()


@pytest.fixture(scope="session")
def reused_database(postgresql_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Reused:
    """Return the migrated PostgreSQL database of this process, to be emptied."""
    original = postgresql_server.create()
    migrate(tmp_path_factory.mktemp("migrated"), **original.settings)
    return Reused(postgresql_server, original)


@pytest.fixture(scope="session")
def bare_database(postgresql_server: Server) -> PostgreSQL:
    """Return the PostgreSQL database of this process that has no tables (making and dropping one takes a while)."""
    return postgresql_server.create()


@pytest.fixture
def database(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Return the test's database: migrated and empty."""
    if engine == "sqlite":
        return SQLite(tmp_path, request.getfixturevalue("migrated_file"))
    reused: Reused = request.getfixturevalue("reused_database")
    return reused.fresh()


@pytest.fixture
def empty_database(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Return a database without tables; it may be beside `database`."""
    if engine == "sqlite":
        return SQLite(tmp_path / "empty")
    bare: PostgreSQL = request.getfixturevalue("bare_database")
    bare.end_connections()
    bare.drop_tables()
    return bare


@pytest.fixture
def nowhere(engine: str) -> str:
    """Return the URL of a database that is not there."""
    return "sqlite:////nowhere/at/all.db" if engine == "sqlite" else "postgresql://127.0.0.1:1/nothing"


@pytest.fixture
def make_app(database: Database, tmp_path: Path) -> Iterator[MakeApp]:
    """Return a function that builds applications; all of one test share an instance folder and database."""
    built = []

    def make(token_generator: Any = None, **settings: Any) -> Flask:
        settings = {"INSTANCE_PATH": tmp_path, **database.settings, **settings}
        app = create_app(settings, token_generator=token_generator)
        built.append(app)
        return app

    yield make
    for app in built:
        app.extensions[
            "pwreset"
        ].rejected_requests.write()  # or a timer does it, on a connection of its own, after the test
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Return an application in local mode, its email kept in the mailbox."""
    return make_app()


@pytest.fixture
def early_in_a_minute() -> None:
    """Wait for the next minute if the current one is about to end."""
    avoid_the_end_of_a_minute()


@pytest.fixture
def visitor(app: Flask) -> "Visitor":
    """Return a visitor with a new browser."""
    return Visitor(app)


@pytest.fixture
def inbox(app: Flask) -> "Inbox":
    """Return the mailbox, which also delivers the emails that wait."""
    return Inbox(app)


@pytest.fixture
def alice(app: Flask) -> int:
    """Return the id of an account, alice@example.com, with PASSWORD."""
    return add_user(app, "alice@example.com", PASSWORD)


@pytest.fixture(scope="session")
def certificates() -> Authority:
    """Return the authority whose certificates the test servers have."""
    return Authority()


@pytest.fixture
def authority(certificates: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Authority:
    """Return the authority that this test's applications trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_pem_path(tmp_path)))
    return certificates


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Stop the clock of this process at NOON, and return what moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Report in one line that two thousand tests are skipped without PostgreSQL."""
    report: pytest.TestReport = yield
    if report.skipped and NO_SERVER in str(report.longrepr):
        report.longrepr = (__file__, 1, f"Skipped: {NO_SERVER}")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on CI in which a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and os.environ.get("CI") == "true" and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
