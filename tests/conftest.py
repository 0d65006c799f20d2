"""What every test starts from: an application on a database of its own, and people who use it.

Every test that asks for a database runs on SQLite and on PostgreSQL, as its id says. The database is migrated once and
empty for each test; the forms, cookies, tokens and mails are the real ones.
"""

import os
import re
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy import update

os.environ["FLASK_SKIP_DOTENV"] = "1"  # the developer's own settings must not reach a test

from pwreset import accounts, create_app
from pwreset.extensions import db
from pwreset.mail.mailbox import kept_mails
from pwreset.models import OutboxMessage, User
from pwreset.outbox.delivery import deliver_pending
from tests.databases import NO_SERVER, Database, PostgreSQL, Reused, Server, SQLite

PASSWORD = "seven green lanterns drift"
NEW_PASSWORD = "quiet rivers under old bridges"
MakeApp = Callable[..., Flask]


# For what only one of them has: a test with one of these runs once, and none is skipped.
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


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


def migrate(folder: Path, **settings: str) -> None:
    """Make the tables."""
    app = create_app({"INSTANCE_PATH": folder, **settings})
    with app.app_context():
        upgrade()
        db.engine.dispose()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Return an application in local mode, its mail kept in the mailbox."""
    return make_app()


@pytest.fixture
def visitor(app: Flask) -> "Visitor":
    """Return somebody with a browser who was never here."""
    return Visitor(app)


@pytest.fixture
def post_room(app: Flask) -> "PostRoom":
    """Return who delivers and opens the mail."""
    return PostRoom(app)


@pytest.fixture
def alice(app: Flask) -> int:
    """Return the id of an account, alice@example.com, with PASSWORD."""
    return add_user(app, "alice@example.com", PASSWORD)


def add_user(app: Flask, email: str, password: str | None) -> int:
    """Add an account and return its id."""
    with app.app_context():
        user = accounts.create(email, password)
        assert user is not None
        return user.id


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let two thousand tests that skip for want of PostgreSQL say so in one line."""
    report: pytest.TestReport = yield
    if report.skipped and NO_SERVER in str(report.longrepr):
        report.longrepr = (__file__, 1, f"Skipped: {NO_SERVER}")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on CI in which a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and os.environ.get("CI") == "true" and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Visitor:
    """A browser: it keeps cookies, and posts forms with the CSRF token of the page it opened."""

    def __init__(self, app: Flask, client: FlaskClient | None = None) -> None:
        self.client = client or app.test_client()

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.client.get(path, **kwargs)

    def submit(self, path: str, /, at: str | None = None, **fields: str) -> Any:
        """Open a page and send its form (`at`: to another path than the page's)."""
        token = csrf_token(self.get(path))
        return self.client.post(at or path, data={**fields, "csrf_token": token})

    def log_in(self, email: str = "alice@example.com", password: str = PASSWORD, **fields: str) -> Any:
        return self.submit("/login/", email=email, password=password, **fields)

    def log_out(self) -> Any:
        return self.submit("/logout/")

    def ask_for_reset(self, email: str = "alice@example.com") -> Any:
        return self.submit("/password-reset/", email=email)

    def open_link(self, link: str) -> Any:
        """Follow a mailed link as far as the form, or the page that says it is dead."""
        return self.get(path_of(link), follow_redirects=True)

    def choose(self, link: str, password: str = NEW_PASSWORD, again: str | None = None) -> Any:
        """Follow a mailed link and send its form."""
        page = self.get(path_of(link), follow_redirects=True)
        fields = {"new_password1": password, "new_password2": password if again is None else again}
        return self.client.post(page.request.path, data={**fields, "csrf_token": csrf_token(page)})

    def is_signed_in(self) -> bool:
        return self.get("/account/").status_code == 200


class PostRoom:
    """Delivers what waits and reads what arrived in the mailbox."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def deliver(self) -> tuple[int, str | None]:
        with self.app.app_context():
            return deliver_pending()

    def mails(self) -> list[EmailMessage]:
        """Return the kept mails, oldest first."""
        with self.app.app_context():
            return [kept.mail for kept in reversed(kept_mails())]

    def deliver_one(self) -> EmailMessage:
        """Deliver, and return the one new mail; fails where there is none or more than one."""
        before = len(self.mails())
        self.deliver()
        new = self.mails()[before:]
        assert len(new) == 1, f"{len(new)} new mails"
        return new[0]

    def reset_link(self, email: str = "alice@example.com") -> str:
        """Ask for a reset in a browser of its own and return the link that was mailed."""
        self.let_a_minute_pass()
        Visitor(self.app).ask_for_reset(email)
        return link_in(self.deliver_one())

    def let_a_minute_pass(self) -> None:
        """Forget when an account was last mailed."""
        with self.app.app_context():
            db.session.execute(update(User).values(cooldown_started_at=None))
            db.session.commit()

    def waiting(self) -> int:
        with self.app.app_context():
            return db.session.query(OutboxMessage).count()


def csrf_token(page: Any) -> str:
    """Return the token of the first form on a page."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert found, f"no form on the page: {page.status}"
    return found[1]


def text_of(mail: EmailMessage) -> str:
    """Return the text part."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def link_in(mail: EmailMessage) -> str:
    """Return the link that stands on a line of its own."""
    links = re.findall(r"^(http\S+/\S+)$", text_of(mail), re.MULTILINE)
    assert len(links) >= 1, "no link in the mail"
    return str(links[0])


def path_of(link: str) -> str:
    """Return a link without its origin."""
    return "/" + link.split("/", 3)[3]
